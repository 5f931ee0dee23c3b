"""Draws a montage: evenly picked images of a series side by side, the right way up and wide."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont
from pydicom.dataset import Dataset

from dicom_adapter.pipelines.geometry import letter
from dicom_adapter.pipelines.pixels import Colour, Grey, Stored, rescaled, through_voi_table
from dicom_adapter.pipelines.planes import Window
from dicom_adapter.pipelines.series import Image

MAXIMUM_TILES = 48
GAP = 2
# The longer side of a tile, for so many tiles at most.
TILE_SIDES = ((1, 640), (4, 384), (12, 256), (MAXIMUM_TILES, 192))
MINIMUM_SIDE = 8
WIDEST = 1.5  # how much wider than high a montage may be

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Tile:
    """One image at the size of its tile: grey values yet to be windowed, or finished colour."""

    pixels: Grey | Colour
    window: Window | None
    inverted: bool
    caption: str
    left: str
    top: str

    @property
    def is_colour(self) -> bool:
        """Whether the pixels are RGB."""
        return self.pixels.dtype == np.uint8


def pick(count: int) -> list[int]:
    """Which of so many images become tiles: all of them, or evenly picked ones with both ends."""
    if count <= MAXIMUM_TILES:
        return list(range(count))
    return [round(k * (count - 1) / (MAXIMUM_TILES - 1)) for k in range(MAXIMUM_TILES)]


def tile_side(count: int) -> int:
    """The longer side of each of so many tiles, in pixels."""
    return next(side for most, side in TILE_SIDES if count <= most)


def make_tile(stored: Stored, header: Dataset, image: Image, side: int) -> Tile:
    """Make one image's tile; its longer side, measured on the patient, becomes `side` pixels."""
    width, height = _size(image, side)
    window = image.plane.window
    if stored.ndim > 2:  # noqa: PLR2004 - rows, columns and samples
        colour = Pictures.fromarray(np.asarray(stored, dtype=np.uint8))
        pixels: Grey | Colour = np.asarray(colour.resize((width, height), _filter(image, height)))
    else:
        values = rescaled(stored, image)
        table = through_voi_table(values, header) if window is None else None
        if table is not None:
            values, window = table, Window(0.5, 1.0, "LINEAR_EXACT")
        grey = Pictures.fromarray(np.nan_to_num(values, posinf=0.0, neginf=0.0))
        pixels = np.asarray(grey.resize((width, height), _filter(image, height)))
    left, top = _letters(image)
    number = image.instance.instance_number
    caption = "" if number is None else str(number)
    if image.pixels.frames > 1:
        caption = (
            f"{image.plane.frame + 1}"
            if len(caption) == 0
            else f"{caption}.{image.plane.frame + 1}"
        )
    is_inverted = image.pixels.photometric == "MONOCHROME1"
    return Tile(pixels, window, is_inverted, caption, left, top)


def compose(tiles: Sequence[Tile], default_window: tuple[float, float], side: int) -> Bytes:
    """Put the tiles into one picture: rows x columns of bytes, x 3 if any of them is in colour."""
    mode = "RGB" if any(tile.is_colour for tile in tiles) else "L"
    across = _tiles_across(tiles)
    down = math.ceil(len(tiles) / across)
    cell_width = max(MINIMUM_SIDE, *(tile.pixels.shape[1] for tile in tiles)) + GAP
    cell_height = max(MINIMUM_SIDE, *(tile.pixels.shape[0] for tile in tiles)) + GAP
    picture = Pictures.new(mode, (across * cell_width + GAP, down * cell_height + GAP))
    for index, tile in enumerate(tiles):
        row, column = divmod(index, across)
        corner = (column * cell_width + GAP, row * cell_height + GAP)
        drawn = _drawn(tile, default_window, mode, side)
        height, width = tile.pixels.shape[:2]
        free = (cell_width - GAP - width, cell_height - GAP - height)
        picture.paste(drawn, (corner[0] + free[0] // 2, corner[1] + free[1] // 2))
    return np.asarray(picture, dtype=np.uint8)


def _tiles_across(tiles: Sequence[Tile]) -> int:
    """How many tiles stand in a row, for a picture that is somewhat wider than high."""
    shape = sum(tile.pixels.shape[1] / tile.pixels.shape[0] for tile in tiles) / len(tiles)
    across = max(1, math.ceil(math.sqrt(len(tiles) * WIDEST / shape) - 0.25))
    # As full a last row as so many rows allow.
    return math.ceil(len(tiles) / math.ceil(len(tiles) / across))


def _drawn(tile: Tile, default_window: tuple[float, float], mode: str, side: int) -> Pictures.Image:
    """The tile as a picture with its letters."""
    if tile.is_colour:
        bytes_ = np.asarray(tile.pixels, dtype=np.uint8)
    else:
        shown = through_window(np.asarray(tile.pixels, np.float32), tile.window, default_window)
        bytes_ = 255 - shown if tile.inverted else shown
    picture = Pictures.fromarray(bytes_).convert(mode)
    height, width = tile.pixels.shape[:2]
    size = max(9, side // 18)
    if min(height, width) < 3 * size:
        return picture
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size)
    white, black = (255, 0) if mode == "L" else ((255, 255, 255), (0, 0, 0))
    for text, place, anchor in (
        (tile.caption, (3, height - 3), "ls"),
        (tile.left, (3, height // 2), "lm"),
        (tile.top, (width // 2, 2), "mt"),
    ):
        draw.text(
            place, text, fill=white, font=font, anchor=anchor, stroke_width=1, stroke_fill=black
        )
    return picture


def through_window(values: Grey, window: Window | None, default: tuple[float, float]) -> Bytes:
    """The values as bytes, through the window or else between the two default ends.

    LINEAR, LINEAR_EXACT and SIGMOID as PS3.3 C.11.2.1.2 and C.11.2.1.3 define them; a function of
    another name is taken as LINEAR, its default.
    """
    if window and window.function == "SIGMOID":
        exponent = np.clip(-4 * (values - window.centre) / window.width, -50, 50)
        curve: Bytes = np.rint(255 / (1 + np.exp(exponent))).astype(np.uint8)
        return curve
    lower, upper = default
    if window and window.function == "LINEAR_EXACT":
        lower, upper = window.centre - window.width / 2, window.centre + window.width / 2
    elif window:
        half = max((window.width - 1) / 2, 0)
        lower, upper = window.centre - 0.5 - half, window.centre - 0.5 + half
    if upper <= lower:
        return np.where(values > lower, 255, 0).astype(np.uint8)
    scaled = (values.astype(np.float64) - lower) / (upper - lower)
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _size(image: Image, side: int) -> tuple[int, int]:
    """Width and height of the tile, as the patient is wide and high (PS3.3 C.7.6.3.1.7)."""
    down, across = image.plane.spacing or image.instance.pixel_aspect or (1.0, 1.0)
    width, height = image.pixels.columns * across, image.pixels.rows * down
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _filter(image: Image, height: int) -> Pictures.Resampling:
    """Blocks when the tile is much larger than the image, so that few pixels look like few."""
    few = height >= 4 * image.pixels.rows
    return Pictures.Resampling.NEAREST if few else Pictures.Resampling.BILINEAR


def _letters(image: Image) -> tuple[str, str]:
    """The letters of the patient's sides at the tile's left and top edge."""
    cosines = image.plane.orientation
    if cosines is None:
        return "", ""
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    return letter(-row), letter(-column)
