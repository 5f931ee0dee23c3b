"""What a service does not start on: each is refused in one clear line, which says the cure."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.shell import as_nobody, as_process, serving
from tests.support import CONFIG, SUCCESS, make_instance, send
from tests.upkeep.left import KEPT, Left

MARKER = "dicom-adapter.marker"
WANTED = KEPT.replace("reserve: 0", "reserve: 0, require_marker: true")
ELSEWHERE = 'ledger: {url: "sqlite:///ledger.db"}'


@pytest.fixture
def left(tmp_path: Path) -> Left:
    """What a service has left behind."""
    return Left(tmp_path)


def refusal(folder: Path, text: str = KEPT) -> str:
    """Start a service that must not come up; return the line that says why."""
    (folder / "dicom-adapter.yaml").write_text(text, "utf-8")
    answer = as_process("serve", folder=folder)
    assert (answer.code, answer.out) == (1, "")
    assert "Traceback" not in answer.err
    (line,) = [line for line in answer.err.splitlines() if not line.startswith("{")]
    return line


def test_one_service_a_folder(left: Left) -> None:
    """The lock is held by the process: killed, it leaves the folder free for the next one."""
    with serving(left.folder, KEPT) as served:
        line = refusal(left.folder)
        assert line.endswith("in use by another dicom-adapter: stop that one, or choose another "
                             "storage.path")  # fmt: skip
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
    with serving(left.folder, KEPT):
        pass


def test_a_marker_is_made_and_kept(left: Left) -> None:
    """Every folder that a service has used says so, and is taken where a marker is required."""
    assert "holds the data of a DICOM Adapter" in (left.folder / "data" / MARKER).read_text()
    with serving(left.folder, WANTED) as served:
        assert send(served.dicom[0], [make_instance()]) == [SUCCESS]


def test_a_volume_that_is_not_mounted(tmp_path: Path) -> None:
    """D13: an empty mount point is refused where a marker is required; nothing is put into it."""
    (tmp_path / "data").mkdir()
    line = refusal(tmp_path, WANTED)
    assert f"{tmp_path}/data has no file {MARKER}, so its volume seems not to be mounted" in line
    assert f"touch {tmp_path}/data/{MARKER}" in line
    assert list((tmp_path / "data").iterdir()) == []
    (tmp_path / "data" / MARKER).touch()
    with serving(tmp_path, WANTED):
        pass


def test_a_volume_that_is_not_mounted_is_noticed_by_a_ledger_elsewhere(left: Left) -> None:
    """A ledger that knows of files does not start on an empty folder, whatever is configured."""
    left.ledger.rename(left.folder / "ledger.db")
    shutil.move(left.folder / "data", left.folder / "volume")
    line = refusal(left.folder, f"{KEPT}{ELSEWHERE}\n")
    assert f"{left.folder}/data has no file {MARKER}" in line
    shutil.rmtree(left.folder / "data")
    shutil.move(left.folder / "volume", left.folder / "data")
    with serving(left.folder, f"{KEPT}{ELSEWHERE}\n") as served:
        assert not [line for line in served.logged() if line["action"].startswith("upkeep.")]


def test_a_ledger_of_a_newer_version(left: Left) -> None:
    """D16: its schema is named, and it is not touched."""
    left.change("update alembic_version set version_num = '9999'")
    before = left.ledger.read_bytes()
    line = refusal(left.folder)
    assert "its schema 9999 is newer than this program: install the version that wrote it" in line
    assert left.ledger.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"this is no database" * 1000, id="another file"),
        pytest.param(lambda file: file[:100] + b"\xff" * (len(file) - 100), id="overwritten"),
        pytest.param(lambda file: file[: len(file) // 2], id="cut off"),
    ],
)
def test_a_corrupt_ledger(left: Left, damage: Callable[[bytes], bytes]) -> None:
    """D16: it is refused with the two cures, and the spool is not touched."""
    left.ledger.write_bytes(damage(left.ledger.read_bytes()))
    # As after a crash: only then is there something to doubt.
    left.ledger.with_name("ledger.db-wal").write_bytes(b"\0" * 32)
    line = refusal(left.folder)
    assert line.startswith(f"dicom-adapter: ledger sqlite:///{left.ledger}: ")
    assert "restore it, or make it anew" in line
    assert "dicom-adapter fsck --rebuild" in line
    assert left.files == [left.id]


def test_a_folder_that_may_not_be_written() -> None:
    """Without the right to write, the folder is named."""
    # Folders of tests are root's own; into this one all may look.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "dicom-adapter.yaml").write_text(CONFIG, "utf-8")
        (folder / "data").mkdir(mode=0o555)
        answer = as_nobody("serve", folder=folder)
    assert (answer.code, answer.out) == (1, "")
    assert f"{folder}/data/lock: Permission denied: storage.path must be a folder" in answer.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_folder_on_a_read_only_volume(left: Left) -> None:
    """D13: a volume that is mounted read-only is refused, however long it has been used."""
    data = str(left.folder / "data")
    mount = ["mount", "--bind", "-o", "ro", data, data]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        line = refusal(left.folder)
    finally:
        subprocess.run(["umount", data], check=True)
    assert f"{data}/lock: Read-only file system: storage.path must be a folder" in line
