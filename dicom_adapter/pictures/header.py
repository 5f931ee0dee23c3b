"""What a header says of one frame; it may hold anything, and what cannot be understood is absent.

The attributes of a frame stand in its own item of the functional groups, in the shared one, or in
the data set itself (PS3.3 C.7.6.16); they are looked for in that order.
"""

import math
from collections.abc import Iterator

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

PALETTES = tuple(
    f"{segmented}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
)
_KEYWORDS = (
    "SOPClassUID",
    "Modality",
    "AnatomicalOrientationType",
    "PatientOrientation",
    "ImageOrientationPatient",
    "ImageLaterality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PixelIntensityRelationship",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "ImagePlanePixelSpacing",
    "PixelAspectRatio",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    "DetectorInformationSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *PALETTES,
)

#: All that a picture needs. Nothing else is read: what says who the patient is never gets here.
TAGS: tuple[BaseTag, ...] = tuple(
    Tag(tag) for tag in map(tag_for_keyword, _KEYWORDS) if tag is not None
)


class Header:
    """The attributes of one frame, counted from 0, by keyword."""

    def __init__(self, dataset: Dataset, frame: int = 0) -> None:
        self.dataset = dataset
        shared = _items(dataset, "SharedFunctionalGroupsSequence")[:1]
        own = _items(dataset, "PerFrameFunctionalGroupsSequence")[frame : frame + 1]
        self._groups = own + shared

    def text(self, keyword: str, macro: str = "") -> str:
        """Return the value as text, several values joined by a backslash, `""` without one."""
        return "\\".join(str(value).strip() for value in self._values(keyword, macro))

    def numbers(self, keyword: str, macro: str = "", count: int = 0) -> tuple[float, ...]:
        """Return the values as finite numbers, `count` of them unless that is 0, else none."""
        try:
            numbers = tuple(float(str(value)) for value in self._values(keyword, macro))
        except ValueError:
            return ()
        if not all(map(math.isfinite, numbers)) or (count and len(numbers) != count):
            return ()
        return numbers

    def number(self, keyword: str, default: float, macro: str = "") -> float:
        """Return the value, the first one of several, as a finite number."""
        numbers = self.numbers(keyword, macro)
        return numbers[0] if numbers else default

    def integer(self, keyword: str, default: int) -> int:
        """Return the value as a whole number, the default when it is none."""
        number = self.number(keyword, default)
        return int(number) if number == int(number) else default

    def item(self, keyword: str) -> Dataset | None:
        """Return the first item of a sequence of the data set."""
        return next(iter(_items(self.dataset, keyword)), None)

    def _places(self, macro: str) -> Iterator[Dataset]:
        """Where the attributes of a macro may stand: in the functional groups, or elsewhere."""
        for group in self._groups if macro else ():
            yield from _items(group, macro)[:1]
        yield self.dataset

    def _values(self, keyword: str, macro: str) -> list[object]:
        for place in self._places(macro):
            value = _value(place, keyword)
            values = list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]
            if values and values not in ([None], [""]):
                return values
        return []


def _value(dataset: Dataset, keyword: str) -> object:
    try:
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001 - a broken value makes pydicom raise whatever it likes
        return None


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    value = _value(dataset, keyword)
    return list(value) if isinstance(value, Sequence) else []
