"""The log of a job: all of it, or its head and tail where it is long; and never in the way."""

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from dicom_adapter.model import LOCAL, Job
from dicom_adapter.platform.joblog import LogReader, LogWriter, last_line, parts_of
from tests.platform.harness import Platform, platform, sh

KIB = 1024
#: Leaves the group of its job, and clears the environment that it would be known by.
ESCAPED = "setsid env -i"
LEFT_OUT = re.compile(rb"\n?--- ([0-9]+) bytes left out ---\n")


def held(path: Path) -> int:
    """Return how many bytes of a log are on the disk."""
    return sum(part.stat().st_size for _, part in parts_of(path))


def whole(path: Path) -> bytes:
    """Return a log as a reader gets it."""
    return b"".join(LogReader(path).news())


def log_path(made: Platform, job: Job) -> Path:
    """Return where a job's log lies."""
    return made.workspaces.of(job.id).log


def test_a_log_of_many_megabytes_keeps_its_head_and_its_tail(tmp_path: Path) -> None:
    """A pipeline that writes 120 MB ends well, and the disk has no more of it than its log_size."""
    script = "echo first; head -c 120000000 /dev/zero | tr '\\0' x; echo; echo last"
    with platform(tmp_path, sh(script, log_size=64 * KIB)) as made:
        job = made.until(made.submit())
        text = made.log_of(job)
        assert held(log_path(made, job)) <= 64 * KIB
        made.workspaces.of(job.id).reclaim("logs")
        assert parts_of(log_path(made, job)) == []
    head, left_out, tail = re.split("\n--- ([0-9]+) bytes left out ---\n", text)
    assert (job.state, job.exit_code) == ("finished", 0)
    assert len(head) == 32 * KIB
    assert 16 * KIB < len(tail) <= 32 * KIB
    assert head.startswith("first\nxxx")
    assert tail.endswith("xxx\nlast\n")
    assert len(head) + int(left_out) + len(tail) == 120_000_000 + len("first\n\nlast\n")


def test_the_error_quotes_the_last_line_of_a_long_log(tmp_path: Path) -> None:
    """Where the log was cut, its end is still what it ended with."""
    script = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo no such model; exit 3"
    with platform(tmp_path, sh(script, log_size=4 * KIB)) as made:
        job = made.until(made.submit())
    assert job.error == ("the command ended with exit code 3; the log ends with: no such model")


@settings(deadline=None)
@given(writes=st.lists(st.integers(0, 5000), max_size=12), size=st.integers(256, 6000))
def test_nothing_but_the_middle_is_ever_left_out(writes: list[int], size: int) -> None:
    """However much is written in whatever portions, the disk has at most `size`, and both ends."""
    written = b""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.txt"
        for number in writes:
            # Each of them as an attempt of its own: it finds what the one before has left.
            writer = LogWriter(path, size)
            data = bytes(33 + index % 90 for index in range(number))
            writer.write(data)
            writer.close()
            written += data
            assert held(path) <= size
        text = whole(path)
    head, *cut = LEFT_OUT.split(text)
    if not cut:
        assert text == written
        return
    left_out, tail = cut
    assert len(head) == size // 2
    assert len(tail) >= size // 4
    assert written.startswith(head)
    assert written.endswith(tail)
    assert len(head) + int(left_out) + len(tail) == len(written)


def test_a_follower_goes_on_across_the_cut(tmp_path: Path) -> None:
    """Who reads along gets everything in its order, or is told how much was left out."""
    script = """
    echo begun; until [ -e ../../go ]; do sleep 0.01; done
    seq 1 20000; until [ -e ../../end ]; do sleep 0.01; done
    seq 20001 20010
    """
    with platform(tmp_path, sh(script, log_size=8 * KIB)) as made:
        job = made.submit()
        chunks = made.views.logs(LOCAL, job.id, follow=True, active=lambda: True)
        assert next(chunks) == b"begun\n"
        (made.workspaces.folder / "go").touch()
        text = b""
        while not text.endswith(b"\n20000\n"):
            text += next(chunks)
        (made.workspaces.folder / "end").touch()
        assert b"".join(chunks) == b"".join(b"%d\n" % n for n in range(20001, 20011))
    total = sum(len(f"{number}\n") for number in range(1, 20001))
    left_out = sum(int(size) for size in LEFT_OUT.findall(text))
    assert len(LEFT_OUT.sub(b"", text)) + left_out == total


