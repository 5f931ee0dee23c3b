"""Studies that an Orthanc has come into the cache: by C-MOVE, by C-GET, and by WADO-RS."""

from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from secrets import randbelow

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import BasicTextSRStorage, generate_uid

from dicom_adapter.ledger import events, instances
from tests.orthanc import Orthanc
from tests.receive.conftest import log
from tests.receive.support import Log
from tests.retrieve.conftest import WAYS, Cache, Runs, study_of
from tests.support import make_instance

__all__ = ["log"]

pytestmark = [pytest.mark.orthanc, pytest.mark.parametrize("way", WAYS)]


@pytest.fixture
def study() -> str:
    """Return the UID of a study that nobody has."""
    return f"1.2.826.{randbelow(10**12)}"


def told(progress: object) -> tuple[int, int, int, int, int]:
    """Return the counts of a fetch's end."""
    names = ("series", "wanted", "left_out", "before", "fetched")
    series, wanted, left_out, before, fetched = (getattr(progress, name) for name in names)
    return series, wanted, left_out, before, fetched


def kept(cache: Cache) -> dict[str, Dataset]:
    """Return what the files say that are kept, by SOP Instance UID."""
    return {str(one.SOPInstanceUID): one for one in map(dcmread, cache.files())}


def test_a_study_comes_whole(cache: Cache, pacs: Orthanc, study: str, way: str) -> None:
    """Every instance is kept as it is there, is in the index, and nothing half done stays."""
    sent = study_of(study)
    pacs.store(sent)
    *_, last = cache.fetch(way, study)
    assert told(last) == (2, 6, 0, 0, 6)
    got = kept(cache)
    assert {uid: one.PixelData for uid, one in got.items()} == {
        str(one.SOPInstanceUID): one.PixelData for one in sent
    }
    assert {str(one.file_meta.TransferSyntaxUID) for one in got.values()} == {"1.2.840.10008.1.2.1"}
    assert not cache.parts()
    cache.here.wait_for(lambda: cache.indexed() == 6)
    (found,) = cache.find(way, StudyInstanceUID=study)
    assert (found.series, found.instances, found.kept) == (2, 6, 6)


def test_what_is_here_is_not_fetched_again(
    cache: Cache, pacs: Orthanc, study: str, way: str
) -> None:
    """The same command once more finds all of it here, and has nothing come."""
    pacs.store(study_of(study))
    cache.fetch(way, study)
    before = cache.numbers()
    *_, last = cache.fetch(way, study)
    assert told(last) == (2, 6, 0, 6, 0)
    assert cache.numbers() == before


def test_only_what_is_missing_comes(cache: Cache, pacs: Orthanc, study: str, way: str) -> None:
    """A study that has grown there is completed: its new series, and the rest of an old one."""
    sent = study_of(study, series=2, each=4)
    pacs.store(sent[:2])
    cache.fetch(way, study)
    before = set(cache.numbers())
    pacs.store(sent[2:])
    *_, last = cache.fetch(way, study)
    assert told(last) == (2, 8, 0, 2, 6)
    # Each came once: nothing of what was here is among what came by the second.
    after = cache.numbers()
    assert sum(number not in before for number in after) == 6
    assert len(kept(cache)) == len(cache.files()) == 8


def test_series_are_chosen(cache: Cache, pacs: Orthanc, study: str, way: str) -> None:
    """Attributes of series choose among them: also those that a PACS need not match by."""
    sent = [
        *study_of(study, series=1, Modality="CT", SeriesDescription="Lung 1.0"),
        make_instance(study=study, series=f"{study}.9", Modality="SR", SeriesDescription="Dose"),
    ]
    pacs.store(sent)
    assert told(cache.fetch(way, study, Modality="SR")[-1]) == (1, 1, 0, 0, 1)
    assert told(cache.fetch(way, study, SeriesDescription="lung*")[-1]) == (1, 3, 0, 0, 3)
    uid = f"{study}.9"
    assert told(cache.fetch(way, study, SeriesInstanceUID=uid)[-1]) == (1, 1, 0, 1, 0)


