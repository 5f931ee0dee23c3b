"""A PACS that misbehaves where it is asked, and where it is to send by C-MOVE."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import evt

from dicom_adapter.errors import DicomAdapterError, NotFoundError, UnavailableError
from dicom_adapter.retrieve import fetching, queries
from tests.receive.conftest import log
from tests.retrieve.conftest import Cache
from tests.retrieve.faulty import (
    FIND,
    GET,
    MOVE,
    REFUSED,
    SOON,
    STUDY,
    Pacs,
    answer,
    at_once,
    cache,
    found,
    hang_up,
    idle,
    impatient,
    is_silent,
    pacs,
    say,
    secret_study,
    serving,
    status,
    told,
    until,
)
from tests.support import association

__all__ = ["at_once", "cache", "idle", "impatient", "log", "pacs"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*for VR"),
    pytest.mark.filterwarnings("ignore:Unknown encoding"),
]


def test_where_nobody_listens_it_is_told_what_to_check(cache: Cache) -> None:
    """The address is told, and what it may be."""
    with told(UnavailableError, "MOVE", "FAULTY@127.0.0.1", "check host, port and firewall"):
        cache.fetch("MOVE", STUDY)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"require_calling_aet": ["X"]}, "calling AE title not recognized"),
        ({"require_called_aet": True, "ae_title": "OTHER"}, "called AE title not recognized"),
    ],
)
def test_a_rejected_association_is_told(
    cache: Cache, idle: Pacs, settings: dict[str, Any], words: str
) -> None:
    """With what the PACS does not know; it is not tried again."""
    with serving(idle, **settings), told(REFUSED, "MOVE", "CACHE", words):
        cache.find("MOVE", StudyInstanceUID=STUDY)


def test_a_pacs_that_is_busy_is_told_as_such(cache: Cache, idle: Pacs) -> None:
    """What it rejects for now may be asked again later."""
    with (
        serving(idle, maximum_associations=1),
        association(idle.port, "FAULTY"),
        told(UnavailableError, "MOVE", "try again later"),
    ):
        cache.find("MOVE", StudyInstanceUID=STUDY)


@pytest.mark.parametrize(
    ("services", "source", "words"),
    [
        ((MOVE, GET), "MOVE", "offers no C-FIND"),
        (
            (FIND, GET),
            "MOVE",
            "offers no C-MOVE of studies (Study Root) to CACHE: try retrieve: c-",
        ),
        ((FIND, MOVE), "GET", "offers no C-GET of studies (Study Root) to CACHE: try retrieve: c-"),
        ((), "MOVE", "offers no C-FIND"),
    ],
)
def test_a_service_that_it_does_not_offer_is_told(
    cache: Cache, idle: Pacs, services: tuple[str, ...], source: str, words: str
) -> None:
    """By its name, with what may help."""
    with serving(idle, services), told(REFUSED, source, words):
        cache.fetch(source, STUDY)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (0xA700, UnavailableError, "out of resources: try again later"),
        (0xA900, REFUSED, "too vague"),
        (0xC001, REFUSED, "too vague"),
        (0xFE00, UnavailableError, "cancelled there"),
    ],
)
def test_a_question_that_fails_is_told_with_its_reason(
    cache: Cache, pacs: Pacs, code: int, kind: type[DicomAdapterError], words: str
) -> None:
    """Its status, and what the PACS says of it."""
    pacs.find = lambda _: iter([(status(code, "too vague"), None)])
    with told(kind, "MOVE", "C-FIND", f"0x{code:04X}", words):
        cache.find("MOVE", PatientID="1")


def test_what_no_source_need_match_by_is_chosen_of_here(cache: Cache, pacs: Pacs) -> None:
    """A PACS that ignores a key answers with everything."""
    pacs.held += secret_study(StudyInstanceUID="1.2.9", StudyDescription="Knee")
    pacs.find = lambda event: ((0xFF00, answer(event.identifier, one)) for one in pacs.held)
    (one,) = cache.find("MOVE", PatientID="Secret1", StudyDescription="kn*")
    assert one.study_instance_uid == "1.2.9"


def test_series_of_another_study_are_not_fetched(cache: Cache, pacs: Pacs) -> None:
    """A PACS that ignores even the UIDs that it is asked by tells of other studies too."""
    others = secret_study(each=2, StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.1")
    held = [*pacs.held, *others]
    pacs.find = lambda event: ((0xFF00, answer(event.identifier, one)) for one in held)
    *_, last = cache.fetch("MOVE", STUDY)
    assert (last.series, last.wanted, last.fetched) == (1, 3, 3)


def test_answers_that_come_twice_or_name_nothing_are_passed_over(cache: Cache, pacs: Pacs) -> None:
    """Each is counted once; one without its UID, or with rubbish in its place, is none."""

    def rubbish(event: evt.Event) -> Iterator[Any]:
        level = {"SERIES": "SeriesInstanceUID"}.get(event.identifier.QueryRetrieveLevel)
        for one in pacs.held:
            told_of = answer(event.identifier, one)
            for _ in range(2):
                say(event, found(event, told_of))
            for uid in ("", "no UID", "1.2\\3.4", "1." + "2" * 80):
                setattr(told_of, level or "SOPInstanceUID", uid)
                say(event, found(event, told_of))
        say(event, found(event, Dataset()))
        yield 0x0000, None

    pacs.find = rubbish
    *_, last = cache.fetch("MOVE", STUDY)
    assert (last.series, last.wanted, last.fetched) == (1, 3, 3)


def test_an_instance_in_two_series_is_one(cache: Cache, pacs: Pacs) -> None:
    """As a broken device makes them: once it is here, nothing is missing."""
    (one,) = secret_study(each=1)
    other = deepcopy(one)
    other.SeriesInstanceUID = f"{STUDY}.2"
    pacs.held = [one, other]
    *_, last = cache.fetch("MOVE", STUDY)
    assert (last.series, last.wanted, last.fetched) == (2, 1, 1)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("ISO_IR 144", "Ёж^Юля"),
        ("ISO_IR 100", "Plain^Name"),
    ],
)
def test_names_of_any_script_are_read(
    cache: Cache, pacs: Pacs, charset: list[str] | str, name: str
) -> None:
    """What a PACS answers with has its own character set; one that nobody knows costs no answer."""

    def foreign(event: evt.Event) -> Iterator[Any]:
        one = Dataset()
        one.SpecificCharacterSet = charset
        one.StudyInstanceUID, one.PatientName = STUDY, name
        # What nobody has heard of is not written by pydicom either.
        say(event, found(event, one).replace(b"ISO_IR 100", b"NOSUCHONE!"))
        yield 0x0000, None

    pacs.find = foreign
    (one,) = cache.find("MOVE", StudyInstanceUID=STUDY)
    assert one.attributes["PatientName"] == name


def test_thousands_of_series_are_chosen_of(cache: Cache, pacs: Pacs) -> None:
    """So many answers are read, and one of them is fetched."""
    pacs.held = secret_study(SeriesInstanceUID=f"{STUDY}.11777")

    def many(event: evt.Event) -> Iterator[Any]:
        asked = event.identifier
        if asked.QueryRetrieveLevel == "SERIES":
            one = answer(asked, pacs.held[0])
            one.SeriesInstanceUID, one.SeriesDescription = f"{STUDY}.10000", "Secret 10000"
            written = found(event, one)
            for number in range(10_000, 12_000):
                say(event, written.replace(b"10000", b"%d" % number))
        else:
            yield from pacs.well_found(event)

    pacs.find = many
    *_, last = cache.fetch("MOVE", STUDY, SeriesDescription="secret 11777")
    assert (last.series, last.wanted, last.fetched) == (1, 3, 3)


def test_answers_without_end_are_broken_off(
    cache: Cache, pacs: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can choose of so many, and no memory holds all."""
    monkeypatch.setattr(queries, "MOST_ANSWERS", 50)

    def endless(event: evt.Event) -> Iterator[Any]:
        one = answer(event.identifier, pacs.held[0])
        one.StudyInstanceUID = f"{STUDY}.10000"
        written = found(event, one)
        for number in range(10_000, 99_999):
            if not event.assoc.is_established:
                break
            say(event, written.replace(b"10000", b"%d" % number))
        yield from is_silent(event)

    pacs.find = endless
    with told(REFUSED, "MOVE", "more than 50", "ask for less"):
        cache.find("MOVE", PatientID="1")
    until(pacs.is_alone, SOON)


