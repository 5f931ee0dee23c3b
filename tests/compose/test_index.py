"""The index: what people find of what is kept, by which words, in whatever character set."""

import errno
import tracemalloc
import zlib
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_adapter.addresses import socket_address
from dicom_adapter.attributes import criteria_of, meets
from dicom_adapter.compose import indexer
from dicom_adapter.compose.description import description_of
from dicom_adapter.errors import InvalidArgumentError
from dicom_adapter.model import Description, StoredInstance, instances
from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import composition_pb2 as messages
from tests.compose.conftest import CONFIG, Cache, series_of
from tests.ledger.make import instance
from tests.support import command, make_instance, running, send

# Names of PS3.5 annexes H, I and J, and others, as their senders encode them.
NAMES = {
    "ISO_IR 100": "Buc^Jérôme",
    "ISO_IR 144": "Люкceмбypг",  # noqa: RUF001 - as PS3.5 has it
    "ISO_IR 126": "Διονυσιος",
    "ISO_IR 192": "Wang^XiaoDong=王^小东",
    "GB18030": "Wang^XiaoDong=王^小东",
    "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞=홍^길동",
}
REAL = (
    "CT_small.dcm",
    "MR_small.dcm",
    "JPEG2000.dcm",
    "rtplan.dcm",
    "reportsi.dcm",
    "waveform_ecg.dcm",
    "examples_palette.dcm",
    "liver_1frame.dcm",
)


def test_any_character_set_is_decoded(cache: Cache) -> None:
    """By PS3.5 section 6.1: single bytes, ISO 2022 escapes, UTF-8 and GB18030."""
    for number, (charset, name) in enumerate(NAMES.items()):
        one = make_instance(study=f"1.2.{number}", series=f"1.2.{number}.1")
        one.SpecificCharacterSet = charset.split("\\")
        one.PatientName = name
        cache.keep([one])
    found = {one.study_instance_uid: one.attributes["PatientName"] for one in cache.studies()}
    assert found == {f"1.2.{n}": name for n, name in enumerate(NAMES.values())}


def test_a_name_is_found_in_each_component_group(cache: Cache) -> None:
    """Whatever its case."""
    one = make_instance()
    one.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    one.PatientName = NAMES["\\ISO 2022 IR 87"]
    cache.keep([one])
    latin = ("Yamada^Tarou", "yamada*", "YAMADA^T?ROU")
    for wanted in (*latin, "山田*", "やまだ^たろう", "*太郎", "*", ""):
        assert len(cache.studies(PatientName=wanted)) == 1, wanted


def test_a_name_is_found_without_its_accents(cache: Cache) -> None:
    """And not by a part of it alone, or by another."""
    cache.keep([make_instance(PatientName="Müller^Jérôme", SpecificCharacterSet="ISO_IR 100")])
    for wanted in ("muller^jerome", "MÜLLER*", "*Jérôme"):
        assert len(cache.studies(PatientName=wanted)) == 1
    for wanted in ("muller", "Mueller*", "jerome*"):
        assert cache.studies(PatientName=wanted) == []


def test_upper_and_lower_case_are_alike_in_any_script(cache: Cache) -> None:
    """Also where the ledger's own comparison knows ASCII alone."""
    text = "SCHÄDEL Übersicht ПРОВЕРКА"
    cache.keep([make_instance(StudyDescription=text, SpecificCharacterSet="ISO_IR 192")])
    for wanted in (text, "schädel*", "*ÜBERSICHT*", "*ü?ersicht*", "*проверка"):
        assert len(cache.studies(StudyDescription=wanted)) == 1, wanted
    assert cache.studies(StudyDescription="schadel*") == []


def test_attributes_are_matched_as_c_find_does(cache: Cache) -> None:
    """PS3.4 section C.2.2.2: single values, wildcards, lists and ranges; all of them together."""
    cache.keep(
        series_of(
            "1.2.3.1",
            [1],
            patient="A-100%",
            StudyDate="20260115",
            StudyTime="081530",
            AccessionNumber="X1",
            SeriesDescription="Thorax [lung]",
            SeriesNumber=7,
        )
    )
    cache.keep(
        series_of(
            "1.2.4.1",
            [1],
            study="1.2.4",
            patient="A-200",
            StudyDate="20260220",
            StudyTime="235959.5",
            AccessionNumber="X2",
            Modality="MR",
            SeriesNumber=None,
            SOPClassUID="1.2.840.10008.5.1.4.1.1.4",
        )
    )

    def studies(**attributes: str) -> set[str]:
        return {one.study_instance_uid for one in cache.studies(**attributes)}

    first, second, both = {"1.2.3"}, {"1.2.4"}, {"1.2.3", "1.2.4"}
    assert studies() == both
    assert studies(PatientID="A-100%") == first
    assert studies(PatientID="A-*") == both
    assert studies(PatientID="a-?00") == second
    assert studies(PatientID="A-1") == set()
    assert studies(PatientID="A_100%") == set()
    assert studies(PatientID="A-*%") == first
    assert studies(AccessionNumber="X1\\X2") == both
    assert studies(AccessionNumber="X1\\X3") == first
    assert studies(StudyDate="20260101-20260131") == first
    assert studies(StudyDate="20260115-20260220") == both
    assert studies(StudyDate="-20260131") == first
    assert studies(StudyDate="20260201-") == second
    assert studies(StudyDate="20260115") == first
    assert studies(StudyTime="0800-0815") == first
    assert studies(StudyTime="23-") == second
    assert studies(Modality="CT") == first
    assert studies(ModalitiesInStudy="MR\\US") == second
    assert studies(Modality="CT", PatientID="A-2*") == set()
    assert studies(SeriesDescription="*[lung]") == first
    assert studies(SeriesNumber="7") == first
    assert studies(StudyInstanceUID="1.2.3\\1.2.9") == first
    assert studies(SeriesInstanceUID="1.2.4.1") == second
    assert studies(**{"0010,0020": "A-2*"}) == second
    (one,) = cache.series(Modality="MR")
    assert one.series_instance_uid == "1.2.4.1"
    assert one.attributes["PatientID"] == "A-200"
    assert "SeriesNumber" not in one.attributes


