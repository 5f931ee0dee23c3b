"""Two services, one of which runs pipelines for the other, and the wire between them."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from dicom_adapter.addresses import socket_address
from dicom_adapter.ledger.schema import remote_jobs
from dicom_adapter.model import InputFile, Job, JobInput, JobRequest, Priority
from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import jobs_pb2
from tests.platform.harness import part10
from tests.submit.test_two_processes import free_port, known, platform
from tests.support import PATIENCE, Running, running

#: Says what it does, and waits for the file NAME.go; `late` is let end when it is to.
FAR = """
grpc: {listen: "127.0.0.1:PORT"}
storage: {reserve: 0, watermark: 100%}
pipelines:
  work: &work
    command:
      - sh
      - -c
      - >-
        name=$(grep -o '"name": "[a-z]*"' "$DICOM_ADAPTER_JOB" | cut -d'"' -f4); echo said;
        echo '{{"step": "look", "progress": 0.5}}' >> "$DICOM_ADAPTER_PROGRESS";
        touch "$1/$name.up"; until [ -e "$1/$name.go" ]; do sleep 0.01; done;
        mkdir "$0/sub"; cp -r "$DICOM_ADAPTER_INPUT"/. "$0/sub"; cp "$DICOM_ADAPTER_JOB" "$0/job";
        head -c 3000000 /dev/zero > "$0/big"; echo done
      - "{output}"
      - FOLDER
    resources: {memory: 1MiB}
    steps: [look, write]
  late: {<<: *work, cancel: drain}
  fail:
    command: [sh, -c, 'echo PATIENT; exit 3']
    resources: {memory: 1MiB}
  few: {<<: *work, limits: {running: 1, waiting: 1}}
"""
NEAR = """
grpc: {listen: null}
storage: {reserve: 0, watermark: 100%}
executors: {far: {address: "127.0.0.1:PORT", token: ../token}}
platform: {executor: far}
pipelines:
  work: {resources: {memory: 1MiB}, steps: [look, write]}
  late: {resources: {memory: 1MiB}}
  fail: {resources: {memory: 1MiB}}
  few: {resources: {memory: 1MiB}}
  short: {remote_pipeline: late, timeout: 2s, resources: {memory: 1MiB}}
  unknown: {resources: {memory: 1MiB}}
"""


@dataclass
class Side:
    """One of the two services, and its owner's connection to it."""

    made: Running
    client: Client

    def until(self, look: Callable[[Job], bool], name: str = "") -> Job:
        """Wait until the one job here is as wanted, and return it."""

        def found() -> Job | None:
            jobs = [job for job in self.made.jobs() if not name or job.name == name]
            assert len(jobs) <= 1
            return jobs[0] if jobs and look(jobs[0]) else None

        job = self.made.wait_for(found)
        assert job is not None
        return job

    def until_state(self, *states: str, name: str = "") -> Job:
        """Wait until the one job here is in one of these states, and return it."""
        return self.until(lambda job: job.state in states, name)

    def moves(self, job: Job) -> list[tuple[str, str, str]]:
        """Return what a job's moves came from, went to, and who made them."""
        request = jobs_pb2.GetJobRequest(job=job.id)
        events = self.client.jobs.GetJobHistory(request).events
        return [(event.from_state, event.to_state, event.actor) for event in events]

    def log_of(self, job: Job) -> str:
        """Return a job's log."""
        request = jobs_pb2.StreamLogsRequest(job=job.id)
        return b"".join(chunk.data for chunk in self.client.jobs.StreamLogs(request)).decode()

    def until_said(self, job: Job, text: str) -> str:
        """Wait until a job's log has a text, and return the log."""
        said = ""
        request = jobs_pb2.StreamLogsRequest(job=job.id, follow=True)
        stream = self.client.jobs.StreamLogs(request, timeout=PATIENCE)
        for chunk in stream:
            said += chunk.data.decode()
            if text in said:
                break
        stream.cancel()
        assert text in said
        return said

    def output(self, job: Job, path: str) -> bytes:
        """Return an output as it lies on the disk."""
        folder = self.made.service.settings.storage.path / "platform" / "jobs" / job.id / "output"
        return (folder / path).read_bytes()

    def submit(self, pipeline: str = "work", name: str = "study", files: int = 1) -> list[bytes]:
        """Submit a job of two series, and return what is in its files."""
        data = [part10() for _ in range(files + 1)]
        request = request_of(self.client, self.folder, data, pipeline, name)
        with self.client.errors():
            self.client.submit(request)
        return data

    @property
    def folder(self) -> Path:
        """Where its configuration lies."""
        return Path(self.made.service.settings.file).parent

    def handed(self) -> int:
        """Return how much the ledger knows that may be at another platform."""
        with self.made.service.ledger.read() as tx:
            return len(tx.execute(remote_jobs.select()).all())

    def until_nothing_handed(self) -> None:
        """Wait until nothing is at another platform any more."""
        self.made.wait_for(lambda: not self.handed())


