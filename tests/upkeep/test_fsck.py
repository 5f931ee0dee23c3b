"""`fsck` as an administrator runs it: beside a service, without one, and without a ledger."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import Answer, Served, as_process, ended_jobs, serving
from tests.support import CONFIG, SUCCESS, command, make_instance, send
from tests.upkeep.left import KEPT

WELL = "Every file of the spool has its row in the ledger, and every row its file.\n"


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a service that has made a job of an instance, and stopped."""
    folder = tmp_path_factory.mktemp("delivered")
    with serving(folder, KEPT) as served:
        assert send(served.dicom[0], [make_instance()]) == [SUCCESS]
        assert command("groups", "complete", "--all", folder=folder).returncode == 0
        ended_jobs(served.places["grpc"], 1)
    return folder


@pytest.fixture
def folder(delivered: Path, tmp_path: Path) -> Path:
    """A copy of it, to be tampered with."""
    shutil.copytree(delivered / "data", tmp_path / "data")
    (tmp_path / "dicom-adapter.yaml").write_text(KEPT, "utf-8")
    return tmp_path


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    """A service that runs on it."""
    with serving(folder, KEPT) as started:
        yield started


def fsck(folder: Path, *words: str) -> Answer:
    """Run it in a process of its own."""
    return as_process("fsck", *words, folder=folder)


def the_file(folder: Path) -> Path:
    """Return the file of the one instance."""
    (file,) = folder.glob("data/spool/instances/*/*.dcm")
    return file


def test_in_order(folder: Path) -> None:
    """Without a service, it says that all is well, and ends with 0."""
    for words in ((), ("--scrub",)):
        assert fsck(folder, *words) == Answer(0, WELL, "")


def test_in_order_beside_a_service(served: Served) -> None:
    """Beside a service, it is the service that looks."""
    for words in ((), ("--scrub",), ("--server", served.places["grpc"])):
        assert fsck(served.folder, *words) == Answer(0, WELL, "")


def test_what_needs_a_person(served: Served) -> None:
    """What cannot be mended is shown with its cure, ends with 1, and is in `status` from then."""
    file = the_file(served.folder)
    file.unlink()
    answer = fsck(served.folder)
    assert answer.code == 1
    assert file.stem in answer.out
    assert "its file is gone: have it sent again, or discard its group" in answer.out
    assert answer.out.endswith("0 disorders mended, 1 left for a person.\n")
    shown = command("status", folder=served.folder).stdout
    assert "1 file of the spool does not agree with the ledger: see `fsck`" in shown
    (line,) = [line for line in served.logged() if line["action"] == "upkeep.missing"]
    assert (line["level"], line["instance"]) == ("error", file.stem)


def test_json(folder: Path) -> None:
    """Every disorder is an object on a line of its own."""
    file = the_file(folder)
    file.with_name(f"{file.stem[:8]}{'f' * 24}.dcm").write_bytes(file.read_bytes())
    (file.parent / "other").write_text("nothing of ours")
    answer = fsck(folder, "--json")
    assert answer.code == 1
    assert {(row["kind"], row["needs_person"]) for row in answer.rows} == {
        ("redundant", False),
        ("unknown", True),
    }
    assert {row["instance"] for row in answer.rows} == {f"{file.stem[:8]}{'f' * 24}", "other"}


def test_scrub(served: Served) -> None:
    """A turned bit is found beside a running service."""
    file = the_file(served.folder)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.chmod(0o600)
    file.write_bytes(content)
    assert fsck(served.folder).code == 0
    answer = fsck(served.folder, "--scrub")
    assert answer.code == 1
    assert "it has other bytes than were received: moved to spool/aside" in answer.out
    assert (served.folder / "data/spool/aside" / file.name).read_bytes() == content


def test_a_lost_ledger_is_made_again_by_a_start(folder: Path) -> None:
    """Whatever is in the spool is recorded, told, and becomes jobs once more."""
    for path in folder.glob("data/ledger.db*"):
        path.unlink()
    with serving(folder, KEPT) as served:
        assert [line["kind"] for line in fsck(folder, "--json").rows] == []
        (line,) = [line for line in served.logged() if line["action"] == "upkeep.adopted"]
        assert line["instance"] == the_file(folder).stem
        assert command("groups", "complete", "--all", folder=folder).returncode == 0
        (job,) = ended_jobs(served.places["grpc"], 1)
        assert job.instances == 1


def test_rebuild(folder: Path) -> None:
    """A corrupt ledger refuses the start, is kept under another name, and is made of the files."""
    ledger = folder / "data" / "ledger.db"
    ledger.write_bytes(b"SQLite format 3\0" + b"\xff" * 8000)
    answer = as_process("serve", folder=folder)
    assert answer.code == 1
    assert "fsck --rebuild" in answer.err
    assert "Traceback" not in answer.err
    answer = fsck(folder, "--rebuild")
    assert (answer.code, "1 disorder mended, 0 left for a person." in answer.out) == (0, True)
    assert answer.err.startswith(f"kept as {ledger}.")
    (kept,) = folder.glob("data/ledger.db.*.old")
    assert kept.read_bytes().endswith(b"\xff" * 8000)
    with serving(folder, KEPT) as served:
        assert fsck(folder, "--scrub") == Answer(0, WELL, "")
        assert command("groups", "complete", "--all", folder=folder).returncode == 0
        (job,) = ended_jobs(served.places["grpc"], 1)
        assert job.instances == 1


def test_outputs_of_jobs_survive_a_rebuild(folder: Path) -> None:
    """Folders of jobs that the new ledger does not know stay, and the log says where."""
    before = sorted(path.name for path in folder.glob("data/platform/jobs/*"))
    assert before
    assert fsck(folder, "--rebuild").code == 0
    with serving(folder, KEPT) as served:
        told = [line for line in served.logged() if line["action"] == "platform.unknown_workspaces"]
        assert [line["folders"] for line in told] == [len(before)]
    assert set(before) <= {path.name for path in folder.glob("data/platform/jobs/*")}


def test_rebuild_beside_a_service_is_refused(served: Served) -> None:
    """Nobody takes its ledger from a running service."""
    answer = fsck(served.folder, "--rebuild")
    assert (answer.code, answer.out) == (1, "")
    assert "is in use by another dicom-adapter: stop that one" in answer.err
    assert list(served.folder.glob("data/*.old*")) == []


def test_where_there_is_no_data(tmp_path: Path) -> None:
    """A folder that no service has used is named, and nothing is made."""
    (tmp_path / "dicom-adapter.yaml").write_text(CONFIG, "utf-8")
    answer = fsck(tmp_path)
    assert (answer.code, answer.out) == (1, "")
    assert f"{tmp_path}/data is no data folder: name one with --data or --config" in answer.err
    assert not (tmp_path / "data").exists()


def test_a_server_that_is_not_there(folder: Path) -> None:
    """Who names a server means that one: nothing is looked at in its place."""
    answer = fsck(folder, "--server", "127.0.0.1:1")
    assert (answer.code, answer.out) == (1, "")
    assert "127.0.0.1:1" in answer.err
