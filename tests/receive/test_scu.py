"""Our own sender: what it finds, how it sends, and what it says when it cannot."""

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, evt

from dicom_adapter import scu
from dicom_adapter.errors import InvalidArgumentError, UnavailableError
from tests.receive.support import CT, EXPLICIT, MR, Receiving, config, free_port, receiving
from tests.support import association, make_instance


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Receiving]:
    """A listener with one AE title."""
    with receiving(tmp_path) as running:
        yield running


def peer(port: int, title: str = "TEST") -> scu.Peer:
    """Return a peer on this machine."""
    return scu.Peer(title, "127.0.0.1", port)


def saved(path: Path, sop_class: str = CT, **values: str) -> Path:
    """Write an instance of a SOP class to a file."""
    instance = make_instance(SOPClassUID=UID(sop_class), **values)  # type: ignore[arg-type]
    instance.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    instance.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("text", "title", "host", "port"),
    [
        ("CHEST@adapter.example:11112", "CHEST", "adapter.example", 11112),
        ("TWO WORDS@10.1.2.3:104", "TWO WORDS", "10.1.2.3", 104),
        ("A@B@10.1.2.3:104", "A@B", "10.1.2.3", 104),
        ("SIX@[::1]:104", "SIX", "::1", 104),
    ],
)
def test_a_peer_is_written_as_one_word(text: str, title: str, host: str, port: int) -> None:
    """AET@HOST:PORT, with an IPv6 address in brackets."""
    assert scu.Peer.parse(text) == scu.Peer(title, host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CHEST",
        "CHEST@",
        "@host:104",
        "CHEST@host",
        "CHEST@host:",
        "CHEST@:104",
        "CHEST@host:x",
        "CHEST@host:-1",
        "CHEST@host:0",
        "CHEST@host:65536",
        "CHEST@host:١٠٤",
        "   @host:104",
        "SEVENTEEN-LETTERS@host:104",
        "BACK\\SLASH@host:104",
    ],
)
def test_what_is_no_peer_is_refused(text: str) -> None:
    """A missing part, a port out of range, a title that is none: refused at once."""
    with pytest.raises(InvalidArgumentError, match="peer"):
        scu.Peer.parse(text)


def test_a_calling_title_that_is_none_is_refused(adapter: Receiving) -> None:
    """The calling AE title is judged like the called one."""
    with pytest.raises(InvalidArgumentError, match="calling"):
        scu.echo(peer(adapter.port), "FAR TOO LONG A TITLE")


def test_files_and_folders_are_searched(tmp_path: Path) -> None:
    """Part 10 files wherever they lie, by their content; other files are named apart."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    one = saved(tmp_path / "one")
    two = saved(tmp_path / "deep" / "er" / "two.txt")
    other = tmp_path / "deep" / "readme.dcm"
    other.write_text("no DICOM")
    (tmp_path / "deep" / "empty").touch()
    instances, others = scu.find([tmp_path / "deep", one])
    assert instances == [scu.Instance(two, CT, EXPLICIT), scu.Instance(one, CT, EXPLICIT)]
    assert others == [tmp_path / "deep" / "empty", other]
    with pytest.raises(InvalidArgumentError, match="nowhere does not exist"):
        scu.find([tmp_path / "nowhere"])


def test_an_echo_is_answered(adapter: Receiving) -> None:
    """No exception: the peer answers, and knows these AE titles."""
    scu.echo(peer(adapter.port), "SCU")


def test_more_kinds_than_an_association_has_room_for(adapter: Receiving, tmp_path: Path) -> None:
    """Beyond 128 contexts another association is opened; everything arrives."""
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    assert len(classes) > scu.CONTEXTS
    folder = tmp_path / "all"
    folder.mkdir()
    for number, sop_class in enumerate(classes):
        saved(folder / f"{number:03}.dcm", sop_class)
    instances, _ = scu.find([folder])
    sent = list(scu.send(peer(adapter.port), "SCU", instances))
    assert [one.problem for one in sent] == [""] * len(classes)
    stored = adapter.stored()
    assert {instance.sop_class_uid for instance in stored} == set(classes)
    assert len({instance.association for instance in stored}) == 2


def test_what_is_refused_is_said_of_each_file(tmp_path: Path) -> None:
    """A refused instance, a class that is not negotiated, a file that is gone; the rest is sent."""
    bad = saved(tmp_path / "bad.dcm", StudyInstanceUID="")
    mr, gone, good = (saved(tmp_path / n, c) for n, c in (("mr", MR), ("gone", CT), ("good", CT)))
    with receiving(tmp_path, config("", "TEST: accepted_sop_classes: [CTImageStorage]")) as adapter:
        instances, _ = scu.find([bad, mr, gone, good])
        gone.unlink()
        sending = scu.send(peer(adapter.port), "SCU", instances)
        problems = {sent.path.name: sent.problem for sent in sending}
        assert len(adapter.stored()) == 1
    assert problems["bad.dcm"] == "refused with 0xC000: the data set has no StudyInstanceUID"
    assert problems["mr"] == "the receiver does not accept its SOP class in its transfer syntax"
    assert problems["gone"].startswith("cannot be sent:")
    assert problems["good"] == ""


def test_a_peer_that_accepts_nothing_has_answered_all_the_same(tmp_path: Path) -> None:
    """When no context is accepted, each file says so; nobody is sent to look for a firewall."""
    with receiving(tmp_path, config("", "TEST: accepted_sop_classes: [MRImageStorage]")) as adapter:
        instances, _ = scu.find([saved(tmp_path / "ct")])
        (sent,) = scu.send(peer(adapter.port), "SCU", instances)
    assert sent.problem == "the receiver does not accept its SOP class in its transfer syntax"


@contextmanager
def other(**handlers: Callable[[evt.Event], int]) -> Iterator[scu.Peer]:
    """Run a receiver that is not ours, and knows CT alone."""
    ae = AE("OTHER")
    ae.add_supported_context(CT, EXPLICIT)
    bound = [(getattr(evt, name), handler) for name, handler in handlers.items()]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=bound)  # type: ignore[arg-type]
    assert server is not None
    try:
        yield peer(server.server_address[1], "OTHER")
    finally:
        server.shutdown()


def test_a_peer_without_verification_says_so() -> None:
    """An association without C-ECHO is told apart from no answer."""
    with other() as receiver, pytest.raises(scu.RejectedError, match="but no C-ECHO"):
        scu.echo(receiver, "SCU")


def test_a_rejection_is_said_in_the_fields_words(tmp_path: Path) -> None:
    """Who is rejected reads the numbers, what they mean, and where to look."""
    text = config(
        "reject_unknown_sources: true, max_associations: 1",
        more="""
