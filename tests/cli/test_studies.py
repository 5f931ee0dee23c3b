"""`studies`, `series` and `compose`, typed as people type them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_adapter.addresses import socket_address
from dicom_adapter.rpc.client import Client
from tests.cli.conftest import Command
from tests.compose.conftest import CONFIG, Cache, series_of
from tests.support import running


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    """Return a cache that keeps two studies: CT in two series, and MR."""
    monkeypatch.chdir(tmp_path)
    with (
        running(tmp_path, CONFIG) as here,
        Client(socket_address(here.service.settings)) as client,
    ):
        cache = Cache(here, client)
        cache.keep(
            [
                *series_of("1.2.3.1", [1, 2, 3, 7], patient="P1", SeriesDescription="Lung"),
                *series_of("1.2.3.2", [1, 2], patient="P1"),
                *series_of("1.2.4.1", [1], patient="P2", study="1.2.4", Modality="MR"),
            ]
        )
        yield cache


def rows(text: str) -> list[dict[str, Any]]:
    """Return the objects of JSON Lines."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.usefixtures("kept")
def test_studies_and_series_are_found_and_shown(cli: Command) -> None:
    """As tables, and as JSON in which a row of the list is what `show` prints."""
    table = cli("studies", "list")
    assert table.code == 0
    # Of several values, as people write them.
    assert "[" not in table.out
    assert [line.split()[0] for line in table.out.splitlines()[1:]] == ["P2", "P1"]
    (found,) = rows(cli("studies", "list", "PatientID=P1*", "Modality=CT", "--json").out)
    assert found["study_instance_uid"] == "1.2.3"
    assert found["attributes"]["PatientID"] == "P1"
    assert rows(cli("studies", "show", "1.2.3", "--json").out) == [found]
    shown = cli("studies", "show", "1.2.3").out
    assert "1.2.3.1" in shown
    assert "1.2.3.2" in shown
    both = rows(cli("series", "list", "StudyInstanceUID=1.2.3", "--json").out)
    assert [one["series_instance_uid"] for one in both] == ["1.2.3.2", "1.2.3.1"]
    assert rows(cli("series", "show", "1.2.3.1", "--json").out) == [both[1]]
    assert rows(cli("series", "show", "1.2.3/1.2.3.1", "--json").out) == [both[1]]
    assert "Lung" in cli("series", "show", "1.2.3.1").out
    instances = rows(cli("series", "instances", "1.2.3.1", "--json").out)
    numbers = [one["instance_number"] for one in instances]
    assert numbers == [1, 2, 3, 7]
    assert len(cli("series", "list", "--limit", "1").out.splitlines()) == 2


@pytest.mark.usefixtures("kept")
def test_r2_ranges_are_typed_with_negative_deltas(cli: Command) -> None:
    """`UID:3:1:-1`, each series with its own, in their order."""
    words = ("--series", "1.2.3.1:3:1:-1", "--series", "1.2.3.2", "--name", "mine", "--json")
    (job,) = rows(cli("compose", "other", *words).out)
    (item,) = job["items"]
    assert [(one["series_instance_uid"], one["range"]) for one in item["inputs"]] == [
        ("1.2.3.1", "3:1:-1"),
        ("1.2.3.2", "auto"),
    ]
    assert (job["name"], job["instances"]) == ("mine", 5)


def test_a_preview_shows_what_a_job_would_get(cli: Command, kept: Cache) -> None:
    """And what keeps it from being made, with exit 1."""
    good = cli("compose", "other", "--series", "1.2.3.1", "--preview")
    assert good.code == 0
    assert "1 ... 3" in good.out
    assert "left out, since they do not follow on: 7" in good.out
    bad = cli("compose", "other", "--series", "1.2.3.1:1:7:3", "--preview")
    assert bad.code == 1
    assert "there is no instance 4" in bad.out
    (told,) = rows(cli("compose", "other", "--study", "1.2.3", "--preview", "--json").out)
    (item,) = told["items"]
    assert [len(one["instances"]) for one in item["series"]] == [4, 2]
    assert kept.here.jobs() == []


