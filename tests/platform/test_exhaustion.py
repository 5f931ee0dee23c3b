"""Pipelines that use up the disk or the memory: a clear end, and the service goes on.

What is too much for the log is in test_joblog, a container's memory in test_containers.
"""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from dicom_adapter import files
from tests.platform.harness import SOMEBODY, platform, sh
from tests.support import PATIENCE

#: Fills its disk, and fails by that.
FILL = 'cat /dev/zero > "$DICOM_ADAPTER_OUTPUT/big"'
NEXT = sh("true", "next")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("no disk may be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_pipeline_that_fills_its_disk_says_so_with_the_cure(disk: Path) -> None:
    """Also where there is no room for its log; what it wrote is gone, so the next one has room."""
    with platform(disk, sh(FILL), NEXT, max_jobs=1) as made:
        job, after = made.submit(), made.submit("next")
        failed = made.until(job)
        assert (failed.state, failed.reason) == ("failed", "pipeline_error")
        assert failed.error.startswith(
            "the command ended with exit code 1, and its disk was full: make room on that of "
            "storage.path, and retry it"
        )
        assert made.until(after).state == "finished"
        assert failed.outputs == ()
        assert not made.workspaces.of(job.id).staging.exists()


def test_a_pipeline_that_uses_up_the_files_of_its_disk_says_so(disk: Path) -> None:
    """A disk with bytes left, but where nothing can be made, is as full."""
    words = ["mount", "-o", "remount,nr_inodes=200", str(disk)]
    subprocess.run(words, check=True, capture_output=True)
    script = 'i=0; while : > "$DICOM_ADAPTER_OUTPUT/$i"; do i=$((i+1)); done'
    with platform(disk, sh(script), NEXT, max_jobs=1) as made:
        job, after = made.submit(), made.submit("next")
        assert ", and its disk was full: make room" in made.until(job).error
        assert made.until(after).state == "finished"


def test_a_job_that_waits_for_room_can_be_cancelled(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has filled the disk and ended well waits to be recorded; cancelled, it makes room."""
    monkeypatch.setattr(files, "NO_ROOM_PAUSE_SECONDS", 0.05)
    # Where that has no room either, nobody can decide anything.
    (disk / "ledger.db").symlink_to(disk.parent / "ledger.db")
    with capture_logs() as told, platform(disk, sh(f"{FILL}; true"), NEXT, max_jobs=1) as made:
        job, after = made.submit(), made.submit("next")
        deadline = time.monotonic() + PATIENCE
        while not (waits := [line for line in told if line["action"] == "job.no_room"]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert waits[0]["cure"] == "make room on the disk of storage.path, or cancel the job"
        assert made.views.get(SOMEBODY, job.id).phase == "finalizing"
        made.control.cancel(SOMEBODY, job.id)
        assert made.until(job).state == "cancelled"
        assert made.until(after).state == "finished"


def test_a_pipeline_that_has_no_memory_says_so(tmp_path: Path) -> None:
    """What it says of its limit is quoted; one that the kernel has ended could say nothing."""
    script = "ulimit -v 400000; exec python -c 'bytearray(2**30)'"
    with platform(tmp_path, sh(script), sh("kill -9 $$", "killed"), NEXT, max_jobs=1) as made:
        limited, killed, after = (made.submit(name) for name in ("test", "killed", "next"))
        assert made.until(limited).error == (
            "the command ended with exit code 1; the log ends with: MemoryError"
        )
        assert made.until(killed).error == (
            "the command was ended by signal 9, as the kernel does where memory runs out (its log "
            "says so): give the machine more, or run fewer jobs at a time, and retry it"
        )
        assert made.until(after).state == "finished"


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> threading.Event:
    """Have a thread not start, once, as where the machine gives no more; tell of it."""
    refused = threading.Event()
    start = threading.Thread.start

    def refusing(thread: threading.Thread) -> None:
        if thread.name == name and not refused.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refusing)
    return refused


def test_a_job_that_gets_no_thread_runs_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes back into the queue: nothing runs it, and nothing holds its place."""
    refused = refuse(monkeypatch, "test-test")
    with platform(tmp_path, sh("true"), max_jobs=1) as made:
        job = made.submit()
        assert refused.wait(PATIENCE)
        made.until(job, "in_queue")
        made.clock.advance(1)
        made.wake()
        job = made.until(job)
        assert (job.state, job.attempts) == ("finished", 2)


def test_a_command_that_gets_no_thread_to_wait_for_it_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job has failed by then: it must not run on."""
    refuse(monkeypatch, "wait test-test")
    with platform(tmp_path, sh("exec sleep 1000")) as made:
        job = made.until(made.submit())
        assert (job.state, job.reason) == ("failed", "internal")
        running = [found.info["environ"] or {} for found in psutil.process_iter(["environ"])]
        assert str(made.workspaces.of(job.id).manifest) not in [
            environment.get("DICOM_ADAPTER_JOB") for environment in running
        ]
