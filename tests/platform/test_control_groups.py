"""The kernel's control group of a host command: nothing it starts gets out of it."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from dicom_adapter.platform.cgroup import ControlGroup
from dicom_adapter.platform.process import end_groups
from dicom_adapter.platform.program import attempt_name, job_of
from tests.platform.harness import platform, sh
from tests.platform.test_cancel import cancel, running
from tests.support import PATIENCE


def groups(job_id: str = "*") -> list[str]:
    """Return the names of the groups that are there."""
    return sorted(ControlGroup.named(attempt_name(job_id, "*")))


def lives(process: psutil.Process) -> bool:
    """Tell whether a process has not ended, whether it was waited for or not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(autouse=True)
def given(tmp_path: Path) -> None:
    """Skip where the machine gives us no groups."""
    group = ControlGroup.make(attempt_name(tmp_path.name, 0))
    if group is None:
        pytest.skip("this machine gives no control group of version 2")
    group.remove()


@contextmanager
def sleeping(job_id: str) -> Iterator[tuple[ControlGroup, "subprocess.Popen[bytes]"]]:
    """Have a process in the group of a job's first attempt."""
    group = ControlGroup.make(attempt_name(job_id, 1))
    assert group is not None
    command = group.entered(["sleep", "1000"])
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + PATIENCE
        while group.members() != [process.pid]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield group, process
        finally:
            group.kill()
            process.wait(PATIENCE)
            group.end()
            group.remove()


#: Leaves its session, and nothing of ours stays in its environment: by no name can it be found.
HIDDEN = (
    f"env -i setsid {shutil.which('sh')} -c "
    "'trap \"\" TERM; echo $$ > ../../hidden; while :; do sleep 0.05; done' & "
)
#: Until that process has said that it is there.
SEEN = "until [ -s ../../hidden ]; do sleep 0.01; done"


def test_s57_what_hides_itself_is_ended_too(tmp_path: Path) -> None:
    """A process in a session of its own, without our environment, is gone with its job."""
    with platform(tmp_path, sh(f"{HIDDEN} {SEEN}; touch ../../up; sleep 1000")) as made:
        job = running(made)
        hidden = psutil.Process(int((made.workspaces.folder / "hidden").read_text("utf-8")))
        assert lives(hidden)
        assert groups(job.id) == [f"dicom-adapter-{job.id}-1"]
        cancel(made, job)
        assert made.until(job).state == "cancelled"
        assert not lives(hidden)
        assert groups(job.id) == []


def test_groups_that_a_command_makes_within_its_own_go_with_it(tmp_path: Path) -> None:
    """A container runtime does so; none of them stays, nor what is in them."""
    place = "$(sed -n 's,^[^ ]* \\([^ ]*\\) cgroup2 .*,\\1,p' /proc/mounts)"
    nested = f"{place}$(sed -n s,^0::,,p /proc/self/cgroup)/inner"
    script = f"mkdir -p {nested}/deep; (echo 0 > {nested}/cgroup.procs; {HIDDEN}) & {SEEN}"
    with platform(tmp_path, sh(script)) as made:
        job = made.until(made.submit())
        assert job.state == "finished"
        assert (made.workspaces.folder / "hidden").exists()
        # None goes that has a process in it.
        assert groups(job.id) == []


def test_what_a_job_leaves_behind_counts_and_ends(tmp_path: Path) -> None:
    """The processor time of a process that nobody has waited for is the job's, too."""
    work = "while True:\n  if time.process_time() > 0.6: open('../../worked', 'w')"
    (tmp_path / "busy.py").write_text(f"import time\n{work}\n", "utf-8")
    busy = f"(env -i setsid {sys.executable} {tmp_path / 'busy.py'} &)"
    script = f"{busy}; until [ -e ../../worked ]; do sleep 0.01; done"
    with platform(tmp_path, sh(script)) as made:
        job = made.until(made.submit())
        assert job.state == "finished"
        assert job.used is not None
        assert job.used.cpu_seconds > 0.5
        assert groups(job.id) == []


def test_groups_of_an_earlier_run_are_ended_and_those_of_others_stay(tmp_path: Path) -> None:
    """Other services of the machine may have theirs beside ours."""
    ours, others = uuid4().hex, uuid4().hex
    (tmp_path / ours).mkdir()
    with sleeping(ours) as (_, own), sleeping(others) as (group, other):
        assert end_groups(tmp_path) == 1
        assert own.wait(PATIENCE) == -signal.SIGKILL
        assert groups(ours) == []
        assert group.members() == [other.pid]


def test_a_group_that_is_another_s_is_not_taken() -> None:
    """Nor is it removed: its process group and environment are what a job is known by then."""
    job_id = uuid4().hex
    with sleeping(job_id) as (group, process):
        assert ControlGroup.make(attempt_name(job_id, 1)) is None
        assert group.members() == [process.pid]


def test_the_name_of_an_attempt_tells_its_job() -> None:
    """So that what is left can be told apart, by whoever finds it."""
    assert job_of(attempt_name("abc", 2)) == "abc"
    assert job_of(attempt_name("abc", 2, "0001")) == "abc"
    assert attempt_name("abc", 2, "0001") == "dicom-adapter-abc-2-0001"
