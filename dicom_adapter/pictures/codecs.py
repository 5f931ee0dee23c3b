"""The codecs that pydicom's own decoders lack: JPEG with 12 bits, and High-Throughput JPEG 2000.

It is a plugin as pydicom has them, over the library imagecodecs.
"""

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import (
    HTJ2K,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEGExtended12Bit,
)

_LABEL = "imagecodecs"
_DECODERS: dict[UID, Callable[[bytes], Any]] = {
    JPEGExtended12Bit: imagecodecs.jpeg8_decode,
    HTJ2KLossless: imagecodecs.htj2k_decode,
    HTJ2KLosslessRPCL: imagecodecs.htj2k_decode,
    HTJ2K: imagecodecs.htj2k_decode,
}
#: By this name pydicom asks for it: what has to be installed for each.
DECODER_DEPENDENCIES = dict.fromkeys(_DECODERS, (_LABEL,))
_RGB = PhotometricInterpretation.RGB


def register() -> None:
    """Have pydicom decode by these too, in the whole process: once, and in one of its own."""
    for uid in _DECODERS:
        get_decoder(uid).add_plugin(_LABEL, (__name__, "decode"))


def is_available(uid: str) -> bool:
    """Tell whether a transfer syntax is decoded here; by this name pydicom asks for it."""
    return uid in _DECODERS


def decode(codestream: bytes, runner: DecodeRunner) -> bytes:
    """Return a frame as the samples that its header describes, little endian.

    Colour comes as RGB, pixel by pixel.
    """
    decoded = np.asarray(_DECODERS[runner.transfer_syntax](codestream))
    if decoded.ndim > 2:  # noqa: PLR2004 - rows, columns and samples
        runner.set_option("photometric_interpretation", _RGB)
        runner.set_option("planar_configuration", 0)
    kind = "i" if runner.pixel_representation else "u"
    return decoded.astype(f"<{kind}{runner.bits_allocated // 8}").tobytes()
