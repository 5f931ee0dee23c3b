"""Runs a pipeline in this process, as its command would run."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset

from dicom_adapter.phantom import PhantomSeries, write_series
from dicom_adapter.pipelines import nifti, series_report

SMALL = PhantomSeries(slices=8, rows=48, columns=64, pixel_spacing=(8.0, 6.0), slice_spacing=20.0)


@dataclass(frozen=True)
class Bench:
    """A folder with input and output, and what a run of a pipeline on it gives."""

    folder: Path
    capfd: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    @property
    def input(self) -> Path:
        return self.folder / "in"

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def write(self, series: PhantomSeries = SMALL, name: str = "1") -> list[Path]:
        """Write a phantom series into the input."""
        return write_series(self.input / name, series)

    def edit(self, path: Path, change: Callable[[FileDataset], object]) -> None:
        """Change a file of the input."""
        image = dcmread(path)
        change(image)
        image.save_as(path)

    def report(self) -> list[dict[str, Any]]:
        """Run series_report, and return the series of its report."""
        return self._run(series_report.main, "report.json")

    def nifti(self) -> list[dict[str, Any]]:
        """Run nifti, and return the series of its report."""
        return self._run(nifti.main, "nifti.json")

    def _run(self, main: Callable[[list[str]], int], name: str) -> list[dict[str, Any]]:
        code = main([str(self.input), str(self.output)])
        assert (code, self.capfd.readouterr().err) == (0, "")
        series: list[dict[str, Any]] = json.loads((self.output / name).read_bytes())["series"]
        return series


def codes(series: dict[str, Any]) -> set[str]:
    """The codes of the series' findings."""
    return {finding["code"] for finding in series["findings"]}


def message(series: dict[str, Any], code: str) -> str:
    """The message of the finding with that code."""
    return next(str(each["message"]) for each in series["findings"] if each["code"] == code)


@pytest.fixture
def bench(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Bench:
    """An empty bench."""
    for name in ("INPUT", "OUTPUT", "JOB", "PROGRESS"):
        monkeypatch.delenv(f"DICOM_ADAPTER_{name}", raising=False)
    (tmp_path / "in").mkdir()
    return Bench(tmp_path, capfd, monkeypatch)