sources:
  CT1: {ae_title: CT1, host: 127.0.0.1}
""",
    )
    with receiving(tmp_path, text) as adapter:
        for called, calling, message in (
            ("NOBODY", "CT1", r"\(1/1/7\): called AE title not recognized: .*no such AE title"),
            ("TEST", "CT2", r"\(1/1/3\): calling AE title not recognized: .*no source"),
        ):
            with pytest.raises(scu.RejectedError, match=message):
                scu.echo(peer(adapter.port, called), calling)
        with (
            association(adapter.port, calling="CT1"),
            pytest.raises(scu.RejectedError, match=r"\(2/3/2\): .*too many associations"),
        ):
            scu.echo(peer(adapter.port), "CT1")


def test_nobody_there_is_said_at_once(tmp_path: Path) -> None:
    """A closed port and a name that nobody has: one clear error each."""
    instances, _ = scu.find([saved(tmp_path / "ct")])
    with pytest.raises(UnavailableError, match="does not answer: check host, port and firewall"):
        scu.echo(peer(free_port()), "SCU")
    nobody = scu.Peer("TEST", "no-such-host.invalid", 104)
    with pytest.raises(UnavailableError, match="does not answer"):
        list(scu.send(nobody, "SCU", instances))
    # A socket that was left open would be complained of here.
    gc.collect()


@pytest.mark.parametrize("when", ["first", "second"])
def test_an_association_that_breaks_is_an_error_not_a_success(tmp_path: Path, when: str) -> None:
    """What was answered before is told; the rest is an error, and no file counts as sent."""
    answers = iter([False, True] if when == "second" else [True])
    aborted = threading.Event()

    def store(event: evt.Event) -> int:
        if next(answers):
            event.assoc.abort()
            aborted.set()
        return 0x0000

    instances, _ = scu.find([saved(tmp_path / name) for name in "123"])
    with other(EVT_C_STORE=store) as receiver:
        sending = scu.send(receiver, "SCU", instances)
        if when == "second":
            assert next(sending).problem == ""
        with pytest.raises(UnavailableError, match="broke the association off"):
            next(sending)
    assert aborted.is_set()


def test_what_is_sent_is_the_file_as_it_is(adapter: Receiving, tmp_path: Path) -> None:
    """Not one byte is decoded: even a data set that is broken at its end goes out as it is."""
    whole = saved(tmp_path / "whole")
    cut = tmp_path / "cut"
    cut.write_bytes(whole.read_bytes()[:-1001])
    instances, _ = scu.find([cut])
    (sent,) = scu.send(peer(adapter.port), "SCU", instances)
    if sent.problem:
        assert sent.problem.startswith("refused with 0xC000")
    else:
        assert adapter.stored()[0].path.read_bytes().endswith(cut.read_bytes()[-2000:])
