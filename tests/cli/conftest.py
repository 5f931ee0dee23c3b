"""Fixtures of the command line's tests: a command run in this process, and a service with work."""

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from dicom_adapter.cli import main
from dicom_adapter.model import LOCAL
from tests.cli.shell import Answer
from tests.support import CONFIG, Running, make_instance, running, send

Command = Callable[..., Answer]

#: Every kind of thing that people look at.
WORK = """
dicom: {host: 127.0.0.1, port: 0}
grpc: {listen: "127.0.0.1:0"}
storage: {reserve: 0, watermark: 100%}
pipelines:
  copy:
    description: Copies its input
    command: [sh, -c, 'echo copying; cp -r "$0"/. "$1"', "{input}", "{output}"]
    resources: {memory: 1MiB}
    steps: [copy]
  fail:
    command: [sh, -c, 'exit 3']
    resources: {memory: 1MiB}
ae_titles:
  TEST: {settings: {pipeline-copy: copy, pipeline-fail: fail}}
  NAMES: {settings: {pipeline-copy: copy, group_by: PatientName, timeout: 1h}}
"""
#: CSI, which turns a terminal red, and what makes it write from right to left.
RED = "RED\x9b31m^KEY\u202e"


@dataclass(frozen=True)
class Work:
    """A running service that has jobs, open groups and instances in quarantine."""

    running: Running
    folder: Path


@pytest.fixture(autouse=True, scope="package")
def _quiet() -> Iterator[None]:
    """A service in this process logs nothing: its lines would stand between a command's.

    For all of these tests at once: what a thread logs between two of them comes into the second.
    """
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command in this process.

    `folder` is where it is run, tmp_path if not given; `columns` makes it believe that it writes
    to a terminal of that width.
    """
    monkeypatch.delenv("DICOM_ADAPTER_CONFIG", raising=False)

    def run(*words: str, folder: Path = tmp_path, columns: int = 0) -> Answer:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: bool(columns))
        # main() adds the current folder, and the filters of a process of its own.
        monkeypatch.setattr("sys.path", list(sys.path))
        capsys.readouterr()
        with warnings.catch_warnings():
            code = main(list(words))
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder with a configuration that every user of this machine can read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "dicom-adapter.yaml").write_text(CONFIG, "utf-8")
        yield folder


@pytest.fixture(scope="package")
def work(_quiet: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    """A service with a finished and a failed job, two open groups and one in quarantine."""
    folder = tmp_path_factory.mktemp("work")
    with running(folder, WORK) as service:
        assert send(service.port, [make_instance(number=n) for n in (1, 2)]) == [0, 0]
        (group,) = service.grouped(2)
        complete(service, group.id)
        service.ended_jobs(2)
        named = [make_instance(PatientName=name) for name in (RED, "山田^太郎")]
        for instance in named:
            instance.SpecificCharacterSet = "ISO_IR 192"
        assert (
            send(service.port, [*named, make_instance(PatientName="")], called="NAMES") == [0] * 3
        )
        service.grouped(2)
        service.wait_for(lambda: quarantined(service))
        yield Work(service, folder)


def complete(service: Running, group: str) -> None:
    """Make a group due now, as `groups complete` does."""
    service.service._adapter_operations().groups.complete(LOCAL, [group])  # noqa: SLF001


def quarantined(service: Running) -> int:
    """Return how many instances are in quarantine."""
    return len(service.service._adapter_operations().quarantine.listed(LOCAL))  # noqa: SLF001