def test_an_unknown_destination_is_told_with_its_cure(cache: Cache, pacs: Pacs) -> None:
    """The PACS has to know the AE title, its host and its port."""
    pacs.move = lambda _: iter([1, (status(0xA801, "unknown"), None)])
    with told(REFUSED, "MOVE", "0xA801", "CACHE", "host and port of this service", "c-get"):
        cache.fetch("MOVE", STUDY)
    assert len(pacs.identifiers("C-MOVE", "SERIES")) == 1


def test_a_pacs_out_of_resources_is_asked_again(cache: Cache, pacs: Pacs) -> None:
    """What it cannot do now it can a moment later."""

    def refuse_twice(_event: evt.Event) -> Iterator[Any]:
        pacs.move = refuse_twice if len(pacs.identifiers("C-MOVE", "SERIES")) < 2 else None
        yield 1
        yield status(0xA702, "full"), None

    pacs.move = refuse_twice
    told_on_the_way = cache.fetch("MOVE", STUDY)
    assert told_on_the_way[-1].fetched == 3
    assert sum("out of resources" in one.note for one in told_on_the_way) == 2


def test_a_pacs_that_stays_out_of_resources_is_told(cache: Cache, pacs: Pacs) -> None:
    """After a few attempts, with its status."""
    pacs.move = lambda _: iter([1, (status(0xA702, "full"), None)])
    with told(UnavailableError, "MOVE", "0xA702", "try again later"):
        cache.fetch("MOVE", STUDY)
    assert len(pacs.identifiers("C-MOVE", "SERIES")) == fetching.ATTEMPTS


