"""Other people's senders: DCMTK's tools, and Orthanc as a PACS that sends."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.orthanc import orthanc
from tests.receive.support import Log, free_port, receiving, run
from tests.support import ManualClock, make_instance, running

STUDY, SERIES = "1.2.826.1", "1.2.826.1.1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder, and one in it, with six instances of two series of a study."""
    top = tmp_path / "study"
    (top / "second").mkdir(parents=True)
    for number in range(6):
        place = top if number < 3 else top / "second"
        make_instance(study=STUDY, series=f"{SERIES}.{number // 3}", number=number).save_as(
            place / f"{number}.dcm", enforce_file_format=True
        )
    return top


@pytest.mark.dcmtk
def test_storescu_sends_a_file_and_a_folder(tmp_path: Path, folder: Path) -> None:
    """A single file, then the whole folder with what is below it; nothing is stored twice."""
    with receiving(tmp_path) as adapter:
        for words in ([folder / "0.dcm"], ["+sd", "+r", folder]):
            done = run("storescu", "-v", "-aec", "TEST", "127.0.0.1", adapter.port, *words)
            assert done.returncode == 0, done.stdout
        assert done.stdout.count("Received Store Response (Success)") == 6
        stored = adapter.stored()
        assert len(adapter.files()) == 6
    assert sorted(instance.instance_number or 0 for instance in stored) == list(range(6))
    assert {instance.calling_ae_title for instance in stored} == {"STORESCU"}
    assert {instance.source_address for instance in stored} == {"127.0.0.1"}


@pytest.mark.dcmtk
def test_dcmsend_reports_that_all_was_stored(tmp_path: Path, folder: Path) -> None:
    """DCMTK's modern sender counts as many successes as there are files, and so do we."""
    report = tmp_path / "report.txt"
    with receiving(tmp_path) as adapter:
        words = ("+sd", "+r", "+crf", report, "-aec", "TEST", "127.0.0.1", adapter.port, folder)
        done = run("dcmsend", "-v", *words)
        assert done.returncode == 0, done.stdout
        assert len(adapter.stored()) == 6
    assert "with status SUCCESS : 6" in " ".join(report.read_text().split())


@pytest.mark.dcmtk
def test_dcmsend_may_open_an_association_for_each_series(tmp_path: Path, folder: Path) -> None:
    """What comes over several associations in turn all arrives, each with its own number."""
    with receiving(tmp_path) as adapter:
        for place in (folder, folder / "second"):
            done = run("dcmsend", "+sd", "-aec", "TEST", "127.0.0.1", adapter.port, place)
            assert done.returncode == 0, done.stdout
        stored = adapter.stored()
    assert len(stored) == 6
    assert len({instance.association for instance in stored}) == 2


@pytest.mark.dcmtk
def test_storescu_repeats_over_one_association(tmp_path: Path, folder: Path) -> None:
    """Thirty C-STOREs of the same six instances are thirty successes and six files."""
    with receiving(tmp_path) as adapter:
        words = ("--repeat", 5, "-aec", "TEST", "127.0.0.1", adapter.port)
        done = run("storescu", "-v", *words, "+sd", "+r", folder)
        assert done.returncode == 0, done.stdout
        assert done.stdout.count("Received Store Response (Success)") == 30
        assert len(adapter.stored()) == len(adapter.files()) == 6


@pytest.mark.dcmtk
def test_several_senders_at_once_all_get_through(tmp_path: Path, folder: Path) -> None:
    """Four processes that send the study with UIDs of their own: everything arrives once."""
    with receiving(tmp_path) as adapter:

        def send(number: int) -> int:
            own = tmp_path / f"own-{number}"
            shutil.copytree(folder, own)
            # +II: with a new SOP Instance UID for each instance.
            words = ("+II", "-aet", f"SCU{number}", "-aec", "TEST", "127.0.0.1", adapter.port)
            return run("storescu", *words, "+sd", "+r", own).returncode

        with ThreadPoolExecutor() as pool:
            assert list(pool.map(send, range(4))) == [0] * 4
        stored = adapter.stored()
    assert len(stored) == 24
    callers = sorted({(s.calling_ae_title, s.association) for s in stored})
    assert [caller for caller, _ in callers] == ["SCU0", "SCU1", "SCU2", "SCU3"]


@pytest.mark.orthanc
def test_orthanc_sends_a_study_that_becomes_a_job(tmp_path: Path, folder: Path, log: Log) -> None:
    """A PACS echoes, sends a study over its own association, and a job is made of all of it."""
    files = sorted(folder.rglob("*.dcm"))
    clock = ManualClock()
    with (
        running(tmp_path, clock=clock) as adapter,
        orthanc(
            tmp_path / "orthanc",
            (free_port(), free_port()),
            {"adapter": ("TEST", adapter.port)},
        ) as pacs,
    ):
        ids = [pacs.post("/instances", file.read_bytes())["ID"] for file in files]
        pacs.post("/modalities/adapter/echo", b"{}")
        log.wait_for("echo")
        sent = pacs.post("/modalities/adapter/store", json.dumps(ids).encode())
        assert (sent["InstancesCount"], sent["FailedInstancesCount"]) == (6, 0)
        adapter.grouped(6)
        clock.advance(5)
        (job,) = adapter.ended_jobs(1)
    assert (job.state, job.instances) == ("finished", 6)
    accepted = log.of("association.accepted")
    assert {line["calling"] for line in accepted} == {"ORTHANC"}
