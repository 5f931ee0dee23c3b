"""The receivers that are compared, each started as its own process with an empty store."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

AE_TITLE = "BENCH"
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Receiver:
    """A running receiver: where it listens, and the process whose tree does the work."""

    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Return what the process and its children, also ended ones, have used so far."""
        living = [self.process, *self.process.children(recursive=True)]
        times = [process.cpu_times() for process in living]
        ended = self.process.cpu_times()
        return sum(t.user + t.system for t in times) + ended.children_user + ended.children_system


Start = Callable[[Path, int], list[str]]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def storescp(folder: Path, port: int) -> list[str]:
    """DCMTK's receiver, a process for each association."""
    folder.mkdir()
    return [
        "storescp",
        "--fork",
        "--accept-all",
        "--aetitle",
        AE_TITLE,
        "--output-directory",
        str(folder),
        str(port),
    ]


def orthanc(folder: Path, port: int) -> list[str]:
    """Orthanc, storing to its own index and folder."""
    folder.mkdir()
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
    folder.mkdir()
    return [sys.executable, "-m", "benchmarks.stock", str(folder), str(port)]


def adapter(folder: Path, port: int) -> list[str]:
    """This product, with a group that is not due while it is measured."""
    folder.mkdir()
    file = folder / "dicom-adapter.yaml"
    file.write_text(
        f"""
dicom: {{host: 127.0.0.1, port: {port}}}
grpc: {{listen: null}}
storage: {{reserve: 0, watermark: 100%}}
log: {{level: warning}}
pipelines: {{none: {{command: ["true"]}}}}
ae_titles: {{{AE_TITLE}: {{settings: {{pipeline-none: none, timeout: 1d}}}}}}
""",
        "utf-8",
    )
    return [sys.executable, "-m", "dicom_adapter", "serve", "--config", str(file)]


ALL: Mapping[str, Start] = {
    "DICOM Adapter": adapter,
    "storescp --fork": storescp,
    "Orthanc": orthanc,
    "stock pynetdicom": stock,
}


@contextmanager
def running(start: Start, folder: Path, environment: Mapping[str, str]) -> Iterator[Receiver]:
    """Run a receiver until the block ends; it answers a C-ECHO when the block begins."""
    port = free_port()
    process = subprocess.Popen(
        start(folder, port),
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(process, port)
        yield Receiver(port, psutil.Process(process.pid))
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
