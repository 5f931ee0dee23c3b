"""A service as a process of its own, to be killed, frozen and started again."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psutil

from tests.receive.support import free_port
from tests.support import PATIENCE

T = TypeVar("T")
REPOSITORY = Path(__file__).parents[2]
# Nothing tells of the end of another process's work: it is looked at so often.
_LOOK_SECONDS = 0.01
LONGEST_STRIKE = 10 * PATIENCE
LET_GO_SECONDS = 0.5
# It waits for every thread, also for one that waits for a child which it holds itself.
LONGEST_END = 5.0

#: How long a group waits for more, in seconds.
GROUP_SECONDS = 5
#: Every instance stays, so that every one can be looked at.
CONFIG = """
dicom: {{host: 127.0.0.1, port: {port}, processes: {processes}}}
grpc: {{listen: null}}
log: {{level: warning}}
storage:
  path: {storage}
  durability: {durability}
  reserve: {reserve}
  watermark: 100%
  retain: {retain}
ledger: {{url: "sqlite:///{ledger}"}}
platform: {{max_jobs: 2}}
pipelines:
  copy: {{command: ["true"], resources: {{memory: 1MiB}}}}
ae_titles:
  TEST: {{settings: {{timeout: {timeout}, late: separate, pipeline-copy: copy}}}}
"""


def wait_until(look: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Return what `look` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not so within {seconds} s: {found!r}"
        time.sleep(_LOOK_SECONDS)
    return found


class Adapter:
    """A service over the data in a folder, which outlives its processes."""

    def __init__(
        self,
        folder: Path,
        *,
        processes: int = 1,
        durability: str = "power-loss",
        reserve: str = "0",
        retain: str = "1d",
        timeout: int = GROUP_SECONDS,
        limits: Sequence[str] = (),
        program: Sequence[str] = ("dicom_adapter",),
        storage: Path | None = None,
        ledger: Path | None = None,
        config: str = CONFIG,
    ) -> None:
        """Write its configuration.

        Args:
            folder: Where configuration and log are.
            processes: How many of them receive.
            durability: What an acknowledged instance survives.
            reserve: What it leaves free on its volume.
            retain: How long what was delivered is kept.
            timeout: How long a group waits for more, in seconds.
            limits: The words of a command that limits it, before its own.
            program: The module that is run, and its words before `serve`.
            storage: The data folder; in `folder` unless it is named.
            ledger: The ledger's file; in the data folder unless it is named.
            config: Its configuration, with the places for all of these in braces.
        """
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.storage = storage or folder / "data"
        self.ledger = ledger or self.storage / "ledger.db"
        self._command = [*limits, sys.executable, "-m", *program, "serve"]
        self.process: subprocess.Popen[str] | None = None
        text = config.format(
            port=self.port,
            processes=processes,
            storage=self.storage,
            durability=durability,
            timeout=timeout,
            reserve=reserve,
            retain=retain,
            ledger=self.ledger,
        )
        (folder / "dicom-adapter.yaml").write_text(text, "utf-8")

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return (self.folder / "serve.log").read_text("utf-8")

    @property
    def socket(self) -> str:
        """Where it is asked by gRPC."""
        return f"unix:{self.storage / 'run' / 'grpc.sock'}"

    def start(self) -> None:
        """Start it; when this returns, it listens."""
        with (self.folder / "serve.log").open("a") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("ready "), self.log

    def all_of_it(self) -> list[psutil.Process]:
        """Return the service and its receiving processes."""
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):
            service = psutil.Process(self.process.pid)
            return [service, *service.children()]
        return []

    def kill(self) -> None:
        """End all of it as no program can foresee."""
        assert self.process is not None
        everything = self.all_of_it()
        for process in everything:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.gone(everything)

    def gone(self, everything: Sequence[psutil.Process]) -> None:
        """Wait until all processes have ended: the receiving ones end when their service has."""
        assert self.process is not None
        self.process.wait(PATIENCE)
        self.process.communicate()
        self.process = None
        assert psutil.wait_procs(everything, PATIENCE)[1] == []

    def is_frozen(self) -> bool:
        """Tell whether every thread of it is held."""
        return all(_is_stopped(process.pid) for process in self.all_of_it())

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold every thread of it until the block ends; none is in a system call meanwhile."""
        everything = self.all_of_it()
        for process in everything:
            process.suspend()
        try:
            wait_until(self.is_frozen)
            yield
        finally:
            thaw(everything)


@contextmanager
def started(adapter: Adapter) -> Iterator[Adapter]:
    """Start a service; whatever runs of it at the end of the block is killed."""
    try:
        adapter.start()
        yield adapter
    finally:
        if adapter.process is not None:
            adapter.kill()


@contextmanager
def struck(adapter: Adapter, calls: str, inject: str, paths: Iterable[Path] = ()) -> Iterator[Path]:
    """Strike a service at its system calls, until the block ends.

    Args:
        adapter: The service, all processes of it.
        calls: Names of system calls, parted by commas.
        inject: What strace is to do at them, as it counts them from now on: `signal=KILL:when=3`.
        paths: Where these are named, only calls for them count.

    Yields the file that all of these calls are written to.
    """
    everything, log = adapter.all_of_it(), adapter.folder / "strace.log"
    words = [f"--trace={calls}", f"--inject={calls}:{inject}", "--output", str(log)]
    for path in paths:
        words += ["-P", str(path)]
    for process in everything:
        words += ["-p", str(process.pid)]
    strace = subprocess.Popen(["strace", "-f", "-y", "-qq", *words], stderr=subprocess.DEVNULL)
    watch = threading.Thread(target=_let_the_dead_go, args=(strace, everything))
    watch.start()
    try:
        # One that ends while it is being attached to is never watched as a whole.
        wait_until(lambda: any(map(has_ended, everything)) or all(map(_is_watched, everything)))
        yield log
    finally:
        strace.terminate()
        _end(strace, LONGEST_END)
        watch.join()
        # Another thread may have come to the same call since it was let go on.
        thaw(everything)


def thaw(processes: Sequence[psutil.Process]) -> None:
    """Let processes go on, if there still are any."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def _let_the_dead_go(strace: "subprocess.Popen[bytes]", traced: Sequence[psutil.Process]) -> None:
    # Of a process that dies while it is being attached to, strace may wait for a thread for ever;
    # and as long as it does, that thread keeps the sockets open.
    wait_until(lambda: strace.poll() is not None or any(map(has_ended, traced)), LONGEST_STRIKE)
    _end(strace, LET_GO_SECONDS)


def _end(strace: "subprocess.Popen[bytes]", seconds: float) -> None:
    try:
        strace.wait(seconds)
    except subprocess.TimeoutExpired:
        strace.kill()
        strace.wait()


def has_ended(process: psutil.Process) -> bool:
    """Tell whether a process has ended, also where nobody has waited for it yet."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _threads(pid: int) -> list[str]:
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found.append((task / "status").read_text("utf-8"))
    return found


def _is_stopped(pid: int) -> bool:
    return all("\nState:\tT" in status or "\nState:\tt" in status for status in _threads(pid))


def _is_watched(process: psutil.Process) -> bool:
    return all("\nTracerPid:\t0\n" not in status for status in _threads(process.pid))
