"""A data set lies on disk as it came over the wire, byte for byte, in every transfer syntax."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pynetdicom import AllStoragePresentationContexts

from dicom_adapter import scu
from dicom_adapter.receive.part10 import IMPLEMENTATION_CLASS_UID
from tests.receive.support import Receiving, data_set_of, free_port, receiving, run
from tests.support import PATIENCE

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

STORAGE = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
IDENTIFYING = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")

#: What pydicom's examples offer; fewer would mean that this proves less than it says.
SYNTAXES = {
    "1.2.840.10008.1.2",  # implicit VR little endian
    "1.2.840.10008.1.2.1",  # explicit VR little endian
    "1.2.840.10008.1.2.1.99",  # deflated
    "1.2.840.10008.1.2.2",  # explicit VR big endian
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.4.70",  # JPEG lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.5",  # RLE
}


# Two end in the middle of a value, one is not encoded as its transfer syntax says.
BROKEN = {"MR_truncated.dcm", "rtplan_truncated.dcm", "SC_rgb_jpeg.dcm"}


def examples() -> list[Path]:
    """Return every Part 10 file that pydicom brings along."""
    folder = Path(pydicom.data.__file__).parent
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.read_bytes()[128:132] == b"DICM"
    )


def expected(path: Path) -> str:
    """Return what must become of a file: the empty text is Success, else how it is refused."""
    if path.name in BROKEN:
        return "refused with 0xC000"
    whole = dcmread(path, stop_before_pixels=True)
    meta, found = whole.file_meta, {name: str(whole.get(name) or "") for name in IDENTIFYING}
    if str(meta.MediaStorageSOPClassUID) not in STORAGE:
        return "does not accept"
    if not all(found.values()):
        return "refused with 0xC000"
    announced = (str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID))
    if announced != (found["SOPClassUID"], found["SOPInstanceUID"]):
        return "refused with 0xA900"
    return ""


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiving]:
    """A listener with one AE title."""
    with receiving(tmp_path_factory.mktemp("identity")) as running:
        yield running


def test_every_example_is_stored_as_it_was_sent(adapter: Receiving) -> None:
    """Each example is stored byte for byte, or refused for what it really lacks."""
    instances, others = scu.find(examples())
    assert {path.name for path in others} == {
        "empty_charset_LEI.dcm",  # no SOP Class UID
        "meta_missing_tsyntax.dcm",
        "nested_priv_SQ.dcm",  # no SOP Class UID
    }
    peer = scu.Peer("TEST", "127.0.0.1", adapter.port)
    outcome = {sent.path: sent.problem for sent in scu.send(peer, "SENDER", instances)}
    wanted = {instance.path: expected(instance.path) for instance in instances}
    assert {p: t for p, t in outcome.items() if (wanted[p] not in t) or (t and not wanted[p])} == {}

    sources: dict[tuple[str, bytes], Path] = {}
    for path, problem in outcome.items():
        if not problem:
            sources.setdefault((str(dcmread(path).SOPInstanceUID), data_set_of(path)), path)
    stored = {(s.sop_instance_uid, data_set_of(s.path)): s for s in adapter.stored()}
    assert stored.keys() == sources.keys()
    assert len(stored) > 120
    assert {s.transfer_syntax_uid for s in stored.values()} == SYNTAXES
    for key, instance in stored.items():
        meta = dcmread(sources[key], stop_before_pixels=True).file_meta
        assert instance.transfer_syntax_uid == meta.TransferSyntaxUID


def test_every_stored_file_is_a_part_10_file_that_dcmtk_reads(adapter: Receiving) -> None:
    """The header names syntax, source, sending and receiving AE title, and who wrote it."""
    for name in ("CT_small.dcm", "MR_small_RLE.dcm", "image_dfl.dcm", "ExplVR_BigEnd.dcm"):
        (path,) = (path for path in examples() if path.name == name)
        instances, _ = scu.find([path])
        assert [s.problem for s in scu.send(peer_of(adapter), "SENDER", instances)] == [""]
    for stored in adapter.stored():
        meta = dcmread(stored.path, stop_before_pixels=True).file_meta
        check_header(meta, stored.transfer_syntax_uid)
        assert meta.MediaStorageSOPInstanceUID == stored.sop_instance_uid
        assert meta.MediaStorageSOPClassUID == stored.sop_class_uid
        assert stored.path.stat().st_size == stored.size
        assert stored.path.stat().st_mode & 0o777 == 0o440


def peer_of(adapter: Receiving) -> scu.Peer:
    """Return the peer that the listener is."""
    return scu.Peer("TEST", "127.0.0.1", adapter.port)


def check_header(meta: FileMetaDataset, syntax: str) -> None:
    """Assert the elements of PS3.10 table 7.1-1 that we write."""
    assert meta.FileMetaInformationVersion == b"\x00\x01"
    assert meta.TransferSyntaxUID == syntax
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta[0x0002_0016].value == "SENDER"
    assert meta[0x0002_0017].value == "SENDER"
    assert meta[0x0002_0018].value == "TEST"


@pytest.mark.dcmtk
def test_dcmdump_reads_what_is_stored(tmp_path: Path) -> None:
    """DCMTK parses each file, the whole of it, and finds our header in it."""
    names = {"CT_small.dcm", "MR_small_RLE.dcm", "image_dfl.dcm", "ExplVR_BigEnd.dcm"}
    instances, _ = scu.find(path for path in examples() if path.name in names)
    with receiving(tmp_path) as running:
        assert not any(sent.problem for sent in scu.send(peer_of(running), "SENDER", instances))
        done = run("dcmdump", *(stored.path for stored in running.stored()))
    assert done.returncode == 0, done.stdout
    for line in ("(0002,0016) AE [SENDER]", "(0002,0017) AE [SENDER]", "(0002,0018) AE [TEST]"):
        assert done.stdout.count(line) == len(names)


@contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """Run DCMTK's own receiver, which keeps what comes bit by bit; yield its port."""
    folder.mkdir()
    port = free_port()
    words = ["storescp", "-d", "-B", "+xa", "-od", str(folder), str(port)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            wait_until_it_answers(port)
            yield port
        finally:
            process.terminate()
            process.stderr.read()


def wait_until_it_answers(port: int) -> None:
    """Connect until the port is open: storescp says nothing when it listens."""
    while True:
        with socket.socket() as probe:
            probe.settimeout(PATIENCE)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return


@pytest.mark.dcmtk
@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("-xi", "MR_small_implicit.dcm"),
        ("-xe", "CT_small.dcm"),
        ("-xb", "MR_small_bigendian.dcm"),
        ("-xd", "image_dfl.dcm"),
        ("-xy", "SC_rgb_jpeg_dcmtk.dcm"),
        ("-xx", "JPGExtended.dcm"),
        ("-xs", "SC_rgb_jpeg_gdcm.dcm"),
        ("-xt", "MR_small_jpeg_ls_lossless.dcm"),
        ("-xv", "MR_small_jp2klossless.dcm"),
        ("-xw", "693_J2KI.dcm"),
        ("-xr", "MR_small_RLE.dcm"),
    ],
)
def test_what_storescu_sends_is_what_storescp_would_have_kept(
    tmp_path: Path, adapter: Receiving, option: str, name: str
) -> None:
    """DCMTK re-encodes as it sends: its own bit-preserving receiver is the witness."""
    (path,) = (path for path in examples() if path.name == name)
    before = {stored.id for stored in adapter.stored()}
    with storescp(tmp_path / "witness") as port:
        sent = run("storescu", "-R", option, "-aec", "TEST", "127.0.0.1", port, path)
        assert sent.returncode == 0, sent.stdout
        sent = run("storescu", "-R", option, "-aec", "TEST", "127.0.0.1", adapter.port, path)
    (witness,) = (tmp_path / "witness").iterdir()
    (stored,) = (stored for stored in adapter.stored() if stored.id not in before)
    ours, theirs = data_set_of(stored.path), data_set_of(witness)
    # storescp drops the byte that pads a deflated data set to an even length (PS3.5 A.5).
    assert ours == theirs or (option, ours) == ("-xd", theirs + b"\0")
    assert stored.transfer_syntax_uid == dcmread(witness).file_meta.TransferSyntaxUID
