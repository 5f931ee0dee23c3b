"""What people see and decide of groups that are open or parked."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_adapter import InstanceGroup, JobProcessorBase, StoredInstance
from dicom_adapter.errors import NotFoundError
from dicom_adapter.model import GroupState, GroupSummary
from tests.processors.scripted import CONFIG, Script, by_study, deliver
from tests.processors.tools import (
    CommandLine,
    config,
    decide,
    history,
    kept,
    submitted,
    title,
    wait_submitted,
)
from tests.support import PATIENCE, ManualClock, Running, make_instance, running, send

WAITING = config(title("TEST", timeout="1h"), title("OTHER", timeout="1h"))


def open_groups(adapter: Running, *studies: str) -> dict[str, GroupSummary]:
    """Send an instance of each study to TEST, and return the groups by their study."""
    send(adapter.port, [make_instance(study=study) for study in studies])
    return {group.key: group for group in adapter.grouped(len(studies))}


def fail(processor: JobProcessorBase, group: InstanceGroup) -> None:
    """Raise."""
    del processor, group
    raise RuntimeError("no room")


def park(adapter: Running, clock: ManualClock) -> GroupSummary:
    """Wait until the one group has been tried five times."""
    for pause in (5, 1, 2, 4, 8):
        clock.advance(pause)
        adapter.wait_for(lambda: [g for g in adapter.groups() if g.ready_at > clock.now()])
    (group,) = adapter.wait_for(
        lambda: [group for group in adapter.groups() if group.state == GroupState.PARKED]
    )
    return group


def test_the_list_shows_what_is_being_grouped(tmp_path: Path, cli: CommandLine) -> None:
    """`groups list` shows key, size, age and deadline of each open group, a line each."""
    clock = ManualClock()
    with running(tmp_path, WAITING, clock) as adapter:
        assert cli(adapter, "groups", "list", "--json").out == ""
        groups = open_groups(adapter, "1.1", "1.2")
        rows = cli(adapter, "groups", "list", "--json").rows
        table = cli(adapter, "groups", "list")
    assert [row["key"] for row in rows] == ["1.1", "1.2"]
    assert rows[0]["id"] == groups["1.1"].id
    assert (rows[0]["ae_title"], rows[0]["state"], rows[0]["instances"]) == ("TEST", "open", 1)
    assert rows[0]["size"] > 0
    assert rows[0]["last_instance_at"] == "2026-01-02T03:04:05Z"
    assert rows[0]["ready_at"] == "2026-01-02T04:04:05Z"
    assert all(group.id in table.out for group in groups.values())


def test_complete_makes_a_group_due_now(tmp_path: Path, cli: CommandLine) -> None:
    """A completed group is handed over at once, the others wait on; the audit trail says who."""
    with running(tmp_path, WAITING, ManualClock()) as adapter:
        groups = open_groups(adapter, "1.1", "1.2")
        assert cli(adapter, "groups", "complete", groups["1.2"].id).code == 0
        (job,) = wait_submitted(adapter, 1)
        assert [group.key for group in adapter.groups()] == ["1.1"]
        trail = history(adapter, groups["1.2"].id)
    assert {i.study_instance_uid for i in job.instances} == {"1.2"}
    assert [(event.action, event.actor) for event in trail] == [
        ("complete", "local"),
        ("dispatch", "system"),
    ]


def test_complete_all(tmp_path: Path, cli: CommandLine) -> None:
    """`--all` completes every group of every AE title; without any it is no mistake."""
    with running(tmp_path, WAITING, ManualClock()) as adapter:
        assert cli(adapter, "groups", "complete", "--all").code == 0
        send(adapter.port, [make_instance()], called="OTHER")
        adapter.grouped(1)
        send(adapter.port, [make_instance(study=study) for study in ("1.1", "1.2")])
        adapter.grouped(3)
        assert cli(adapter, "groups", "complete", "--all").code == 0
        wait_submitted(adapter, 3)
        adapter.wait_for(lambda: not adapter.groups())


@pytest.mark.parametrize(
    ("word", "method"), [("complete", "CompleteGroups"), ("discard", "DiscardGroups")]
)
def test_an_unknown_id_changes_nothing(
    tmp_path: Path, cli: CommandLine, word: str, method: str
) -> None:
    """A decision that names one unknown id is refused as a whole; one named twice counts once."""
    yes = ["--yes"] if word == "discard" else []
    with running(tmp_path, WAITING, ManualClock()) as adapter:
        group = open_groups(adapter, "1.1")["1.1"]
        answer = cli(adapter, "groups", word, group.id, "unknown", *yes)
        with pytest.raises(NotFoundError, match="no open or parked group has the id 'unknown'"):
            decide(adapter, method, group.id, "unknown")
        assert adapter.groups() == [group]
        assert history(adapter, group.id) == []
        decide(adapter, method, group.id, group.id)
    assert answer.code == 1
    assert "'unknown'" in answer.err


def test_discard_drops_the_instances(tmp_path: Path, cli: CommandLine) -> None:
    """A discarded group makes no job, its files go, and the audit trail says who."""
    clock = ManualClock()
    with running(tmp_path, WAITING, clock) as adapter:
        groups = open_groups(adapter, "1.1", "1.2")
        assert cli(adapter, "groups", "discard", groups["1.1"].id, "--yes").code == 0
        adapter.wait_for(lambda: kept(adapter) == {"in an open group": 1})
        clock.advance(3600)
        (job,) = wait_submitted(adapter, 1)
        trail = history(adapter, groups["1.1"].id)
    assert {i.study_instance_uid for i in job.instances} == {"1.2"}
    assert [(event.action, event.actor, event.to_state) for event in trail] == [
        ("discard", "local", "discarded")
    ]


def test_an_instance_that_waits_does_not_undo_a_complete(
    tmp_path: Path, script: Script, cli: CommandLine
) -> None:
    """What came before `complete` and is handled after it joins the group and defers nothing."""
    at_work, go_on = threading.Event(), threading.Event()

    def hold(processor: JobProcessorBase, instance: StoredInstance) -> None:
        at_work.set()
        assert go_on.wait(PATIENCE)
        by_study(processor, instance)

    with running(tmp_path, CONFIG, ManualClock()) as adapter:
        group = open_groups(adapter, "1.1")["1.1"]
        script.on_instance = hold
        send(adapter.port, [make_instance(study="1.1")])
        assert at_work.wait(PATIENCE)
        assert cli(adapter, "groups", "complete", group.id).code == 0
        go_on.set()
        (job,) = wait_submitted(adapter, 1)
    assert len(job.instances) == 2


def test_a_parked_group_can_be_completed_again(
    tmp_path: Path, script: Script, cli: CommandLine
) -> None:
    """`complete` hands a parked group to its processor again, with five new attempts."""
    script.on_group = fail
    clock = ManualClock()
    with running(tmp_path, CONFIG, clock) as adapter:
        open_groups(adapter, "1.1")
        group = park(adapter, clock)
        assert group.error == "RuntimeError: no room"
        assert group.attempts == 5
        assert kept(adapter) == {"in a parked group": 1}
        (row,) = cli(adapter, "groups", "list", "--json").rows
        assert (row["state"], row["error"]) == ("parked", "RuntimeError: no room")
        script.on_group = deliver
        assert cli(adapter, "groups", "complete", group.id).code == 0
        wait_submitted(adapter, 1)
        adapter.wait_for(lambda: not adapter.groups())
        trail = history(adapter, group.id)
    assert [(event.action, event.from_state) for event in trail] == [
        ("park", "open"),
        ("complete", "parked"),
        ("dispatch", "open"),
    ]


def test_what_comes_while_a_group_is_parked_is_completed_with_it(
    tmp_path: Path, script: Script, cli: CommandLine
) -> None:
    """A parked group takes no more instances; completed, it and what came since are one group."""
    script.on_group = fail
    clock = ManualClock()
    with running(tmp_path, CONFIG, clock) as adapter:
        open_groups(adapter, "1.1")
        group = park(adapter, clock)
        send(adapter.port, [make_instance(study="1.1")])
        adapter.wait_for(lambda: len(adapter.groups()) == 2)
        script.on_group = deliver
        assert cli(adapter, "groups", "complete", group.id).code == 0
        (job,) = wait_submitted(adapter, 1)
        adapter.wait_for(lambda: not adapter.groups())
    assert len(job.instances) == 2


@pytest.mark.parametrize("outcome", [deliver, fail], ids=["returns", "raises"])
def test_a_discard_during_the_call_counts(
    tmp_path: Path,
    script: Script,
    cli: CommandLine,
    outcome: Callable[[JobProcessorBase, InstanceGroup], None],
) -> None:
    """A group discarded while its processor works on it makes no job, however the call ends."""
    at_work, go_on = threading.Event(), threading.Event()

    def hold(processor: JobProcessorBase, group: InstanceGroup) -> None:
        at_work.set()
        assert go_on.wait(PATIENCE)
        outcome(processor, group)

    script.on_group = hold
    clock = ManualClock()
    with running(tmp_path, CONFIG, clock) as adapter:
        group = open_groups(adapter, "1.1")["1.1"]
        clock.advance(5)
        assert at_work.wait(PATIENCE)
        assert cli(adapter, "groups", "discard", group.id, "--yes").code == 0
        go_on.set()
        # Handled in the same thread, so after the end of the call.
        send(adapter.port, [make_instance(study="1.2")])
        adapter.grouped(1)
        script.on_group = deliver
        clock.advance(3600)
        (job,) = wait_submitted(adapter, 1)
        trail = history(adapter, group.id)
        assert submitted(adapter) == [job]
    assert {i.study_instance_uid for i in job.instances} == {"1.2"}
    assert [event.action for event in trail] == ["discard"]
    assert script.calls.count("group") == 2
