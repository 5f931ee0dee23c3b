"""Who a container runs as, and how the files of a job become its own for so long."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dicom_adapter.platform.program import CannotStartError
from dicom_adapter.platform.workspace import Workspace

#: Of neither a person, a service nor a range that systemd or a container runtime gives away. Not
#: `nobody`: what else runs as that could look into the container.
NOBODY_ELSE = 65533


@dataclass(frozen=True)
class User:
    """An unprivileged user and its group, by their numbers."""

    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"


def container_user() -> User:
    """Return who containers run as: the service's own user, and never root."""
    if os.geteuid() == 0:
        return User(NOBODY_ELSE, NOBODY_ELSE)
    return User(os.geteuid(), os.getegid())


def hand_over(workspace: Workspace, user: User) -> None:
    """Let a user read a job's inputs, and write its outputs.

    Raises:
        CannotStartError: the files cannot be given to that user.
    """
    if user.uid == os.geteuid():
        return
    try:
        _hand_over(workspace, user)
    except OSError as error:
        raise CannotStartError(
            f"the job's files cannot be given to the user {user} of its container: "
            f"{error.strerror}; run the service as an unprivileged user instead"
        ) from error


def _hand_over(workspace: Workspace, user: User) -> None:
    # By the group alone: an input's file may be the spool's too, and stays the service's.
    for place, _, files in os.walk(workspace.input):
        os.chown(place, -1, user.gid)
        Path(place).chmod(0o750)
        for name in files:
            os.chown(Path(place, name), -1, user.gid, follow_symlinks=False)
    os.chown(workspace.manifest, -1, user.gid)
    workspace.manifest.chmod(0o640)
    for path in (workspace.progress, workspace.work, workspace.staging):
        os.chown(path, user.uid, user.gid)


def take_back(workspace: Workspace, user: User) -> None:
    """Have everything that a container has written belong to the service."""
    if user.uid == os.geteuid():
        return
    _take(workspace.progress)
    for folder in (workspace.work, workspace.staging):
        _take(folder)
        for place, folders, files in os.walk(folder):
            for name in (*folders, *files):
                _take(Path(place, name))


def _take(path: Path) -> None:
    # It may be gone: whoever took the job over has removed it.
    with suppress(FileNotFoundError):
        # What is a link was made by the container, and is not followed.
        os.chown(path, os.geteuid(), os.getegid(), follow_symlinks=False)
