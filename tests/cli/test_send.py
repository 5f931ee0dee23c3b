"""`send` and `echo`: a small C-STORE and C-ECHO client."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import UID

from tests.cli.conftest import Command
from tests.cli.shell import as_process, on_terminal
from tests.support import Running, make_instance, running


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service to send to."""
    with running(tmp_path_factory.mktemp("receiver")) as service:
        yield service


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with two instances, one of them deeper, and a file that is none."""
    folder = tmp_path / "study"
    (folder / "deeper").mkdir(parents=True)
    make_instance().save_as(folder / "a.dcm")
    make_instance().save_as(folder / "deeper" / "b")
    (folder / "README.txt").write_text("not DICOM", "utf-8")
    return folder


def test_a_folder(cli: Command, receiver: Running, study: Path) -> None:
    """Folders are sent whole, what is not DICOM is left out with a note, and 0 is the exit code."""
    answer = cli("send", str(study), "--to", f"TEST@127.0.0.1:{receiver.port}")
    assert answer.code == 0
    assert answer.out == f"2 of 2 instances sent to TEST@127.0.0.1:{receiver.port}\n"
    assert answer.err == f"{study}/README.txt: not a DICOM file, left out\n"


def test_files(cli: Command, receiver: Running, study: Path) -> None:
    """Single files are sent too, by the calling AE title that --calling says."""
    words = ["send", str(study / "a.dcm"), "--to", f"TEST@localhost:{receiver.port}"]
    answer = cli(*words, "--calling", "SCANNER")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("1 of 1 instance sent")


def test_progress_on_a_terminal(receiver: Running, study: Path) -> None:
    """A progress bar is shown where standard error is a terminal, and nowhere else."""
    code, shown = on_terminal(
        "send", str(study), "--to", f"TEST@localhost:{receiver.port}", folder=study
    )
    assert code == 0
    assert "2/2" in shown
    assert "━" in shown


def test_refused_instances(cli: Command, receiver: Running, study: Path) -> None:
    """Each file that the receiver refuses is named with the cause, and the exit code is 1."""
    broken = make_instance()
    broken.SOPClassUID = broken.file_meta.MediaStorageSOPClassUID = UID("1.2.3.4.5")
    broken.save_as(study / "broken.dcm")
    answer = cli("send", str(study), "--to", f"TEST@localhost:{receiver.port}")
    assert answer.code == 1
    assert answer.out.startswith("2 of 3 instances sent to")
    assert f"{study}/broken.dcm: the receiver does not accept its SOP class" in answer.err
    assert answer.err.endswith("did not take 1 instance\n")


def test_nothing_to_send(cli: Command, study: Path) -> None:
    """Files of which none is DICOM are a failure, before anybody is called."""
    answer = cli("send", str(study / "README.txt"), "--to", "TEST@localhost:1")
    assert answer.code == 1
    assert "none of the files is a DICOM file" in answer.err


def test_nobody_answers(cli: Command, study: Path) -> None:
    """A receiver that does not listen, or is not known, is told plainly, with nothing sent."""
    # As a process: pynetdicom leaves the socket of a refused connection to the garbage collector.
    answer = as_process("send", str(study), "--to", "TEST@localhost:1", folder=study)
    assert answer.code == 1
    assert answer.out == "0 of 2 instances sent to TEST@localhost:1\n"
    assert "TEST@localhost:1 does not answer: check host, port and firewall" in answer.err
    answer = cli("send", str(study), "--to", "TEST@no-such-host.invalid:104")
    assert answer.code == 1
    assert "TEST@no-such-host.invalid:104: the host is not known" in answer.err


def test_echo(cli: Command, receiver: Running) -> None:
    """A peer that answers is told with 0; any calling AE title will do here."""
    peer = f"TEST@localhost:{receiver.port}"
    answer = cli("echo", peer, "--calling", "ANYBODY")
    assert (answer.code, answer.out, answer.err) == (0, f"{peer} answers\n", "")


def test_echo_to_an_unknown_ae_title(cli: Command, receiver: Running) -> None:
    """An unknown called AE title is told as what it is, with exit 1."""
    answer = cli("echo", f"WRONG@localhost:{receiver.port}")
    assert (answer.code, answer.out) == (1, "")
    assert "called AE title not recognized" in answer.err
    assert answer.err.count("\n") == 1


def test_echo_without_an_answer(tmp_path: Path) -> None:
    """Where nobody listens, one line says what to check."""
    answer = as_process("echo", "TEST@127.0.0.1:1", folder=tmp_path)
    assert (answer.code, answer.out) == (1, "")
    assert "does not answer" in answer.err
    assert answer.err.count("\n") == 1
