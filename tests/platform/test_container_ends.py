"""How a container ends: by itself, by a limit, by a person, by the service; none is left."""

import time
from pathlib import Path

import psutil
import pytest

from dicom_adapter.lifecycle import CancelPolicy
from dicom_adapter.model import LOCAL
from dicom_adapter.platform import executor
from tests.platform.contained import GATE, containers, image, shell, up
from tests.platform.harness import SOMEBODY, wait_for_file
from tests.platform.images import Images
from tests.support import PATIENCE

pytestmark = pytest.mark.podman


def test_a_container_that_needs_too_much_memory_says_so(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel ends it at its limit, and the job says by which, and whose it is."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    script = "sleep 0.3; x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"
    with containers(tmp_path, images, shell(script)) as made:
        job = made.until(made.submit())
        left = {path.name for path in made.workspaces.of(job.id).folder.iterdir()}
    assert (job.state, job.reason, job.exit_code) == ("failed", "out_of_memory", 137)
    # Nor is there what Podman itself writes down of it.
    assert left == {"input", "job.json", "log.txt"}
    assert not any(here.iterdir())
    assert job.error.startswith("it needed more than its resources.memory of 64MiB, and the kernel")


def test_a_container_is_stopped_after_its_timeout(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is gone when the job has failed, though its first process hears no TERM."""
    monkeypatch.setattr(executor, "GRACE_SECONDS", 0.2)
    with containers(tmp_path, images, shell("sleep 1000", timeout=0.5)) as made:
        job = made.until(made.submit())
        assert images.containers() == []
    assert (job.state, job.reason, job.exit_code) == ("failed", "run_timeout", 137)


def test_a_silent_container_is_stopped(tmp_path: Path, images: Images) -> None:
    """Its log and progress are what it is heard by."""
    script = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
    with containers(tmp_path, images, shell(script, silence_timeout=0.5)) as made:
        job = made.until(made.submit())
    assert (job.state, job.reason) == ("failed", "silence_timeout")


@pytest.mark.parametrize(
    ("policy", "state", "log"),
    [
        (CancelPolicy.KILL, "cancelled", "asked\n"),
        (CancelPolicy.REQUEST, "cancelled", "asked\n"),
        (CancelPolicy.DRAIN, "finished", ""),
    ],
)
def test_a_container_is_cancelled_as_its_pipeline_wants_it(
    tmp_path: Path, images: Images, policy: CancelPolicy, state: str, log: str
) -> None:
    """It is asked to end, or let end by itself; what it had written is gone if it was cancelled."""
    with containers(
        tmp_path, images, shell(f"trap 'echo asked; exit 4' TERM; {GATE}", cancel=policy)
    ) as made:
        job = up(made)
        assert made.control.cancel(SOMEBODY, job.name, why="").state == "cancelling"
        if policy == CancelPolicy.DRAIN:
            (made.workspaces.of(job.id).staging / "go").touch()
        job = made.until(job)
        assert images.containers() == []
        assert (job.state, made.log_of(job)) == (state, log)
        assert made.workspaces.of(job.id).output.exists() == (state == "finished")


def test_a_container_that_hears_nothing_is_killed_within_five_seconds(
    tmp_path: Path, images: Images
) -> None:
    """The first process of a container ignores TERM by itself."""
    with containers(tmp_path, images, shell(GATE)) as made:
        job = up(made)
        began = time.monotonic()
        made.control.cancel(SOMEBODY, job.name, why="")
        assert made.until(job).state == "cancelled"
        assert time.monotonic() - began < 5
        assert images.containers() == []


def test_a_stop_ends_a_container_and_puts_its_job_back(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing runs without the service; after the next start the job runs again, from its start."""
    monkeypatch.setattr(executor, "GRACE_SECONDS", 0.2)
    with containers(tmp_path, images, shell(GATE)) as made:
        job = up(made)
        made.scheduler.stop(PATIENCE)
        assert images.containers() == []
        back = made.views.get(LOCAL, job.id)
        assert (back.state, back.reason) == ("in_queue", "drain")
        assert not made.workspaces.of(job.id).staging.exists()
        made.restart()
        wait_for_file(made.workspaces.of(job.id).staging / "up")
        (made.workspaces.of(job.id).staging / "go").touch()
        assert (made.until(job).state, made.views.get(LOCAL, job.id).attempts) == ("finished", 2)


def test_an_image_that_cannot_be_started_says_why(tmp_path: Path, images: Images) -> None:
    """The runtime's own words are the log's last line."""
    images.build("broken", {}, ['ENTRYPOINT ["/opt/nothing"]'])
    with containers(tmp_path, images, image("broken")) as made:
        job = made.until(made.submit())
    assert (job.state, job.reason) == ("failed", "pipeline_error")
    assert job.error.startswith("podman could not start the container; the log ends with: ")
    assert "/opt/nothing" in job.error


def test_a_job_whose_runtime_s_client_dies_leaves_no_container(
    tmp_path: Path, images: Images
) -> None:
    """The container would outlive it: it is removed, and the job says what happened."""
    with containers(tmp_path, images, shell(GATE)) as made:
        job = up(made)
        name = f"dicom-adapter-{job.id}-1"
        (client,) = [
            process
            for process in psutil.process_iter(["cmdline"])
            if (process.info["cmdline"] or [])[-3:] == ["start", "--attach", name]
        ]
        client.kill()
        job = made.until(job)
        assert images.containers() == []
    assert (job.state, job.reason) == ("failed", "pipeline_error")
    assert job.error.startswith("the podman that held it ended, so the container was removed")