def test_s19_s22_a_duplicate_is_refused_and_forced(cli: Command, kept: Cache) -> None:
    """The refusal names the job and the cure."""
    first = rows(cli("compose", "wait", "--series", "1.2.3.1", "--json").out)[0]
    refused = cli("compose", "wait", "--series", "1.2.3.1")
    assert refused.code == 1
    assert str(first["id"]) in refused.err
    assert "--force" in refused.err
    forced = cli("compose", "wait", "--series", "1.2.3.1", "--force")
    assert forced.code == 0
    assert len(kept.here.jobs()) == 2


@pytest.mark.usefixtures("kept")
def test_each_is_an_item_of_its_own(cli: Command) -> None:
    """Also of several patients."""
    words = ("--series", "1.2.3.2", "--study", "1.2.4", "--each", "--json")
    (job,) = rows(cli("compose", "other", *words).out)
    assert [len(one["inputs"]) for one in job["items"]] == [1, 1]


def test_release_lets_go_and_tells_how_much(cli: Command, kept: Cache) -> None:
    """Asked for by --yes where nobody is there to ask."""
    unasked = cli("studies", "release", "1.2.3")
    assert unasked.code == 1
    assert "--yes" in unasked.err
    assert cli("studies", "release", "1.2.3", "--yes").out == "6 instances let go.\n"
    assert [one.study_instance_uid for one in kept.studies()] == ["1.2.4"]
    assert cli("studies", "release", "1.2.3", "--yes").code == 1


@pytest.mark.usefixtures("kept")
def test_a_series_is_drawn_to_a_file(cli: Command, tmp_path: Path) -> None:
    """As a montage, or one of its instances."""
    file = tmp_path / "out.png"
    assert cli("series", "preview", "1.2.3.1", "-o", str(file)).out == f"{file}\n"
    assert file.read_bytes().startswith(b"\x89PNG")
    first = rows(cli("series", "instances", "1.2.3.1", "--json").out)[0]["id"]
    words = ("1.2.3.1", "-o", str(file), "--instance", first, "--longest", "32")
    assert cli("series", "preview", *words).code == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    lost = cli("series", "preview", "1.2.3.1", "-o", str(tmp_path / "no" / "out.png"))
    assert (lost.code, "No such file or directory: name another file" in lost.err) == (1, True)


WRONG = (
    ("studies list PatientID", "'PatientID' has no value: write it as 'PatientID=123*'"),
    ("studies list PatientNam=X", "did you mean PatientName?"),
    ("studies show 9.9", "nothing is kept of the study 9.9: have it sent first"),
    ("series show 9.9", "nothing is kept of the series 9.9: have it sent first"),
    ("compose other", "name a series, or a study with --study"),
    ("compose other --series 9.9", "nothing is kept of the series 9.9"),
    ("compose other --series 1.2.3", "1.2.3 is no series but a study: name one of its series"),
    ("compose other --study 1.2.3.1", "1.2.3.1 is no study but a series: name it as one"),
    ("studies find --from PACS", "name what is looked for, as 'PatientID=123*'"),
    ("studies fetch --from PACS", "name what is looked for, as 'PatientID=123*'"),
    ("compose nothing --series 1.2.3.2", "nothing"),
    ("compose other --series 1.2.3.2:1:2:0", "never gets on"),
    ("compose other --series 1.2.3.2 --argument x", "must be NAME=VALUE, not 'x'"),
    ("compose other --series 1.2.3.2 --argument a=1 --argument a=2", "a is given twice"),
    ("compose other --series 1.2.3.2 --priority high", "must be one of lower, normal"),
    ("studies release --yes", "name a study, or a series with --series"),
)


def test_what_cannot_be_is_told(cli: Command, kept: Cache) -> None:
    """In one line, and nothing is made."""
    for words, told in WRONG:
        answer = cli(*words.split())
        assert answer.code in {1, 2}, words
        assert (answer.code == 2) == ("--help" in answer.err), words
        assert told in answer.err, words
        assert len(answer.err.splitlines()) == 1, words
    assert kept.here.jobs() == []


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("words", ["studies list", "compose other --series"])
def test_a_word_in_another_encoding_is_told(cli: Command, words: str) -> None:
    """What a terminal in Latin-1 sends is a wrong word, not a fault of ours; nor is it quoted."""
    answer = cli(*words.split(), os.fsdecode(b"PatientName=M\xfcller"))
    assert answer.code == 2
    assert answer.err == "dicom-adapter: a word is not in UTF-8: see the terminal's locale\n"
