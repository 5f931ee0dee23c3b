"""Reads how far a pipeline says that it is, from the file that it appends to."""

import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

LONGEST_PROGRESS_LINE = 4096
PROGRESS_CHUNK = 1024 * 1024


class ProgressReader:
    """Reads each line of a progress file once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        #: When something came last, by the monotonic clock.
        self.heard_at = time.monotonic()

    def news(self) -> Mapping[str, float]:
        """Return what was reported since the last call: of many reports of a step the last."""
        reports: dict[str, float] = {}
        for lines in self._new_lines():
            for step, fraction in _steps(lines):
                # In the order of the last ones.
                reports.pop(step, None)
                reports[step] = fraction
        return reports

    def _new_lines(self) -> Iterator[bytes]:
        try:
            # The file is the pipeline's: it may be gone, or be a pipe that would block us.
            descriptor = os.open(
                self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            )
        except OSError:
            return
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return
            if found.st_size < self._offset:
                # Written anew instead of appended to.
                self._offset = 0
            while chunk := os.pread(descriptor, PROGRESS_CHUNK, self._offset):
                # A line that is still being written is read the next time.
                whole = chunk[: chunk.rfind(b"\n") + 1]
                if not whole and len(chunk) < PROGRESS_CHUNK:
                    return
                self._offset += len(whole or chunk)
                self.heard_at = time.monotonic()
                yield whole
        finally:
            os.close(descriptor)


def _steps(lines: bytes) -> Iterator[tuple[str, float]]:
    for line in lines.splitlines():
        try:
            report = json.loads(line[:LONGEST_PROGRESS_LINE])
            step, fraction = str(report["step"]), float(report["progress"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            # A pipeline's report is a courtesy: a malformed line costs only itself.
            continue
        if 0 <= fraction <= 1:
            yield step, fraction