def test_studies_are_found(cache: Cache, pacs: Orthanc, study: str, way: str) -> None:
    """Wildcards, dates, lists and names in another script find what is there."""
    name = "Müller^Änne"
    pacs.store(
        study_of(
            study,
            series=1,
            patient=f"F{study[-8:]}",
            SpecificCharacterSet="ISO_IR 192",
            PatientName=name,
            StudyDate="20260301",
        )
    )
    (found,) = cache.find(way, PatientID=f"F{study[-8:]}")
    assert found.study_instance_uid == study
    assert found.attributes["PatientName"] == name
    assert found.attributes["StudyDate"] == "20260301"
    assert (list(found.modalities), found.kept) == (["CT"], 0)
    assert cache.find(way, PatientID=f"*{study[-8:]}", StudyDate="20260201-20260401")
    assert not cache.find(way, PatientID=f"*{study[-8:]}", StudyDate="-20260201")
    assert cache.find(way, PatientID=f"F{study[-8:]}\\nobody", Modality="CT")
    assert not cache.find(way, PatientID=f"F{study[-8:]}", Modality="MR")
    # Orthanc's DICOMweb plugin takes what is percent-encoded as it stands.
    name = "M*" if way == "WEB" else "Müller*"
    assert cache.find(way, StudyInstanceUID=f"{study}\\1.2.3", PatientName=name)


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "MR_small_RLE.dcm", "JPEG-lossy.dcm"])
def test_nothing_is_recoded(cache: Cache, pacs: Orthanc, study: str, way: str, name: str) -> None:
    """What is compressed there comes in the same transfer syntax, with the same pixels."""
    image = dcmread(str(get_testdata_file(name)))
    image.StudyInstanceUID, image.SeriesInstanceUID = study, f"{study}.1"
    image.SOPInstanceUID = generate_uid()
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    pacs.store([image])
    *_, last = cache.fetch(way, study)
    assert last.fetched == 1
    (got,) = kept(cache).values()
    assert got.file_meta.TransferSyntaxUID == image.file_meta.TransferSyntaxUID
    assert sha256(got.PixelData).digest() == sha256(image.PixelData).digest()


def test_what_the_ae_title_does_not_take_is_left_out(
    cache_at: Runs, pacs: Orthanc, study: str, way: str
) -> None:
    """Its accepted SOP classes count here too, and what is left out is told, not an error."""
    report = make_instance(study=study, series=f"{study}.9", Modality="SR")
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    pacs.store([*study_of(study, series=1), report])
    with cache_at(accepted="[CTImageStorage]") as cache:
        *_, last = cache.fetch(way, study)
        assert told(last) == (2, 3, 1, 0, 3)
        assert len(cache.files()) == 3


def test_who_fetched_from_where_is_told(
    cache: Cache, pacs: Orthanc, study: str, way: str, log: Log
) -> None:
    """The trail has who and whence, the log how much; neither has what identifies a patient."""
    pacs.store(study_of(study, patient="Secret1", PatientName="Secret^Name"))
    cache.fetch(way, study)
    (line,) = log.of("fetched")
    assert (line["source"], line["ae_title"], line["instances"]) == (way, "CACHE", 6)
    with cache.here.service.ledger.read() as tx:
        last = events.last_number(tx)
        trail = events.between(tx, 0, last, since=None, until=None, limit=1000)
        event, end = [one for one in trail if one.kind == "retrieval"]
        stored = instances.known(tx, [path.stem for path in cache.files()], Path)
    assert (event.action, event.actor, event.from_state, event.to_state) == (
        "fetch", "local", way, "CACHE",
    )  # fmt: skip
    assert (end.subject, end.action, end.actor) == (event.subject, "finish", "local")
    assert end.reason == "6 instances, 0 before, 6 wanted"
    if way != "MOVE":
        # By its number what has come is found.
        assert {str(one.association) for one in stored} == {event.subject}
    said = log.text
    assert study not in said
    assert "Secret" not in said


def test_no_instance_waits_for_an_acknowledgement(
    cache: Cache, pacs: Orthanc, study: str, way: str
) -> None:
    """Nagle's algorithm there and delayed acknowledgements here cost 40 ms of each instance."""
    pacs.store(study_of(study, series=1, each=30))
    cache.fetch(way, study)
    with cache.here.service.ledger.read() as tx:
        stored = instances.known(tx, [path.stem for path in cache.files()], Path)
    times = sorted(one.received_at.timestamp() for one in stored)
    gaps = sorted(after - before for before, after in pairwise(times))
    # The machine may be busy now and then, but not each time.
    assert gaps[len(gaps) // 10] < 0.035
