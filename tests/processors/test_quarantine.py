"""What no group can take is set aside, seen, and decided by a person; it never disappears."""

import io
from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_adapter.errors import NotFoundError
from dicom_adapter.model import InstanceState
from tests.processors.tools import (
    CommandLine,
    Submitted,
    config,
    decide,
    history,
    kept,
    quarantined,
    submitted,
    title,
    wait_quarantined,
    wait_submitted,
)
from tests.support import SUCCESS, ManualClock, Running, files_in, make_instance, running, send

BY_ACCESSION = config(title("TEST", group_by="AccessionNumber"))
BY_STUDY = config(title("TEST"))


def with_private(value: str | None) -> Dataset:
    """Return an instance with a private attribute (0099,1001)."""
    instance = make_instance()
    instance.add_new(0x00990010, "LO", "OURS")
    if value is not None:
        instance.add_new(0x00991001, "LO", value)
    return instance


def spool(folder: Path) -> list[Path]:
    """Return the files of the spool."""
    return files_in(folder / "data" / "spool")


def test_absent_and_empty_values_are_set_aside(tmp_path: Path) -> None:
    """Without a value to group by, absent, empty or blank, an instance is in no group at all."""
    text = config(
        title("PATIENT", group_by="patient"),
        title("ACCESSION", group_by="AccessionNumber"),
        title("PRIVATE", group_by="(0099,1001)"),
    )
    bad = {
        "PATIENT": [
            make_instance(patient=value, IssuerOfPatientID="X") for value in (None, "", "  ")
        ],
        "ACCESSION": [make_instance(AccessionNumber=v) for v in (None, "", "   ", ["", ""])],
        "PRIVATE": [with_private(value) for value in (None, "", "  ")],
    }
    attribute = {
        "PATIENT": "PatientID",
        "ACCESSION": "AccessionNumber",
        "PRIVATE": "(0099,1001)",
    }
    clock = ManualClock()
    with running(tmp_path, text, clock) as adapter:
        for name, instances in bad.items():
            assert set(send(adapter.port, instances, called=name)) == {SUCCESS}
        aside = wait_quarantined(adapter, 10)
        clock.advance(3600)
        assert adapter.groups() == []
        assert submitted(adapter) == []
        assert kept(adapter) == {"in quarantine": 10}
        assert adapter.service.status().attention == (
            "10 instances are in quarantine: see `quarantine list`",
        )
    for found in aside:
        name = found.instance.ae_title
        assert found.reason == (
            f"{attribute[name]}, by which {name} groups, is absent or empty: correct it at the "
            "sender and send again, or discard the instance"
        )


def test_values_that_are_no_key_are_set_aside(tmp_path: Path) -> None:
    """Two Patient IDs in one, or a value that is no text, are nobody's group."""
    text = config(title("PATIENT", group_by="patient"), title("PRIVATE", group_by="0099,1001"))
    sequence = with_private(None)
    sequence.add_new(0x00991001, "SQ", [Dataset()])
    with running(tmp_path, text, ManualClock()) as adapter:
        two = make_instance(patient=None)
        two.add_new("PatientID", "LO", ["A", "B"])
        assert send(adapter.port, [two], called="PATIENT") == [SUCCESS]
        assert send(adapter.port, [sequence], called="PRIVATE") == [SUCCESS]
        reasons = {found.instance.ae_title: found.reason for found in wait_quarantined(adapter, 2)}
        assert adapter.groups() == []
    assert "PatientID, by which PATIENT groups, has several values" in reasons["PATIENT"]
    assert (
        "has a value that cannot be used (TypeError: its representation is SQ)"
        in reasons["PRIVATE"]
    )


def test_other_instances_of_the_study_go_on(tmp_path: Path) -> None:
    """One instance that is set aside keeps no other from its group."""
    clock = ManualClock()
    instances = [make_instance(AccessionNumber=value) for value in ("A", "", "A")]
    with running(tmp_path, BY_ACCESSION, clock) as adapter:
        send(adapter.port, instances)
        adapter.grouped(2)
        wait_quarantined(adapter, 1)
        clock.advance(5)
        (job,) = wait_submitted(adapter, 1)
    assert len(job.instances) == 2


