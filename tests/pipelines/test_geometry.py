from dataclasses import replace

import pytest
from pydicom.dataset import FileDataset

from .conftest import SMALL, Bench, codes


def place(bench: Bench, positions: list[float]) -> None:
    """Write a series with its slices at those heights, in mm, as the header has them."""
    paths = bench.write(replace(SMALL, slices=len(positions)))
    for path, height in zip(paths, positions, strict=True):

        def change(image: FileDataset, height: float = height) -> None:
            image.ImagePositionPatient = ["-189", "-188", f"{height:g}"]

        bench.edit(path, change)


@pytest.mark.parametrize(
    "positions",
    [
        [round(0.625 * k, 1) for k in range(20)],
        [round(1.25 * k, 1) for k in range(20)],
        [0.03 * k for k in range(20)],
        [-2.5 * k for k in range(20)],
    ],
    ids=["0.625 mm to a tenth", "1.25 mm to a tenth", "micro-CT", "downwards"],
)
def test_positions_that_are_only_rounded_are_even(bench: Bench, positions: list[float]) -> None:
    """Rounding of the positions is no irregular spacing."""
    place(bench, positions)
    assert bench.nifti()[0]["findings"] == []


@pytest.mark.parametrize(
    ("positions", "code"),
    [
        ([0, 1, 2, 3, 5, 6], "missing-slices"),
        ([0, 1, 4, 5, 7], "missing-slices"),
        ([0, 0.6, 1.3, 1.9, 3.1, 3.7], "missing-slices"),
        ([0, 2, 3], "missing-slices"),
        ([0, 1, 2.5, 3, 4], "irregular-spacing"),
        ([0, 1, 2, 3.3, 4.6, 5.9], "irregular-spacing"),
        ([0, 0.03, 0.06, 0.1, 0.12], "irregular-spacing"),
    ],
)
def test_missing_and_uneven_slices_are_told_apart(
    bench: Bench, positions: list[float], code: str
) -> None:
    """Steps that are whole multiples of the usual one are missing slices, others are uneven."""
    place(bench, positions)
    series = bench.nifti()[0]
    assert codes(series) == {code, "no-volume"}
    assert series["volumes"] == []


def test_slices_that_wander_sideways_are_irregular(bench: Bench) -> None:
    """Even steps along the normal are not enough: the positions must be on one line."""
    paths = bench.write()
    bench.edit(
        paths[3], lambda image: setattr(image, "ImagePositionPatient", ["-180", "-188", "-10"])
    )
    assert codes(bench.nifti()[0]) == {"irregular-spacing", "no-volume"}
