"""The instances that are sent: made once per run, as files of the phantom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import RLELossless

from dicom_adapter.phantom import PhantomSeries, write_series


@dataclass(frozen=True)
class Load:
    """One kind of instance, and its files."""

    name: str
    files: Sequence[Path]

    def parts(self, number: int, size: int) -> list[Sequence[Path]]:
        """Return so many parts of so many files, none of them in two."""
        if number * size > len(self.files):
            raise ValueError(f"{self.name} has {len(self.files)} files, not {number * size}")
        return [self.files[n * size : (n + 1) * size] for n in range(number)]


KINDS: Mapping[str, PhantomSeries] = {
    "MR 128x128": PhantomSeries(modality="MR", slices=1600, rows=128, columns=128),
    "CT 512x512": PhantomSeries(modality="CT", slices=400, rows=512, columns=512),
    "CT 512x512, RLE": PhantomSeries(
        modality="CT", slices=100, rows=512, columns=512, transfer_syntax=RLELossless
    ),
}


def make(folder: Path) -> dict[str, Load]:
    """Write every kind below a folder and return them by name."""
    return {
        name: Load(name, write_series(folder / str(number), series))
        for number, (name, series) in enumerate(KINDS.items())
    }
