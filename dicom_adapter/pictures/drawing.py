"""Has pictures drawn by processes of their own, so that bad data brings nothing else down."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import structlog

from dicom_adapter.errors import (
    DicomAdapterError,
    InvalidArgumentError,
    NoPictureError,
    NotFoundError,
    UnavailableError,
)

#: So many are drawn at a time, and the others wait so long for their turn and their picture.
AT_A_TIME = 2
PATIENCE_SECONDS = 45.0
LONGEST = 1024
#: What the process ends with where it says why there is no picture. It is named here, since only
#: that process is to load what pictures are drawn with.
REFUSED = 3
_MODULE = "dicom_adapter.pictures.draw"
_KINDS = {kind.__name__: kind for kind in (NoPictureError, NotFoundError, UnavailableError)}

log = structlog.get_logger()


class Drawing:
    """Draws pictures of files."""

    def __init__(self) -> None:
        self._places = threading.Semaphore(AT_A_TIME)

    def instance(self, path: Path, frame: int | None = None, longest: int = LONGEST) -> bytes:
        """Return a frame of a file as a PNG; see `picture.render`, which says what it raises."""
        return self._drawn([path], frame, longest, is_montage=False)

    def montage(self, paths: Sequence[Path], longest: int = LONGEST) -> bytes:
        """Return a montage of files as a PNG; see `picture.montage`, which says what it raises."""
        return self._drawn(paths, None, longest, is_montage=True)

    def _drawn(
        self, paths: Sequence[Path], frame: int | None, longest: int, *, is_montage: bool
    ) -> bytes:
        asked = {
            "paths": list(map(str, paths)),
            "frame": frame,
            "longest": longest,
            "is_montage": is_montage,
        }
        if not self._places.acquire(timeout=PATIENCE_SECONDS):
            raise UnavailableError("too many pictures are drawn at a time: try again later")
        try:
            # Told by its input, not by its words: those anybody on the machine may read.
            done = subprocess.run(  # noqa: S603 - our own module
                [sys.executable, "-m", _MODULE],
                input=json.dumps(asked).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=PATIENCE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NoPictureError(
                f"it was not drawn within {PATIENCE_SECONDS:.0f} s: choose fewer or smaller images"
            ) from None
        except OSError as error:
            raise UnavailableError(f"no process to draw with: {error.strerror}") from error
        finally:
            self._places.release()
        if done.returncode == REFUSED:
            raise _refusal(done.stdout)
        if done.returncode:
            log.error("a picture's process failed", action="picture.failed", code=done.returncode)
            raise NoPictureError("its pixel data brought the decoder down: have it sent again")
        return done.stdout


def _refusal(told: bytes) -> DicomAdapterError:
    kind, words = json.loads(told)
    if kind in _KINDS:
        return _KINDS[kind](words)
    field, _, problem = words.partition(": ")
    return InvalidArgumentError(field, problem)
