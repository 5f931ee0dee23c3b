"""DCMTK's PACS, dcmqrscp: another peer than Orthanc, with ways of its own."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_adapter.errors import WrongStateError
from tests.receive.support import free_port, run
from tests.retrieve.conftest import Runs, study_of
from tests.support import PATIENCE

pytestmark = pytest.mark.dcmtk
STUDY = "1.2.826.51"
CONFIG = """
dicom: {{host: 127.0.0.1, port: {adapter}}}
grpc: {{listen: null}}
storage: {{reserve: 0, watermark: 100%}}
ae_titles: {{CACHE: {{processor: cache}}}}
sources:
  MOVE: {{ae_title: QRSCP, host: 127.0.0.1, port: {port}}}
  GET: {{ae_title: QRSCP, host: 127.0.0.1, port: {port}, retrieve: c-get}}
"""
SERVER = """
NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
{known} = ({known}, 127.0.0.1, {adapter})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
QRSCP {folder} RW (200, 1024mb) ANY
AETable END
"""


def wait_for(there: Callable[[], bool]) -> None:
    """Wait until something is there, as a server that has just been started."""
    until = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < until
        time.sleep(0.05)


@contextmanager
def dcmqrscp(folder: Path, port: int, adapter: int, known: str) -> Iterator[None]:
    """Run a dcmqrscp that has a study, and knows one AE title at our port."""
    (folder / "db").mkdir(parents=True)
    (folder / "sent").mkdir()
    for number, instance in enumerate(study_of(STUDY, patient="P51")):
        instance.save_as(folder / "sent" / f"{number}.dcm", enforce_file_format=True)
    config = folder / "dcmqrscp.cfg"
    config.write_text(SERVER.format(port=port, adapter=adapter, known=known, folder=folder / "db"))
    with subprocess.Popen(
        ["dcmqrscp", "-c", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            echo = ("echoscu", "-aec", "QRSCP", "127.0.0.1", port)
            wait_for(lambda: run(*echo).returncode == 0)
            sent = run("storescu", "-aec", "QRSCP", "127.0.0.1", port, "+sd", folder / "sent")
            assert sent.returncode == 0, sent.stdout
            yield
        finally:
            server.terminate()
            server.wait(PATIENCE)


@pytest.mark.parametrize("way", ["MOVE", "GET"])
def test_a_study_comes_whole(tmp_path: Path, cache_at: Runs, way: str) -> None:
    """It is found by its patient, comes, and is not fetched again."""
    port, adapter = free_port(), free_port()
    with (
        cache_at(CONFIG.format(port=port, adapter=adapter)) as cache,
        dcmqrscp(tmp_path / "pacs", port, adapter, "CACHE"),
    ):
        (found,) = cache.find(way, PatientID="P5*")
        assert found.study_instance_uid == STUDY
        *_, last = cache.fetch(way, STUDY)
        assert (last.wanted, last.fetched) == (6, 6)
        *_, last = cache.fetch(way, STUDY)
        assert (last.before, last.fetched) == (6, 0)
        assert len(cache.files()) == 6


def test_a_pacs_that_does_not_know_us_is_told_of(tmp_path: Path, cache_at: Runs) -> None:
    """Of a C-MOVE to an AE title that it has no address of, people learn what to do."""
    port, adapter = free_port(), free_port()
    with (
        cache_at(CONFIG.format(port=port, adapter=adapter)) as cache,
        dcmqrscp(tmp_path / "pacs", port, adapter, "ANOTHER"),
        pytest.raises(WrongStateError, match=r"0xA801.*enter it there.*or use retrieve: c-get"),
    ):
        cache.fetch("MOVE", STUDY)
