"""The log of a job: what its processes write, of which head and tail are kept where it is long.

log.txt is the head. What comes when that is full lies beside it in parts, each of them named by
where it begins in all that was ever written (log.txt.8388608), and only the last two are kept. So
the files alone say what was left out: a crash in between costs nothing, and whoever reads along
goes on where they were.
"""

import os
import re
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

CHUNK = 64 * 1024
#: So long what is still in the pipe is read once the job's own processes have ended.
LAST_SECONDS = 0.5
LONGEST_LINE = 4096
# What a terminal takes for a colour or a movement (ECMA-48): without its first letter it is text.
_STYLE = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]")

log = structlog.get_logger()


def parts_of(path: Path) -> list[tuple[int, Path]]:
    """Return the files of a log, and where each begins, in their order."""
    later = [
        (int(found.suffix[1:]), found)
        for found in path.parent.glob(f"{path.name}.*")
        if found.suffix[1:].isdecimal()
    ]
    return [(0, path), *sorted(later)] if path.exists() else sorted(later)


def last_line(path: Path) -> str:
    """Return the last line of a log that says anything, without what moves a cursor."""
    end = b""
    # Two of them: the last one may have only just been begun.
    for _, part in parts_of(path)[-2:]:
        with part.open("rb") as stream:
            stream.seek(max(0, part.stat().st_size - LONGEST_LINE))
            end += stream.read()
    lines = _STYLE.sub("", end[-LONGEST_LINE:].decode("utf-8", "replace")).splitlines()
    said = ["".join(c if c.isprintable() else " " for c in line).strip() for line in lines]
    return next(filter(None, reversed(said)), "")


class LogReader:
    """Reads a log from its start, also while it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._line_ended = True

    def news(self) -> Iterator[bytes]:
        """Yield what has come since the last call; one line tells of what was left out."""
        for start, part in parts_of(self._path):
            try:
                stream = part.open("rb")
            except FileNotFoundError:
                # Left out this very moment: the part behind it tells.
                continue
            with stream:
                if start > self._offset:
                    yield self._left_out(start - self._offset)
                    self._offset = start
                stream.seek(self._offset - start)
                while chunk := stream.read(CHUNK):
                    self._offset += len(chunk)
                    self._line_ended = chunk.endswith(b"\n")
                    yield chunk

    def _left_out(self, size: int) -> bytes:
        line = f"--- {size} bytes left out ---\n".encode()
        return line if self._line_ended else b"\n" + line


class LogWriter:
    """Appends to a log, of which the disk never holds more than `size` bytes."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._head, self._part = size // 2, size // 4
        self._start, last = (parts_of(path) or [(0, path)])[-1]
        self._stream = last.open("ab", buffering=0)
        self._length = last.stat().st_size

    def write(self, data: bytes) -> None:
        """Write at once: nothing of it is lost where the service is killed."""
        rest = memoryview(data)
        while rest:
            room = (self._part if self._start else self._head) - self._length
            if room <= 0:
                self._begin_part()
                continue
            written = self._stream.write(rest[:room])
            self._length += written
            rest = rest[written:]

    def _begin_part(self) -> None:
        start = self._start + self._length
        stream = self._path.with_name(f"{self._path.name}.{start}").open("ab", buffering=0)
        self._stream.close()
        self._stream, self._start, self._length = stream, start, 0
        for begin, part in parts_of(self._path)[:-2]:
            if begin:
                part.unlink()

    def close(self) -> None:
        """Write nothing more."""
        self._stream.close()


class LogPump:
    """Brings what processes write into a log, in a thread of its own, until `finish`."""

    def __init__(self, writer: LogWriter, name: str) -> None:
        self._writer = writer
        self._failed = False
        self._deadline = float("inf")
        self._source, self._input = os.pipe()
        self._ending = os.eventfd(0, os.EFD_CLOEXEC)
        #: When something came last, by the monotonic clock.
        self.heard_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"log {name}", daemon=True)
        self._thread.start()

    def note(self, line: str) -> None:
        """Write a line of our own, before any process writes."""
        self._keep(line.encode())

    @contextmanager
    def input(self) -> Iterator[int]:
        """Give what a process that is started within the block writes to; only that keeps it."""
        try:
            yield self._input
        finally:
            os.close(self._input)

    def finish(self) -> None:
        """Read what was written to the end, and no longer than for a moment.

        A process that has escaped may hold the other end open for ever.
        """
        self._deadline = time.monotonic() + LAST_SECONDS
        os.eventfd_write(self._ending, 1)
        self._thread.join()
        os.close(self._ending)

    def _run(self) -> None:
        try:
            while self._goes_on():
                pass
        finally:
            os.close(self._source)
            self._writer.close()

    def _goes_on(self) -> bool:
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        poll.register(self._ending, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll()]
        if self._source not in ready or time.monotonic() > self._deadline:
            return False
        data = os.read(self._source, CHUNK)
        self.heard_at = time.monotonic()
        self._keep(data)
        return bool(data)

    def _keep(self, data: bytes) -> None:
        try:
            self._writer.write(data)
        except OSError as error:
            # A full disk costs lines of the log, not the pipeline that writes them.
            if not self._failed:
                log.warning(
                    "a job's log cannot be written; what it says meanwhile is lost",
                    action="job.log_lost",
                    problem=error.strerror,
                    cure="make room on the disk of storage.path",
                )
            self._failed = True
        else:
            self._failed = self._failed and not data