def test_one_attribute_named_twice_is_either(cache: Cache) -> None:
    """As words of a command line are."""
    for number, modality in enumerate(("CT", "MR", "US")):
        cache.keep(
            [make_instance(study=f"1.2.{number}", series=f"1.2.{number}.1", Modality=modality)]
        )
    pairs = [messages.Attribute(keyword="Modality", value=value) for value in ("CT", "US")]
    found = cache.api.SearchStudies(messages.SearchRequest(attributes=pairs)).studies
    assert [one.study_instance_uid for one in found] == ["1.2.2", "1.2.0"]


@pytest.mark.parametrize(
    ("value", "text", "is_met"),
    [
        ("*a" * 100 + "*b", "a" * 1000, False),
        ("*a" * 100 + "*", "a" * 1000, True),
        ("a*b*b", "ABXB", True),
        ("a*b*b", "ABX", False),
        ("a**?c", "abc", True),
        ("a.c", "abc", False),
    ],
)
def test_wildcards_are_met_without_trying_every_way(value: str, text: str, *, is_met: bool) -> None:
    """A name that was made for it would stop the service: nothing else runs meanwhile."""
    for keyword in ("StudyDescription", "PatientName"):
        (wanted,) = criteria_of([(keyword, value)])
        assert meets({keyword: text}, wanted) is is_met


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PatientNam", "X", "did you mean PatientName?"),
        ("Rows", "512", "nothing is searched by 'Rows'"),
        ("0008,9999", "X", "nothing is searched by '0008,9999'"),
        ("StudyDate", "2026-01-01", "must be YYYYMMDD, YYYYMMDD-YYYYMMDD"),
        ("StudyDate", "-", "must name one end"),
        ("PatientID", "P1\0xx", "must be without control characters"),
        ("StudyTime", "8:15", "must be HHMMSS"),
        ("PatientID", "x" * 2000, "at most 1024 characters"),
    ],
)
def test_what_cannot_be_searched_is_told(name: str, value: str, told: str) -> None:
    """With what can be."""
    with pytest.raises(InvalidArgumentError) as caught:
        criteria_of([(name, value)])
    assert told in str(caught.value)


def test_so_many_values_are_searched_and_no_more(cache: Cache) -> None:
    """What the ledger could not parse is refused as the mistake that it is."""
    cache.keep([make_instance()])
    values = "\\".join(["XX"] * 249 + ["CT"])
    pairs = [messages.Attribute(keyword="Modality", value=values)] * 2
    found = cache.api.SearchSeries(messages.SearchRequest(attributes=pairs)).series
    assert len(found) == 1
    with pytest.raises(InvalidArgumentError, match="at most 500 values"):
        criteria_of([("StudyInstanceUID", f"1.2.{n}") for n in range(501)])


def test_counts_and_sizes_follow_what_is_kept(cache: Cache) -> None:
    """Frames too."""
    sent = [*series_of("1.2.3.1", [1, 2]), *series_of("1.2.3.2", [1], Modality="MR")]
    sent[0].NumberOfFrames = 5
    cache.keep(sent)
    (study,) = cache.studies()
    assert (study.series, study.instances, list(study.modalities)) == (2, 3, ["CT", "MR"])
    (one,) = cache.series(Modality="CT")
    assert (one.instances, one.frames) == (2, 6)
    files = list((cache.here.service.settings.storage.path / "spool").rglob("*.dcm"))
    assert study.size == sum(file.stat().st_size for file in files)
    cache.api.ReleaseStudies(messages.ReleaseStudiesRequest(series_instance_uids=["1.2.3.2"]))
    (study,) = cache.studies()
    assert (study.series, study.instances, list(study.modalities)) == (1, 2, ["CT"])


def test_pages_go_on_where_the_last_one_ended(cache: Cache) -> None:
    """The newest first, each once."""
    for number in range(5):
        cache.keep([make_instance(study=f"1.2.{number}", series=f"1.2.{number}.1")])
    seen, token = [], ""
    while True:
        page = cache.api.SearchSeries(messages.SearchRequest(page_size=2, page_token=token))
        seen += [one.series_instance_uid for one in page.series]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"1.2.{number}.1" for number in (4, 3, 2, 1, 0)]