def test_only_what_failed_is_asked_for_again(cache: Cache, pacs: Pacs) -> None:
    """A C-MOVE that ends with a warning has left some out: those alone are asked for by UID."""

    def fail_one(_event: evt.Event) -> Iterator[Any]:
        pacs.move = None
        broken = deepcopy(pacs.held[1])
        broken.SOPClassUID = "1.2.3"
        yield 3
        yield from ((0xFF00, one) for one in (pacs.held[0], broken, pacs.held[2]))

    pacs.move = fail_one
    *_, last = cache.fetch("MOVE", STUDY)
    assert last.fetched == 3
    (again,) = pacs.identifiers("C-MOVE", "IMAGE")
    assert again.SOPInstanceUID == pacs.held[1].SOPInstanceUID


def test_what_the_pacs_cannot_send_is_told_by_number(cache: Cache, pacs: Pacs) -> None:
    """How many of how many, whose fault it is, and what to check."""
    broken = deepcopy(pacs.held[1])
    broken.SOPClassUID = "1.2.3"

    def fail(_event: evt.Event) -> Iterator[Any]:
        yield 3
        yield from ((0xFF00, one) for one in (pacs.held[0], broken, broken))

    pacs.move = fail
    words = ("2 of 3 instances did not come", "failed to send it", "AE title CACHE", "(2x)")
    with told(UnavailableError, "MOVE", *words):
        cache.fetch("MOVE", STUDY)


def test_success_without_an_instance_is_told(cache: Cache, pacs: Pacs) -> None:
    """It is not believed: what counts is what has come."""
    pacs.move = lambda _: iter([0])
    with told(UnavailableError, "3 of 3 instances did not come from MOVE", "sent nothing", "CACHE"):
        cache.fetch("MOVE", STUDY)


@pytest.mark.parametrize("how", ["abort", "hang up"])
def test_what_breaks_off_goes_on_in_a_new_association(cache: Cache, pacs: Pacs, how: str) -> None:
    """A C-MOVE in the middle of which the PACS goes away is asked for again, without what came."""

    def break_off(event: evt.Event) -> Iterator[Any]:
        pacs.move = None
        yield 3
        yield 0xFF00, pacs.held[0]
        event.assoc.abort() if how == "abort" else hang_up(event)

    pacs.move = break_off
    *_, last = cache.fetch("MOVE", STUDY)
    assert last.fetched == 3
    (again,) = pacs.identifiers("C-MOVE", "IMAGE")
    assert pacs.held[0].SOPInstanceUID not in again.SOPInstanceUID


def test_nothing_is_found_is_told_of_whom(cache: Cache, pacs: Pacs) -> None:
    """The source is named."""
    pacs.held = []
    with told(NotFoundError, "MOVE", "no series"):
        cache.fetch("MOVE", STUDY)
