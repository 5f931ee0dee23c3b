"""The receivers that are compared, each started as its own process with an empty store."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

AE_TITLE = "BENCH"
PATIENCE_SECONDS = 60.0
# A receiver whose processes use no more than this for so long has nothing left to do.
QUIET_CPU_SECONDS = 0.01
QUIET_SECONDS = 0.25


@dataclass(frozen=True)
class Receiver:
    """A running receiver: where it listens, and the process whose tree does the work."""

    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Return what the process and its children, also ended ones, have used so far."""
        used = 0.0
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                used += sum(process.cpu_times()[:4])
        return used

    def settle(self) -> None:
        """Wait until the processes are idle: what is done after the answer is work as well."""
        deadline, used = time.monotonic() + PATIENCE_SECONDS, self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(QUIET_SECONDS)
            before, used = used, self.cpu_seconds()
            if used - before <= QUIET_CPU_SECONDS:
                return

    def memory(self) -> int:
        """Return the bytes that the processes have in memory."""
        return self._status("VmRSS")

    def peak_memory(self) -> int:
        """Return the most bytes that the processes had in memory since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Have the peak of memory begin anew."""
        for process in self._tree():
            Path(f"/proc/{process.pid}/clear_refs").write_text("5", "ascii")

    def _tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def _status(self, key: str) -> int:
        found = 0
        for process in self._tree():
            with suppress(FileNotFoundError):
                for line in Path(f"/proc/{process.pid}/status").read_text("ascii").splitlines():
                    if line.startswith(f"{key}:"):
                        found += int(line.split()[1]) * 1024
        return found


Start = Callable[[Path, int], list[str]]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def storescp(folder: Path, port: int) -> list[str]:
    """DCMTK's receiver, a process for each association."""
    words = ["storescp", "--fork", "--accept-all", "--aetitle", AE_TITLE]
    return [*words, "--output-directory", str(folder), str(port)]


def orthanc(folder: Path, port: int) -> list[str]:
    """Orthanc, storing to its own index and folder."""
    file = folder / "orthanc.json"
    values = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "DicomAet": AE_TITLE,
        "DicomPort": port,
        "HttpPort": free_port(),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
    }
    file.write_text(json.dumps(values), "utf-8")
    return ["Orthanc", str(file)]


def stock(folder: Path, port: int) -> list[str]:
    """The acceptor that pynetdicom has, which stores the bytes undecoded and does nothing else."""
    return [sys.executable, "-m", "benchmarks.stock", str(folder), str(port)]


#: Groups what comes, and makes no job while it is measured.
GROUPING = "settings: {pipeline-none: none, timeout: 1h}"


def adapter(durability: str, dicom: str = "", title: str = GROUPING) -> Start:
    """This product, whole, with one AE title."""

    def start(folder: Path, port: int) -> list[str]:
        file = _configured(folder, port, durability, dicom, title)
        return [sys.executable, "-m", "dicom_adapter", "serve", "--config", str(file)]

    return start


def unrecorded(folder: Path, port: int) -> list[str]:
    """What of this product receives and stores, without ledger and grouping."""
    file = _configured(folder, port, "process-crash")
    return [sys.executable, "-m", "benchmarks.unrecorded", str(file)]


def _configured(
    folder: Path, port: int, durability: str, dicom: str = "", title: str = GROUPING
) -> Path:
    file = folder / "dicom-adapter.yaml"
    file.write_text(
        f"""
dicom: {{host: 127.0.0.1, port: {port}{dicom and ", "}{dicom}}}
grpc: {{listen: null}}
storage: {{reserve: 0, watermark: 100%, durability: {durability}}}
log: {{level: warning}}
pipelines: {{none: {{command: ["true"]}}}}
ae_titles: {{{AE_TITLE}: {{{title}}}}}
""",
        "utf-8",
    )
    return file


PROCESS_CRASH, POWER_LOSS = "DICOM Adapter, process-crash", "DICOM Adapter, power-loss"
TWO_PROCESSES = f"{PROCESS_CRASH}, two processes"
UNRECORDED = "its receiving alone, no ledger"
STORESCP, ORTHANC, STOCK = "storescp --fork", "Orthanc", "stock pynetdicom"
OURS = (PROCESS_CRASH, TWO_PROCESSES, POWER_LOSS, UNRECORDED)
ALL: Mapping[str, Start] = {
    PROCESS_CRASH: adapter("process-crash"),
    TWO_PROCESSES: adapter("process-crash", "processes: 2"),
    POWER_LOSS: adapter("power-loss"),
    UNRECORDED: unrecorded,
    STORESCP: storescp,
    ORTHANC: orthanc,
    STOCK: stock,
}


@contextmanager
def running(
    start: Start, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Receiver]:
    """Run a receiver until the block ends; it is idle when the block begins."""
    port = free_port()
    folder.mkdir()
    process = subprocess.Popen(
        start(folder, port),
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(process, port)
        receiver = Receiver(port, psutil.Process(process.pid))
        receiver.settle()
        yield receiver
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
        shutil.rmtree(folder)


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    # echoscu returns at once when nobody listens yet, so the receiver's start is what takes time.
    for _ in range(500):
        echo = ["echoscu", "--call", AE_TITLE, "127.0.0.1", str(port)]
        if subprocess.run(echo, capture_output=True, check=False).returncode == 0:
            return
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        raise RuntimeError(f"the receiver ended with {process.returncode} instead of listening")
    raise TimeoutError("the receiver does not answer")
