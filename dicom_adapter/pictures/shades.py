"""From stored values to what a screen shows: the grayscale and colour pipelines of PS3.4 N.2."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import XRayAngiographicImageStorage, XRayRadiofluoroscopicImageStorage

from dicom_adapter.pictures.header import Header

Stored = npt.NDArray[np.generic]
Values = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

#: What makes bytes of stored values: as many, or three of each for a colour.
Curve = Callable[[Stored], Bytes]

# So many different stored values are mapped by a table, which is exact and by far the fastest.
LARGEST_TABLE = 1 << 17
# Pixels that are in work at once: temporary values take eight bytes each.
BAND = 1 << 20
# From so many pixels the percentiles are taken.
SAMPLE = 1 << 20
PERCENTILES = (0.5, 99.5)
HALF = 128


@dataclass(frozen=True)
class Window:
    """A VOI window, in units after the Modality LUT (PS3.3 C.11.2.1.2)."""

    centre: float
    width: float
    function: str = "LINEAR"

    def through(self, values: Values) -> Values:
        """Return the values as shares of the brightness, 0 to 1."""
        if self.function == "SIGMOID":
            exponent = np.clip(-4 * (values - self.centre) / self.width, -500, 500)
            return np.asarray(1 / (1 + np.exp(exponent)))
        if self.function == "LINEAR_EXACT":
            return between(values, self.centre - self.width / 2, self.centre + self.width / 2)
        # The default; it counts the values, so a width of 2 leads from one to the next.
        half = (self.width - 1) / 2
        return between(values, self.centre - 0.5 - half, self.centre - 0.5 + half)


def between(values: Values, lower: float, upper: float) -> Values:
    """Return the values as shares of the way between two ends; the upper one is bright."""
    if upper <= lower:
        return (values > lower).astype(np.float64)
    return np.clip((values - lower) / (upper - lower), 0.0, 1.0)


def shaded(stored: Stored, header: Header) -> Bytes:
    """Return a decoded frame as bytes: rows x columns, with x 3 for RGB when it is in colour.

    Grey frames and those with a palette are rows x columns as stored, colour ones rows x columns
    x 3 of RGB. Padding is black whatever the window says.
    """
    if stored.ndim > 2:  # noqa: PLR2004 - rows, columns and samples
        return _eight_bit(stored, header.integer("BitsStored", 8 * stored.dtype.itemsize))
    if header.text("PhotometricInterpretation") == "PALETTE COLOR":
        return _mapped(stored, lambda values: _coloured(values, header.dataset))
    return _mapped(stored, _grey_curve(stored, header))


def _grey_curve(stored: Stored, header: Header) -> Curve:
    """The way of a grey value: Modality LUT, VOI LUT or window, inversion (PS3.3 C.11)."""
    padding = _padding(header)
    is_inverted = header.text("PhotometricInterpretation") == "MONOCHROME1"
    voi = _voi(stored, header, padding)

    def curve(values: Stored) -> Bytes:
        shares = np.nan_to_num(voi(_rescaled(values, header)))
        grey = np.rint((1 - shares if is_inverted else shares) * 255).astype(np.uint8)
        grey[~np.isfinite(values) | _is_padding(values, padding)] = 0
        return grey

    return curve


def _voi(
    stored: Stored, header: Header, padding: tuple[float, float] | None
) -> Callable[[Values], Values]:
    """What makes shares of the brightness of rescaled values."""
    table = _Table.of(header, "VOILUTSequence")
    if table:
        return table.shares
    window = _window(header)
    if window:
        return window.through
    lower, upper = _robust_range(stored, header, padding)
    return lambda values: between(values, lower, upper)


def _window(header: Header) -> Window | None:
    """The first window, None when there is none that can show anything."""
    centre = header.numbers("WindowCenter", "FrameVOILUTSequence")
    width = header.numbers("WindowWidth", "FrameVOILUTSequence")
    function = header.text("VOILUTFunction", "FrameVOILUTSequence").upper() or "LINEAR"
    # A LINEAR window of less than 1 would be a negative one.
    if not centre or not width or width[0] < (1 if function == "LINEAR" else 1e-9):
        return None
    return Window(centre[0], width[0], function)


def _robust_range(
    stored: Stored, header: Header, padding: tuple[float, float] | None
) -> tuple[float, float]:
    """The rescaled values between which nearly all of the image lies."""
    sample = stored.ravel()[:: _stride(stored)]
    sample = sample[np.isfinite(sample) & ~_is_padding(sample, padding)]
    if not sample.size:
        return 0.0, 1.0
    values = _rescaled(sample, header)
    lower, upper = map(float, np.percentile(values, PERCENTILES))
    if stored.dtype == np.uint8 and upper - lower >= HALF and np.array_equal(values, sample):
        # Bytes that use their range were made for a screen.
        return 0.0, 255.0
    if upper <= lower:
        # Few pixels that differ, such as a small segment.
        lower, upper = float(values.min()), float(values.max())
    return lower, upper


def _stride(stored: Stored) -> int:
    """The step from one pixel of the sample to the next."""
    stride = max(1, -(-stored.size // SAMPLE))
    # A step that shares a factor with the columns would see the same few columns only.
    while np.gcd(stride, stored.shape[1]) > 1:
        stride += 1
    return stride


def _rescaled(values: Stored, header: Header) -> Values:
    """The values after the Modality LUT (PS3.3 C.11.1)."""
    table = _Table.of(header, "ModalityLUTSequence")
    if table and not _is_for_measuring(header):
        return table.outputs(values.astype(np.float64))
    macro = "PixelValueTransformationSequence"
    slope = header.number("RescaleSlope", 1.0, macro) or 1.0
    return values.astype(np.float64) * slope + header.number("RescaleIntercept", 0.0, macro)


def _is_for_measuring(header: Header) -> bool:
    """Whether the Modality LUT leads back to X-ray intensities, not to what is shown.

    That is so for angiography and fluoroscopy (PS3.3 C.8.7.1.1.2).
    """
    classes = (XRayAngiographicImageStorage, XRayRadiofluoroscopicImageStorage)
    relationship = header.text("PixelIntensityRelationship")
    return header.text("SOPClassUID") in classes and relationship in ("LOG", "DISP")


def _padding(header: Header) -> tuple[float, float] | None:
    """The lowest and the highest stored value that stand for no image (PS3.3 C.7.5.1.1.2)."""
    first = header.numbers("PixelPaddingValue")
    if not first:
        return None
    ends = [first[0], header.number("PixelPaddingRangeLimit", first[0])]
    if header.integer("PixelRepresentation", 0) == 1:
        # Written as US though the pixels are signed, as some scanners do.
        half, whole = 2**15, 2**16
        ends = [end - whole if half <= end < whole else end for end in ends]
    return min(ends), max(ends)


def _is_padding(values: Stored, padding: tuple[float, float] | None) -> npt.NDArray[np.bool_]:
    if padding is None:
        return np.zeros(values.shape, dtype=np.bool_)
    wide = values.astype(np.float64)
    return (wide >= padding[0]) & (wide <= padding[1])


@dataclass(frozen=True)
class _Table:
    """A lookup table: its values, the input of the first of them, and its largest value."""

    values: Values
    first: float
    largest: float

    @classmethod
    def of(cls, header: Header, sequence: str) -> "_Table | None":
        """Read the first item of a LUT sequence (PS3.3 C.11.1.1); None if absent or broken."""
        item = header.item(sequence)
        if item is None:
            return None
        try:
            count, first, bits = (int(number) for number in item.LUTDescriptor)
            data = item.LUTData
            if isinstance(data, bytes):
                order = ">" if header.dataset.original_encoding[1] is False else "<"
                data = np.frombuffer(data, dtype=f"{order}u2")
            values = np.asarray(data, dtype=np.float64)[: count or 2**16]
        except Exception:  # noqa: BLE001 - it may hold anything; without it the window decides
            return None
        if not values.size or not 1 <= bits <= 16:  # noqa: PLR2004
            return None
        return cls(values, first, 2.0**bits - 1)

    def outputs(self, values: Values) -> Values:
        """Return what the table has for the values; its ends for those beyond them."""
        index = np.clip(np.rint(np.nan_to_num(values) - self.first), 0, self.values.size - 1)
        return np.asarray(self.values[index.astype(np.int64)])

    def shares(self, values: Values) -> Values:
        """Return it as shares of the brightness, 0 to 1."""
        return np.clip(self.outputs(values) / self.largest, 0.0, 1.0)


def _coloured(values: Stored, dataset: Dataset) -> Bytes:
    """The values through the palette (PS3.3 C.7.9), x 3."""
    count, first = (int(each) for each in dataset.RedPaletteColorLookupTableDescriptor[:2])
    # pydicom keeps indices in as many bits as the entries have; higher ones would begin anew.
    inside = np.clip(values.astype(np.int64), first, first + (count or 2**16) - 1)
    colours = np.asarray(apply_color_lut(inside, dataset))[..., :3]
    # Entries of 8 bits may stand in words of 16.
    bits = 8 if colours.max() <= 255 else 8 * colours.dtype.itemsize  # noqa: PLR2004
    return _eight_bit(colours, bits)


def _eight_bit(colour: Stored, bits: int) -> Bytes:
    """The colour with its upper eight bits."""
    if colour.dtype == np.uint8:
        return colour[..., :3].astype(np.uint8, copy=False)
    out = np.empty((*colour.shape[:-1], 3), dtype=np.uint8)
    for band in _bands(colour):
        shares = colour[band][..., :3].astype(np.float64) / (2.0**bits - 1)
        out[band] = np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)
    return out


def _mapped(stored: Stored, curve: Curve) -> Bytes:
    """The frame through the curve, by a table of all its values where there are not too many."""
    table, low = None, 0
    if np.issubdtype(stored.dtype, np.integer):
        low, high = int(stored.min()), int(stored.max())
        if high - low < LARGEST_TABLE:
            table = curve(np.arange(low, high + 1, dtype=np.int64))
    parts = [
        curve(stored[band])
        if table is None
        else table[np.subtract(stored[band], low, dtype=np.int64)]
        for band in _bands(stored)
    ]
    return np.concatenate(parts)


def _bands(stored: Stored) -> Iterator[slice]:
    """Slices of rows, few enough to be worked on at once."""
    rows = max(1, BAND // max(1, stored[0].size))
    for start in range(0, stored.shape[0], rows):
        yield slice(start, start + rows)
