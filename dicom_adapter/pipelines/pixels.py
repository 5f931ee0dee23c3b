"""Decodes frames: grey ones as stored or rescaled values, colour ones as 8-bit RGB."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_adapter.pipelines.series import Image, Instance, Pixels

Grey = npt.NDArray[np.float32]
Colour = npt.NDArray[np.uint8]
Stored = npt.NDArray[np.generic]


class PixelError(Exception):
    """A frame cannot be decoded: no decoder, broken or missing data."""


def stored_frames(instance: Instance, frames: Sequence[int]) -> Iterator[tuple[Stored, Dataset]]:
    """Yield those frames, in ascending order, each with a data set that holds group 0028.

    Grey frames are rows x columns as stored, after the Modality LUT when it is a table; colour
    frames are rows x columns x 3 and uint8. Only one frame at a time is held in memory, except
    for deflated files.

    Raises:
        PixelError: This frame cannot be decoded; those before it were good.
    """
    if instance.pixels is None:
        raise PixelError("the instance has no pixel data")
    count = 0
    try:
        for array, header in _decoded(instance, instance.pixels, frames):
            if array.shape[:2] != (instance.pixels.rows, instance.pixels.columns):
                break
            yield _usual_form(array, header, instance.pixels), header
            count += 1
    except MemoryError:
        raise
    except Exception as error:
        # Decoders raise whatever their libraries do, and their words may quote the header.
        raise PixelError(type(error).__name__) from error
    if count < len(frames):
        raise PixelError("there are fewer frames, or smaller ones, than the header says")


def rescaled(stored: Stored, image: Image) -> Grey:
    """The grey frame in rescaled units, by RescaleSlope and RescaleIntercept (PS3.3 C.11.1)."""
    values = stored.astype(np.float32)
    if image.plane.slope != 1 or image.plane.intercept != 0:
        values = values * np.float32(image.plane.slope) + np.float32(image.plane.intercept)
    return values


def padding_mask(stored: Stored, pixels: Pixels) -> npt.NDArray[np.bool_] | None:
    """Which of the stored values stand for no image, None when the header names none."""
    if pixels.padding is None or pixels.modality_lut or stored.ndim != 2:  # noqa: PLR2004
        return None
    first, last = pixels.padding
    values = stored.astype(np.float64)
    return (values >= first) & (values <= last)


def through_voi_table(values: Grey, header: Dataset) -> Grey | None:
    """The values through the VOI LUT table, from 0 to 1; None when the header has no such table."""
    if "VOILUTSequence" not in header:
        return None
    try:
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        table = apply_voi(np.rint(values).astype(np.int64), header)
    except Exception:  # noqa: BLE001 - without a usable table the window or the values decide
        return None
    return np.asarray(table / (2.0**bits - 1), dtype=np.float32)


def _decoded(
    instance: Instance, pixels: Pixels, frames: Sequence[int]
) -> Iterator[tuple[Stored, Dataset]]:
    """The frames as pydicom decodes them."""
    if pixels.frames == 1 or instance.transfer_syntax == DeflatedExplicitVRLittleEndian:
        dataset: Dataset = dcmread(instance.path)
        for array in iter_pixels(dataset, indices=frames):
            yield array, dataset
        return
    header = Dataset()
    for array in iter_pixels(instance.path, ds_out=header, indices=frames):
        yield array, header


def _usual_form(array: Stored, header: Dataset, pixels: Pixels) -> Stored:
    """Colour of any kind as 8-bit RGB, grey through the table of the Modality LUT."""
    if pixels.photometric == "PALETTE COLOR":
        lut: Stored = apply_color_lut(array, header)
        return _eight_bit(lut[..., :3], 8 * lut.dtype.itemsize)
    if pixels.samples > 1:
        return _eight_bit(array[..., :3], pixels.bits_stored)
    if pixels.modality_lut:
        table: Stored = apply_modality_lut(array, header)
        return table
    return array


def _eight_bit(colour: Stored, bits: int) -> Colour:
    """The colour with its upper eight bits."""
    if colour.dtype == np.uint8:
        return colour.astype(np.uint8)
    scale = 255.0 / (2.0**bits - 1)
    return np.clip(np.rint(colour.astype(np.float64) * scale), 0, 255).astype(np.uint8)