def test_the_list_shows_what_is_aside_and_why(tmp_path: Path, cli: CommandLine) -> None:
    """`quarantine list` shows each instance with its reason, and `show` prints the same row."""
    with running(tmp_path, BY_ACCESSION, ManualClock()) as adapter:
        send(adapter.port, [make_instance(AccessionNumber="")], calling="CT1")
        (found,) = wait_quarantined(adapter, 1)
        (row,) = cli(adapter, "quarantine", "list", "--json").rows
        assert cli(adapter, "quarantine", "show", found.instance.id, "--json").rows == [row]
        unknown = cli(adapter, "quarantine", "show", "nothing")
        table = cli(adapter, "quarantine", "list")
    assert (row["id"], row["calling_ae_title"]) == (found.instance.id, "CT1")
    assert row["reason"] == found.reason
    assert (unknown.code, unknown.out) == (1, "")
    assert "'nothing'" in unknown.err
    assert found.instance.id in table.out
    assert "AccessionNumber" in table.out


def test_retry_once_the_settings_allow_it(tmp_path: Path, cli: CommandLine) -> None:
    """After a restart with another `group_by`, a retry makes groups and jobs of what was aside."""
    clock = ManualClock()
    with running(tmp_path, BY_ACCESSION, clock) as adapter:
        send(adapter.port, [make_instance(AccessionNumber="") for _ in range(3)])
        aside = wait_quarantined(adapter, 3)
        assert cli(adapter, "quarantine", "retry", "--all").code == 0
        adapter.wait_for(lambda: len(history(adapter, aside[2].instance.id)) == 3)
        assert len(wait_quarantined(adapter, 3)) == 3
    with running(tmp_path, BY_STUDY, clock) as adapter:
        assert len(quarantined(adapter)) == 3
        assert cli(adapter, "quarantine", "retry", "--all").code == 0
        adapter.grouped(3)
        clock.advance(5)
        (job,) = wait_submitted(adapter, 1)
        assert quarantined(adapter) == []
        trail = history(adapter, aside[0].instance.id)
    assert len(job.instances) == 3
    assert [(event.action, event.actor) for event in trail] == [
        ("quarantine", "system"),
        ("retry", "local"),
        ("quarantine", "system"),
        ("retry", "local"),
    ]


def test_discard_asks_first(
    tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `--yes` a discard asks, and changes nothing where nobody says yes."""
    with running(tmp_path, BY_ACCESSION, ManualClock()) as adapter:
        send(adapter.port, [make_instance(AccessionNumber="")])
        (found,) = wait_quarantined(adapter, 1)
        monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
        answer = cli(adapter, "quarantine", "discard", found.instance.id)
        assert quarantined(adapter) == [found]
        assert len(history(adapter, found.instance.id)) == 1
    assert answer.code == 1
    assert "for good" in answer.out + answer.err


def test_discard_is_audited_and_the_file_goes(tmp_path: Path, cli: CommandLine) -> None:
    """A discarded instance leaves quarantine and spool at once, and the audit trail says who."""
    with running(tmp_path, BY_ACCESSION, ManualClock()) as adapter:
        send(adapter.port, [make_instance(AccessionNumber=""), make_instance(AccessionNumber="A")])
        (found,) = wait_quarantined(adapter, 1)
        adapter.grouped(1)
        assert len(spool(tmp_path)) == 2
        assert cli(adapter, "quarantine", "discard", found.instance.id, "--yes").code == 0
        adapter.wait_for(lambda: len(spool(tmp_path)) == 1)
        assert quarantined(adapter) == []
        event = history(adapter, found.instance.id)[-1]
    assert (event.action, event.actor) == ("discard", "local")
    assert (event.from_state, event.to_state) == (InstanceState.QUARANTINED, InstanceState.RELEASED)


def decided(adapter: Running) -> tuple[list[str], list[Submitted]]:
    """Return what is in quarantine and what was submitted."""
    return [found.instance.id for found in quarantined(adapter)], submitted(adapter)


@pytest.mark.parametrize(
    ("word", "method"), [("retry", "RetryQuarantine"), ("discard", "DiscardQuarantine")]
)
def test_an_unknown_id_changes_nothing(
    tmp_path: Path, cli: CommandLine, word: str, method: str
) -> None:
    """A decision that names one unknown id is refused as a whole; one named twice counts once."""
    yes = ["--yes"] if word == "discard" else []
    with running(tmp_path, BY_ACCESSION, ManualClock()) as adapter:
        send(adapter.port, [make_instance(AccessionNumber="")])
        (found,) = wait_quarantined(adapter, 1)
        before = decided(adapter)
        answer = cli(adapter, "quarantine", word, found.instance.id, "unknown", *yes)
        with pytest.raises(NotFoundError, match="no instance in quarantine has the id 'unknown'"):
            decide(adapter, method, found.instance.id, "unknown")
        assert decided(adapter) == before
        assert len(history(adapter, found.instance.id)) == 1
        decide(adapter, method, found.instance.id, found.instance.id)
    assert answer.code == 1
    assert "'unknown'" in answer.err
