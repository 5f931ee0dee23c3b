"""`studies find` and `studies fetch`, as people type them, against a real Orthanc."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Command, cli
from tests.cli.shell import Answer
from tests.orthanc import Orthanc
from tests.receive.conftest import log
from tests.receive.support import free_port
from tests.retrieve.conftest import CONFIG, WAYS, Cache, Ports, Runs, study_of

# What the service logs would stand among what commands print.
pytestmark = [pytest.mark.orthanc, pytest.mark.usefixtures("log")]
STUDY, OTHER = "1.2.826.31", "1.2.826.32"
__all__ = ["cli", "log"]
Says = Callable[..., Answer]


@pytest.fixture(autouse=True, scope="module")
def stored(pacs: Orthanc) -> None:
    """Have two studies in the PACS."""
    pacs.store(study_of(STUDY, patient="P31", StudyDescription="Thorax"))
    pacs.store(study_of(OTHER, series=1, patient="P32"))


@pytest.fixture
def says(cache: Cache, cli: Command) -> Says:
    """Return what runs a command beside the running cache."""
    file = Path(cache.here.service.settings.file)
    return lambda *words: cli(*words, "--config", file.name, folder=file.parent)


def test_what_a_source_has_is_listed(says: Says) -> None:
    """A table for people, objects for programs, with what is kept of each here."""
    found = says("studies", "find", "--from", "MOVE", "PatientID=P3*")
    assert found.code == 0, found.err
    head, *rows = found.out.splitlines()
    assert head.split()[:2] == ["PatientID", "PatientName"]
    assert {row.split()[0] for row in rows} == {"P31", "P32"}
    found = says("studies", "find", "--from", "WEB", f"StudyInstanceUID={STUDY}", "--json")
    (row,) = map(json.loads, found.out.splitlines())
    assert (row["study_instance_uid"], row["instances"], row["kept"]) == (STUDY, 6, 0)
    assert row["attributes"]["StudyDescription"] == "Thorax"
    nothing = says("studies", "find", "--from", "MOVE", "PatientID=nobody")
    assert (nothing.code, nothing.out) == (0, "MOVE has no study that matches.\n")


def test_studies_are_fetched_and_told(says: Says, cache: Cache) -> None:
    """A line for each study; what was here before is told, and not fetched again."""
    done = says("studies", "fetch", "--from", "GET", "PatientID=P3*")
    assert done.code == 0, done.err
    assert sorted(done.out.splitlines()) == [
        f"{STUDY}: 6 instances of 2 series fetched",
        f"{OTHER}: 3 instances of 1 series fetched",
    ]
    again = says("studies", "fetch", "--from", "WEB", "--into", "CACHE", "PatientID=P31")
    assert again.out == (
        f"{STUDY}: nothing fetched: all of it (6 instances of 2 series) was here before\n"
    )
    told = says("studies", "fetch", "--from", "MOVE", "PatientID=P31", "--json")
    assert json.loads(told.out) == {
        "study_instance_uid": STUDY,
        "series": 2,
        "wanted": 6,
        "left_out": 0,
        "before": 6,
        "fetched": 0,
    }
    cache.here.wait_for(lambda: cache.indexed() == 9)
    listed = says("studies", "list", "StudyDescription=thorax", "--json")
    assert json.loads(listed.out)["instances"] == 6


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--from NOWHERE PatientID=P31", "to be asked for studies: known are MOVE, GET, WEB"),
        ("--from MUTE PatientID=P31", "the source MUTE has no port to be asked at: give it one"),
        ("--from MOVE PatientID=*", "name at least one of studies, such as"),
        ("--from MOVE SOPClassUID=1.2", "no source is asked by SOPClassUID"),
        ("--from MOVE PatientSize=2", "nothing is searched by 'PatientSize'"),
        ("--from MOVE PatientID", "'PatientID' has no value: write it as 'PatientID=123*'"),
        ("--from MOVE PatientID=nobody", "MOVE has no study that matches"),
        ("--from MOVE PatientID=P31 SeriesInstanceUID=1.2",
         f"MOVE has no such series of the study {STUDY}"),
        ("--from MOVE PatientID=P31 Laterality=L", "MOVE tells the Laterality of nothing that it"),
        ("--from MOVE PatientID=P31 --into OTHER",
         "'OTHER' that keeps what it gets: those that keep what they get are CACHE"),
    ],
)  # fmt: skip
def test_what_cannot_be_fetched_is_told(says: Says, words: str, told: str) -> None:
    """In one line that names what is wrong, with exit code 1 or 2, and nothing is kept."""
    done = says("studies", "fetch", *words.split())
    assert done.code in (1, 2)
    assert told in done.err
    assert len(done.err.splitlines()) == 1
    assert not done.out


def test_many_studies_are_asked_about(says: Says, pacs: Orthanc, cache: Cache) -> None:
    """Where too little was asked, nobody gets the whole archive without meaning it."""
    pacs.store([one for n in range(11) for one in study_of(f"1.2.826.40.{n}", 1, 1, patient="P40")])
    done = says("studies", "fetch", "--from", "MOVE", "PatientID=P40")
    assert done.code == 1
    assert "11 studies would be fetched, and nobody is there to ask" in done.err
    assert not cache.files()
    done = says("studies", "fetch", "--from", "MOVE", "PatientID=P40", "--yes")
    assert (done.code, len(done.out.splitlines())) == (0, 11)
    assert len(cache.files()) == 11


def test_doctor_asks_each_source(cache_at: Runs, cli: Command, pacs: Orthanc, ports: Ports) -> None:
    """By the running service, for nobody's study; where one is silent, what to do is told."""
    away = f"  AWAY: {{ae_title: GONE, host: 127.0.0.1, port: {free_port()}}}\n"
    config = CONFIG.format(
        port=ports.adapter, http=ports.http, dicom=ports.dicom, processes=1, accepted="null"
    )
    with cache_at(config + away) as cache:
        file = Path(cache.here.service.settings.file)
        later = f"  LATER: {{ae_title: ORTHANC, host: 127.0.0.1, port: {pacs.dicom}}}\n"
        file.write_text(config + away + later)
        done = cli("doctor", "--json", "--config", file.name, folder=file.parent)
        asked = ("studies", "find", "--from", "AWAY", "PatientID=P31")
        down = cli(*asked, "--config", file.name, folder=file.parent)
    told = [json.loads(line) for line in done.out.splitlines()]
    found = {one["subject"]: one for one in told if one["subject"].startswith("source ")}
    assert found.keys() == {f"source {name}" for name in (*WAYS, "AWAY", "LATER")}
    assert {found[f"source {name}"]["verdict"] for name in WAYS} == {"good"}
    gone = found["source AWAY"]
    assert gone["verdict"] == "look"
    assert gone["found"].startswith("AWAY: GONE@127.0.0.1:")
    assert "does not answer: check host, port" in gone["found"]
    assert gone["cure"].startswith("start it, or correct sources.AWAY")
    assert found["source LATER"]["cure"].endswith("dicom-adapter reload")
    assert done.code == 0
    # The service is there: what it says of a source stands alone.
    assert (down.code, down.err) == (1, f"dicom-adapter: {gone['found']}\n")
