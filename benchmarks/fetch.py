"""Measures fetching studies from an Orthanc, beside DCMTK's movescu and getscu.

`python -m benchmarks.fetch` does it: a series of each kind is fetched by every way, in turns, each
time into a store that has nothing of it. A command's start is part of what is measured, as it is of
what people wait for; of ours, the service runs already.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
from pydicom import dcmread

from benchmarks import series
from benchmarks.receivers import free_port
from benchmarks.series import CT, MR
from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import composition_pb2 as messages

ROUNDS = 5
PART = 0.1
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
PATIENCE_SECONDS = 60.0
OURS = {"c-move": "MOVE", "c-get": "GET", "DICOMweb": "WEB"}
MOVESCU, GETSCU = "movescu", "getscu"
OF = (MR, CT)

Fetch = Callable[[str, Path], None]


def main() -> None:
    """Print a table: what came a second, by every way."""
    with tempfile.TemporaryDirectory(dir=".") as name, ExitStack() as stack:
        folder = Path(name).absolute()
        ports = {who: free_port() for who in ("http", "dicom", "adapter", "dcmtk")}
        files = series.make(folder / "series", PART)
        stack.enter_context(_orthanc(folder / "orthanc", ports))
        client = stack.enter_context(_adapter(folder / "adapter", ports))
        found = {load: (_stored(files[load][0].parent, ports), len(files[load])) for load in OF}
        rates = _rates(_ways(client, ports), client, folder, found)
    _tell(rates)


def _rates(
    ways: Mapping[str, Fetch],
    client: Client,
    folder: Path,
    found: Mapping[str, tuple[str, int]],
) -> dict[tuple[str, str], list[float]]:
    rates: dict[tuple[str, str], list[float]] = {}
    for number in range(ROUNDS):
        for load, (study, count) in found.items():
            for way in list(ways)[:: 1 if number % 2 else -1]:
                into = folder / "into"
                into.mkdir()
                began = time.perf_counter()
                ways[way](study, into)
                seconds = time.perf_counter() - began
                shutil.rmtree(into)
                if way in OURS:
                    _empty(client, study, folder / "adapter" / "data" / "spool")
                rates.setdefault((load, way), []).append(count / seconds)
    return rates


def _tell(rates: Mapping[tuple[str, str], list[float]]) -> None:
    names = (*OURS, MOVESCU, GETSCU)
    print(f"| | {' | '.join(names)} |\n| --- | {' | '.join('---:' for _ in names)} |")
    for load in OF:
        told = (f"{statistics.median(rates[load, way]):.0f}/s" for way in names)
        print(f"| {load} | {' | '.join(told)} |")


def _ways(client: Client, ports: Mapping[str, int]) -> dict[str, Fetch]:
    def ours(source: str) -> Fetch:
        def fetch(study: str, _into: Path) -> None:
            request = messages.FetchStudyRequest(source=source, study_instance_uid=study)
            list(client.composition.FetchStudy(request))

        return fetch

    def theirs(*words: str) -> Fetch:
        def fetch(study: str, into: Path) -> None:
            keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
            peer = ["127.0.0.1", str(ports["dicom"])]
            command = [*words, "-S", *keys, "-aec", "ORTHANC", "-od", str(into), *peer]
            subprocess.run(command, check=True, capture_output=True)

        return fetch

    move = [MOVESCU, "-aem", "DCMTK", "-aet", "DCMTK", "--port", str(ports["dcmtk"])]
    found = {way: ours(source) for way, source in OURS.items()}
    return {**found, MOVESCU: theirs(*move), GETSCU: theirs(GETSCU, "-aet", "DCMTK")}


def _empty(client: Client, study: str, spool: Path) -> None:
    """Let a study go, and wait until nothing of it is left: the next one is to come anew."""
    request = messages.ReleaseStudiesRequest(study_instance_uids=[study])

    def gone() -> bool:
        # What is not in the index yet cannot be let go; at the end there is nothing to let go.
        with suppress(grpc.RpcError):
            client.composition.ReleaseStudies(request)
        return not any(spool.rglob("*.dcm"))

    _wait(gone)


def _stored(folder: Path, ports: Mapping[str, int]) -> str:
    """Have Orthanc store a folder; return the UID of the study."""
    peer = ["127.0.0.1", str(ports["dicom"])]
    words = ["storescu", "-aec", "ORTHANC", *peer, "+sd", "+r", str(folder)]
    subprocess.run(words, check=True, capture_output=True)
    return str(dcmread(next(folder.rglob("*.dcm"))).StudyInstanceUID)


@contextmanager
def _orthanc(folder: Path, ports: Mapping[str, int]) -> Iterator[None]:
    folder.mkdir()
    known = {"a": ("CACHE", "adapter"), "b": ("DCMTK", "dcmtk")}
    values = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "DicomAet": "ORTHANC",
        "DicomPort": ports["dicom"],
        "HttpPort": ports["http"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [PLUGIN],
        "DicomModalities": {
            name: [title, "127.0.0.1", ports[who]] for name, (title, who) in known.items()
        },
    }
    file = folder / "orthanc.json"
    file.write_text(json.dumps(values), "utf-8")
    echo = ["echoscu", "-aec", "ORTHANC", "127.0.0.1", str(ports["dicom"])]
    with _running(["Orthanc", str(file)]):
        _wait(lambda: subprocess.run(echo, capture_output=True, check=False).returncode == 0)
        yield


@contextmanager
def _adapter(folder: Path, ports: Mapping[str, int]) -> Iterator[Client]:
    folder.mkdir()
    asked = f"ae_title: ORTHANC, host: 127.0.0.1, port: {ports['dicom']}"
    file = folder / "dicom-adapter.yaml"
    file.write_text(
        f"""
dicom: {{host: 127.0.0.1, port: {ports["adapter"]}}}
grpc: {{listen: null}}
storage: {{reserve: 0, watermark: 100%, durability: process-crash}}
log: {{level: warning}}
ae_titles: {{CACHE: {{processor: cache}}}}
sources:
  MOVE: {{{asked}}}
  GET: {{{asked}, retrieve: c-get}}
  WEB: {{url: "http://127.0.0.1:{ports["http"]}/dicom-web"}}
""",
        "utf-8",
    )
    socket = folder / "data" / "run" / "grpc.sock"
    with _running([sys.executable, "-m", "dicom_adapter", "serve", "--config", str(file)]):
        echo = ["echoscu", "-aec", "CACHE", "127.0.0.1", str(ports["adapter"])]
        _wait(lambda: subprocess.run(echo, capture_output=True, check=False).returncode == 0)
        with Client(f"unix:{socket}") as client:
            yield client


@contextmanager
def _running(words: list[str]) -> Iterator[None]:
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def _wait(there: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not there():
        if time.monotonic() > until:
            raise TimeoutError("it does not come to its end")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
