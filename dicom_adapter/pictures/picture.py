"""Pictures to look at instances by: one frame of one, or a montage of many, as PNG.

What is drawn is the image as a radiologist expects it: the window that its header names, pixels as
wide and high as they are on the patient, the right way round. Nothing of the header is written
into the picture; what is burnt into the pixels stays there. Overlays and ICC profiles are ignored.
"""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dicom_adapter.errors import InvalidArgumentError, NoPictureError, NotFoundError
from dicom_adapter.pictures.frame import in_our_words, read_frame
from dicom_adapter.pictures.orientation import pixel_shape, turns
from dicom_adapter.pictures.shades import shaded

SMALLEST, LARGEST = 16, 4096
MOST_TILES = 100
SMALLEST_TILE = 16
GAP = 2
# The quickest level that still makes most of the difference.
COMPRESSION = 3


def render(path: Path, *, frame: int | None = None, longest: int = 1024) -> bytes:
    """Return one frame of a Part 10 file as a PNG, grey or RGB.

    Args:
        path: The file.
        frame: Which frame, counted from 1 as in PS3.3; the middle one when none is named.
        longest: How many pixels wide or high the picture is at most. It is not enlarged, but for
            the shorter side of pixels that are not square.

    Raises:
        InvalidArgumentError: There is no such frame, or `longest` is out of its range.
        NoPictureError: The file holds no picture, or none that can be decoded here.
        NotFoundError: There is no such file.
        UnavailableError: The file cannot be read, or memory is short.
    """
    _check("longest", longest, SMALLEST, LARGEST)
    return _png(_drawn(path, frame, longest, is_enlarged=False))


def montage(
    paths: Sequence[Path],
    *,
    columns: int | None = None,
    longest: int = 1024,
    tiles: int = 25,
) -> bytes:
    """Return a grid of the instances as a PNG: all of them, or `tiles` evenly chosen ones.

    Each tile is labelled with its instance's place in the selection, counted from 1, and shows the
    middle frame. An instance without a picture has a tile that says so.

    Args:
        paths: The files, in the order of the selection.
        columns: How many tiles stand in a row; about as many as rows when not given.
        longest: How many pixels wide or high the montage is at most.
        tiles: How many tiles there are at most.

    Raises:
        InvalidArgumentError: No file is named, or a number is out of its range.
        NoPictureError: None of the chosen instances holds a picture.
        UnavailableError: A file cannot be read, or memory is short.
    """
    if not paths:
        raise InvalidArgumentError("paths", "is empty; name one instance at least")
    _check("longest", longest, SMALLEST, LARGEST)
    _check("tiles", tiles, 1, MOST_TILES)
    chosen = choose(len(paths), tiles)
    across, down, side = _layout(len(chosen), columns, longest)
    sheet = Image.new("RGB", (across * (side + GAP) + GAP, down * (side + GAP) + GAP))
    drawn = 0
    for place, index in enumerate(chosen):
        row, column = divmod(place, across)
        tile, is_picture = _tile(paths[index], index + 1, side)
        sheet.paste(tile, (column * (side + GAP) + GAP, row * (side + GAP) + GAP))
        drawn += is_picture
    if not drawn:
        raise NoPictureError("none of the instances holds a picture; choose images")
    return _png(sheet)


def _layout(count: int, columns: int | None, longest: int) -> tuple[int, int, int]:
    """How many tiles stand side by side, how many rows they make, and how large each of them is."""
    across = min(columns or math.ceil(math.sqrt(count)), count)
    _check("columns", across, 1, MOST_TILES)
    down = math.ceil(count / across)
    most = max(across, down)
    side = (longest - GAP) // most - GAP
    if side < SMALLEST_TILE:
        needed = (SMALLEST_TILE + GAP) * most + GAP
        raise InvalidArgumentError("longest", f"is {longest}; so many tiles need {needed} or more")
    return across, down, side


def choose(count: int, most: int) -> list[int]:
    """Return which of so many are shown: all, or evenly chosen ones with the first and the last."""
    if count <= most:
        return list(range(count))
    if most == 1:
        return [(count - 1) // 2]
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def _drawn(path: Path, frame: int | None, longest: int, *, is_enlarged: bool) -> Image.Image:
    """The frame, with square pixels and the right way round; its longer side at most `longest`."""
    with in_our_words(path.name):
        decoded = read_frame(path, frame)
        image = Image.fromarray(shaded(decoded.stored, decoded.header))
        high, wide = pixel_shape(decoded.header)
        # Square pixels as small as the shorter side: the longer one is filled up, nothing is lost.
        unit = min(high, wide)
        width, height = image.width * wide / unit, image.height * high / unit
        scale = longest / max(width, height)
        if not is_enlarged:
            scale = min(1.0, scale)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        if size != image.size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        for turn in turns(decoded.header):
            image = image.transpose(turn)
        return image


def _tile(path: Path, number: int, side: int) -> tuple[Image.Image, bool]:
    """A square with the instance's picture and its number, and whether there is a picture."""
    tile = Image.new("RGB", (side, side))
    picture = _drawn_if_any(path, side)
    if picture is not None:
        tile.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    draw = ImageDraw.Draw(tile)
    size = max(9, side // 14)
    _write(draw, (3, side - 3), str(number), "ls", size)
    if picture is None:
        _write(draw, (side // 2, side // 2), "no picture", "mm", size)
    return tile, picture is not None


def _drawn_if_any(path: Path, side: int) -> Image.Image | None:
    try:
        return _drawn(path, None, side, is_enlarged=True)
    except (NoPictureError, NotFoundError):
        return None


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, anchor: str, size: int
) -> None:
    """White letters with a black edge, to be read on any picture."""
    draw.text(
        place,
        text,
        fill=(255, 255, 255),
        font=ImageFont.load_default(size),
        anchor=anchor,
        stroke_width=1,
        stroke_fill=(0, 0, 0),
    )


def _png(image: Image.Image) -> bytes:
    with BytesIO() as file:
        image.save(file, "PNG", compress_level=COMPRESSION)
        return file.getvalue()


def _check(field: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise InvalidArgumentError(field, f"is {value}; it must be from {lowest} to {highest}")