def request_of(
    client: Client, folder: Path, data: list[bytes], pipeline: str, name: str
) -> JobRequest:
    """Upload files, the last one of a series of its own, and return a request for a job of them."""
    files = []
    for number, each in enumerate(data):
        (folder / "file").write_bytes(each)
        file = InputFile(uuid4().hex, sha256(each).hexdigest(), f"1.2.3.{number}")
        client.upload(file, folder / "file")
        files.append(file)
    inputs = (
        JobInput("1.2", "1.2.3", "all", tuple(files[:-1])),
        JobInput("1.2", "1.2.4", "all", tuple(files[-1:])),
    )
    return JobRequest(
        uuid4().hex, name, pipeline, Priority.HIGHER, "CT1", (inputs,), {"threshold": "3"}
    )


@contextmanager
def side(made: Running) -> Iterator[Side]:
    """Connect to a service."""
    with Client(socket_address(made.service.settings)) as client:
        yield Side(made, client)


@contextmanager
def far(folder: Path, port: int = 0, more: str = "") -> Iterator[Side]:
    """Run the service that does the work; `NAME.go` in the folder lets a job end."""
    known(folder)
    text = FAR.replace("FOLDER", str(folder)).replace("PORT", str(port)) + more
    (folder / "platform").mkdir(exist_ok=True)
    with running(folder / "platform", text) as made, side(made) as found:
        yield found


@contextmanager
def near(folder: Path, port: int, text: str = NEAR) -> Iterator[Side]:
    """Run the service that hands the work over to a port."""
    (folder / "near").mkdir(exist_ok=True)
    with (
        running(folder / "near", text.replace("PORT", str(port))) as made,
        side(made) as found,
    ):
        yield found


@contextmanager
def both(folder: Path, text: str = NEAR, more: str = "") -> Iterator[tuple[Side, Side]]:
    """Run both services: who hands over, and who works."""
    with far(folder, more=more) as there, near(folder, port_of(there), text) as here:
        yield here, there


def port_of(there: Side) -> int:
    """Return the TCP port of the service that works."""
    return int(there.made.ready.grpc[0].rpartition(":")[2])


@dataclass
class Wire:
    """Forwards connections to a port, until it is cut; after `budget` bytes it breaks once."""

    target: int
    port: int = field(default_factory=free_port)
    budget: int | None = None
    breaks: int = 0

    def __post_init__(self) -> None:
        """Begin whole, or as if there were nothing: `mend` makes it whole."""
        self._server: socket.socket | None = None
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()

    def mend(self) -> None:
        """Let connections through from now on."""
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        if self._server is not None:
            with suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
        self._break()

    def _break(self) -> None:
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                this, _ = server.accept()
                other = socket.create_connection(("127.0.0.1", self.target))
                with self._lock:
                    self._ends |= {this, other}
                for one, two in ((this, other), (other, this)):
                    threading.Thread(target=self._copy, args=(one, two), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                if self.budget is not None and len(data) > 4096:
                    self.budget -= len(data)
                    if self.budget < 0:
                        self.budget, self.breaks = None, self.breaks + 1
                        self._break()
        self._break_one(source, target)

    def _break_one(self, *ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def wire(there: Side) -> Iterator[Wire]:
    """Lay a wire to the service that works, whole until the test cuts it."""
    made = Wire(port_of(there))
    made.mend()
    try:
        yield made
    finally:
        made.cut()


__all__ = ["far", "free_port", "known", "near", "platform"]
