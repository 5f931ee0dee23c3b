"""What a pipeline has locked is removed all the same; root would not even see the locks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_adapter.platform.workspace import Workspace, Workspaces

NOBODY = 65534


@contextmanager
def without_root(folder: Path) -> Iterator[None]:
    """Work without root's rights in a folder, which is the current one."""
    if os.geteuid():
        yield
        return
    os.chown(folder, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def locked(folder: Path) -> None:
    """Make a folder of folders that nobody may look into or empty."""
    for name, mode in (("closed", 0o000), ("full", 0o500)):
        (folder / name / "deep").mkdir(parents=True)
        (folder / name / "deep" / "file").touch()
        (folder / name / "deep").chmod(mode)
        (folder / name).chmod(mode)
    folder.chmod(0o000)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace in which everything is locked."""
    # By relative paths: the folders above are the test runner's alone.
    monkeypatch.chdir(tmp_path)
    with without_root(tmp_path):
        made = Workspaces(Path("jobs"))
        made.open()
        workspace = made.of("job")
        for folder in (workspace.input, workspace.work, workspace.staging, workspace.output):
            folder.mkdir(parents=True)
            locked(folder)
        for file in (workspace.log, workspace.manifest, workspace.progress):
            # As files they are not needed here, so a pipeline may have made of them what it likes.
            file.mkdir()
            locked(file)
        workspace.folder.chmod(0o500)
        yield workspace


def test_an_attempt_is_removed_though_it_is_locked(workspace: Workspace) -> None:
    """The next attempt begins with nothing of the one before."""
    workspace.discard_attempt()
    assert {path.name for path in workspace.folder.iterdir()} == {"input", "log.txt", "job.json"}


def test_all_of_a_job_is_reclaimed_though_it_is_locked(workspace: Workspace) -> None:
    """The reclaimer leaves nothing, and goes on to the next job."""
    for part in ("inputs", "outputs", "logs"):
        workspace.reclaim(part)
    assert not workspace.folder.exists()


def test_a_workspace_is_removed_though_it_is_locked(workspace: Workspace) -> None:
    """What a crash left goes whole."""
    Workspaces(workspace.folder.parent).remove("job")
    assert not workspace.folder.exists()


def test_what_a_link_leads_to_is_left_alone(workspace: Workspace) -> None:
    """A link in place of a folder goes; nothing changes where it leads."""
    elsewhere = Path("elsewhere/closed")
    elsewhere.mkdir(parents=True)
    elsewhere.chmod(0o000)
    workspace.discard_attempt()
    workspace.output.symlink_to("../../elsewhere")
    workspace.folder.chmod(0o500)
    workspace.reclaim("outputs")
    assert not workspace.output.is_symlink()
    assert elsewhere.stat().st_mode & 0o777 == 0
    elsewhere.chmod(0o700)
