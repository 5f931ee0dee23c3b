"""A running Orthanc, as a PACS beside the service that is tested."""

import json
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from tests.support import PATIENCE

#: The plugin of Debian's package orthanc-dicomweb.
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
AE_TITLE = "ORTHANC"


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc, reached by its REST interface."""

    process: "subprocess.Popen[str]"
    http: int
    dicom: int

    @property
    def dicomweb(self) -> str:
        """Where its DICOMweb services are."""
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def post(self, path: str, body: bytes) -> Any:  # noqa: ANN401 - whatever JSON it answers
        """Post a body and return the answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", body)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            return json.load(answer)

    def get(self, path: str) -> bytes:
        """Return what is there."""
        address = f"http://127.0.0.1:{self.http}{path}"
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            return bytes(answer.read())

    def store(self, instances: Iterable[Dataset]) -> list[str]:
        """Store instances; return their ids there."""
        return [self.post("/instances", _encoded(one))["ID"] for one in instances]


def _encoded(instance: Dataset) -> bytes:
    buffer = BytesIO()
    instance.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@contextmanager
def orthanc(
    folder: Path,
    ports: tuple[int, int],
    modalities: Mapping[str, tuple[str, int]],
    **settings: object,
) -> Iterator[Orthanc]:
    """Run an Orthanc on loopback, over what is in a folder.

    Args:
        folder: Its own, which may be there.
        ports: Of its REST interface, and of its DICOM listener.
        modalities: Which AE titles it knows, with their ports on loopback.
        settings: What its configuration has besides.
    """
    folder.mkdir(exist_ok=True)
    http, dicom = ports
    values = {
        "Name": "PACS",
        "DicomAet": AE_TITLE,
        "HttpPort": http,
        "DicomPort": dicom,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "HttpBindAddresses": ["127.0.0.1"],
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [str(DICOMWEB)] if DICOMWEB.exists() else [],
        "DicomModalities": {
            name: [title, "127.0.0.1", port] for name, (title, port) in modalities.items()
        },
        **settings,
    }
    file = folder / "orthanc.json"
    file.write_text(json.dumps(values))
    with subprocess.Popen(
        ["Orthanc", str(file)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if "Orthanc has started" in line:
                    break
            else:
                pytest.fail("Orthanc did not start:\n" + "".join(said))
            yield Orthanc(process, http, dicom)
        finally:
            process.terminate()
            # Read to its end, so that it does not block while it writes its last words.
            process.stderr.read()