def test_a_reader_is_told_of_each_cut_that_it_meets(tmp_path: Path) -> None:
    """A slow reader goes on at what is still there; what it had is not told again."""
    writer, reader = LogWriter(tmp_path / "log.txt", 40), LogReader(tmp_path / "log.txt")
    writer.write(b"head\n")
    assert b"".join(reader.news()) == b"head\n"
    assert list(reader.news()) == []
    writer.write(b"x" * 14 + b"\n")
    writer.write(b"0123456789" * 4)
    assert b"".join(reader.news()) == (
        b"x" * 14 + b"\n--- 20 bytes left out ---\n" + b"0123456789" * 2
    )
    writer.write(b"0123456789" * 5)
    writer.close()
    assert b"".join(reader.news()) == b"\n--- 30 bytes left out ---\n" + b"0123456789" * 2


def test_who_holds_the_pipe_does_not_hold_the_job(tmp_path: Path) -> None:
    """A process that has escaped keeps the log's other end, and the job ends all the same."""
    script = f"{ESCAPED} sleep 1000 & echo $! > ../../escaped; echo done"
    with platform(tmp_path, sh(script)) as made:
        before = time.monotonic()
        job = made.until(made.submit())
        assert time.monotonic() - before < 10
        assert made.log_of(job) == "done\n"
    os.kill(int((made.workspaces.folder / "escaped").read_text()), signal.SIGKILL)
    assert job.state == "finished"


def test_who_writes_for_ever_does_not_hold_the_job(tmp_path: Path) -> None:
    """What a process that has escaped writes after the job's end comes nowhere, and ends it."""
    script = f"{ESCAPED} yes & echo $! > ../../escaped; sleep 0.05"
    with platform(tmp_path, sh(script, log_size=4 * KIB)) as made:
        before = time.monotonic()
        job = made.until(made.submit())
        assert time.monotonic() - before < 10
        assert held(log_path(made, job)) <= 4 * KIB
    assert job.state == "finished"
    escaped = int((made.workspaces.folder / "escaped").read_text())
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(escaped)
        while process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)


def test_a_disk_without_room_for_the_log_does_not_hurt_the_pipeline(tmp_path: Path) -> None:
    """Its lines are lost, and the service says so once; the pipeline goes on to its end."""
    script = "for i in 1 2 3; do echo line; sleep 0.02; done"
    with platform(tmp_path, sh(script), max_jobs=1) as made, capture_logs() as told:
        made.scheduler.stop(10)
        job = made.submit()
        log_path(made, job).symlink_to("/dev/full")
        made.restart()
        assert made.until(job).state == "finished"
    assert [line["problem"] for line in told if line["action"] == "job.log_lost"] == [
        "No space left on device"
    ]


def test_the_last_line_is_found_in_a_part_that_has_just_begun(tmp_path: Path) -> None:
    """A line that a part's end cuts in two is still one line."""
    writer = LogWriter(tmp_path / "log.txt", 40)
    writer.write(b"x" * 19 + b"\n" + b"one line\n" + b"two\n")
    writer.close()
    assert last_line(tmp_path / "log.txt") == "two"
    assert last_line(tmp_path / "none") == ""


def test_the_last_line_is_without_its_colours(tmp_path: Path) -> None:
    """Neither what switches them on, nor what would be left of that."""
    (tmp_path / "log.txt").write_bytes(b"one\n\x1b[1;31mno \x1b[4mmemory\x1b[0m\n\x1b[2K\r\n")
    assert last_line(tmp_path / "log.txt") == "no memory"