def test_a_series_says_where_its_instances_lie(cache: Cache) -> None:
    """Position and orientation, where they are usable."""
    sent = series_of("1.2.3.1", [2, 1])
    sent[0].ImagePositionPatient = [1, 2, 3.5]
    del sent[1].ImagePositionPatient
    cache.keep(sent)
    request = messages.ListInstancesRequest(series_instance_uid="1.2.3.1")
    first, second = cache.api.ListInstances(request).instances
    assert (first.instance_number, list(first.position)) == (1, [])
    assert list(second.position) == [1, 2, 3.5]
    assert len(second.orientation) == 6


def test_real_files_are_found_by_what_they_say(cache: Cache) -> None:
    """The examples of pydicom."""
    sent = [dcmread(str(get_testdata_file(name, download=False))) for name in REAL]
    cache.keep(sent)
    for dataset in sent:
        (one,) = cache.series(SeriesInstanceUID=dataset.SeriesInstanceUID)
        assert one.attributes["Modality"] == dataset.Modality
        assert one.attributes.get("PatientID", "") == str(dataset.PatientID or "")
        assert one.frames == int(dataset.get("NumberOfFrames") or 1)


def test_what_is_broken_is_found_by_its_uids(cache: Cache) -> None:
    """A value that its representation does not allow hides nothing else."""
    one = make_instance(Modality="CT")
    one.add_new("SeriesNumber", "LO", "seven")
    one.add_new("ImagePositionPatient", "LO", "here")
    one.add_new("NumberOfFrames", "LO", "many")
    cache.keep([one])
    (found,) = cache.series(SeriesInstanceUID="1.2.3.4")
    assert found.attributes["Modality"] == "CT"
    assert found.frames == 1


def test_a_file_that_cannot_be_read_keeps_no_other_out(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes into the index once it can be."""
    broken = make_instance(number=1)

    def description(stored: StoredInstance) -> Description:
        if stored.sop_instance_uid == broken.SOPInstanceUID:
            raise OSError(errno.EIO, "stands for a bad sector")
        return description_of(stored)

    with monkeypatch.context() as patched:
        patched.setattr(indexer, "description_of", description)
        patched.setattr(indexer, "INSTANCES_PER_COMMIT", 1)
        cached = [make_instance(number=n) for n in (2, 3)]
        assert set(send(cache.here.port, [broken, *cached], called="CACHE")) == {0}
        cache.here.wait_for(lambda: cache.indexed() == 2)
    cache.here.wait_for(lambda: cache.indexed() == 3)


def test_a_deflated_file_is_not_inflated_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small one may hold more than there is memory; what it says stands at its beginning."""
    monkeypatch.setattr(instances, "LARGEST_HEADER", 1024 * 1024)
    one = make_instance(PatientName="Müller^Eva", SpecificCharacterSet="ISO_IR 100")
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    del one.PixelData
    with DicomBytesIO() as beginning:
        beginning.is_little_endian, beginning.is_implicit_VR = True, False
        write_dataset(beginning, one)
        whole = beginning.getvalue() + b"\xe0\x7f\x10\0OW\0\0" + (64 << 20).to_bytes(4, "little")
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    file = tmp_path / "bomb.dcm"
    header = DicomBytesIO()
    write_file_meta_info(header, one.file_meta)
    packed = [packer.compress(whole), *(packer.compress(bytes(1 << 20)) for _ in range(64))]
    file.write_bytes(b"\0" * 128 + b"DICM" + header.getvalue() + b"".join(packed) + packer.flush())
    stored = instance(path=file, transfer_syntax_uid=str(DeflatedExplicitVRLittleEndian))
    tracemalloc.start()
    try:
        said = description_of(stored)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert said.study["PatientName"] == "Müller^Eva"
    assert said.series["Modality"] == "CT"
    assert peak < 8 << 20


def test_fsck_rebuild_makes_the_index_anew(tmp_path: Path) -> None:
    """Of the files in the spool, where the ledger is lost."""
    with (
        running(tmp_path, CONFIG) as here,
        Client(socket_address(here.service.settings)) as client,
    ):
        Cache(here, client).keep(series_of("1.2.3.1", [1, 2], PatientName="Doe^Jane"))
    ended = command("fsck", "--rebuild", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    with (
        running(tmp_path, CONFIG) as here,
        Client(socket_address(here.service.settings)) as client,
    ):
        cache = Cache(here, client)
        here.wait_for(lambda: cache.indexed() == 2)
        (one,) = cache.studies(PatientName="doe*")
        assert one.instances == 2


def test_no_patient_data_is_in_the_log(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    """Of what is indexed, searched and composed."""
    cache.keep([make_instance(patient="SECRET-ID", PatientName="Secret^Name")])
    cache.studies(PatientName="secret*")
    cache.compose(messages.Part(study_instance_uid="1.2.3"))
    told = "".join(capsys.readouterr())
    assert "job submitted" in told
    assert "secret" not in told.lower()
