"""D23: what becomes of calls that raise, and of what they asked for."""

import sys
from collections.abc import MutableMapping
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dicom_adapter import InstanceGroup, JobProcessorBase, Priority, StoredInstance
from dicom_adapter.errors import InvalidArgumentError
from dicom_adapter.ledger import instances
from dicom_adapter.model import GroupState
from tests.processors.scripted import CONFIG, SCRIPTS, Script, by_study, deliver
from tests.processors.tools import (
    kept,
    quarantined,
    submitted,
    wait_quarantined,
    wait_submitted,
)
from tests.support import (
    ManualClock,
    Running,
    make_instance,
    running,
    send,
)

Logs = list[MutableMapping[str, Any]]
PATIENT = "DOE^JANE"
PAUSES = (1, 2, 4, 8)


def waiting(adapter: Running, at: timedelta) -> list[int]:
    """Return the attempts of the instances that wait for another, when it is due then."""
    clock = adapter.service.clock
    with adapter.service.ledger.read() as tx:
        if instances.next_ready(tx, "TEST") != clock.now() + at:
            return []
        found = instances.received(tx, "TEST", clock.now() + at, 10, Path)
    return [attempts for _, attempts in found]


def test_an_instance_on_which_it_raises_five_times_is_set_aside(
    tmp_path: Path, script: Script, logs: Logs
) -> None:
    """An instance is tried five times, with growing pauses, then it is in quarantine."""
    clock = ManualClock()
    times = []

    def fail(_processor: JobProcessorBase, _instance: StoredInstance) -> None:
        times.append(clock.now())
        raise ValueError(f"cannot read\n{PATIENT}")

    script.on_instance = fail
    with running(tmp_path, CONFIG, clock) as adapter:
        send(adapter.port, [make_instance()])
        for attempt, pause in enumerate(PAUSES, start=1):
            due = timedelta(seconds=pause)
            assert adapter.wait_for(lambda due=due: waiting(adapter, due)) == [attempt]  # type: ignore[misc]
            clock.advance(pause)
        (found,) = wait_quarantined(adapter, 1)
        clock.advance(3600)
        assert quarantined(adapter) == [found]
    assert [(b - a).total_seconds() for a, b in pairwise(times)] == list(PAUSES)
    assert found.attempts == 5
    assert found.reason == f"the job processor failed on it: ValueError: cannot read {PATIENT}"
    told = [entry for entry in logs if entry.get("action") == "processor.instance_failed"]
    assert [entry["attempt"] for entry in told] == [1, 2, 3, 4, 5]
    assert {entry["error"] for entry in told} == {"ValueError"}
    assert all(Path(__file__).name in entry["at"] for entry in told)
    assert PATIENT not in str(logs)


def test_a_group_on_which_it_raises_five_times_is_parked(
    tmp_path: Path, script: Script, logs: Logs
) -> None:
    """A group is tried five times, with growing pauses, then it is parked with its instances."""
    clock = ManualClock()
    times = []

    def fail(_processor: JobProcessorBase, _group: InstanceGroup) -> None:
        times.append(clock.now())
        raise KeyError(PATIENT)

    script.on_group = fail
    with running(tmp_path, CONFIG, clock) as adapter:
        send(adapter.port, [make_instance()])
        adapter.grouped(1)
        for attempt, pause in enumerate((5, *PAUSES)):
            clock.advance(pause)
            adapter.wait_for(
                lambda n=attempt: [g for g in adapter.groups() if g.attempts == n + 1]  # type: ignore[misc]
            )
        (group,) = adapter.groups()
        clock.advance(3600)
        assert adapter.groups() == [group]
        assert kept(adapter) == {"in a parked group": 1}
        assert adapter.service.status().attention == ("1 group is parked: see `groups list`",)
    assert [(b - a).total_seconds() for a, b in pairwise(times)] == list(PAUSES)
    assert (group.state, group.error) == (GroupState.PARKED, f"KeyError: '{PATIENT}'")
    assert [entry["action"] for entry in logs if entry["log_level"] == "error"] == [
        *["processor.group_failed"] * 5,
        "group.parked",
    ]
    assert PATIENT not in str(logs)


def test_an_instance_that_joins_a_group_in_trouble_hurries_nothing(
    tmp_path: Path, script: Script
) -> None:
    """What joins a group whose call is to be repeated is not left out, nor shortens the pause."""
    clock = ManualClock()

    def fail(_processor: JobProcessorBase, _group: InstanceGroup) -> None:
        raise RuntimeError

    def capped(processor: JobProcessorBase, instance: StoredInstance) -> None:
        processor.group(instance, "all", after=5, max_wait=5)

    script.on_group, script.on_instance = fail, capped
    with running(tmp_path, CONFIG, clock) as adapter:
        send(adapter.port, [make_instance()])
        adapter.grouped(1)
        for attempt, pause in ((1, 5), (2, 1), (3, 2)):
            clock.advance(pause)
            adapter.wait_for(lambda n=attempt: [g for g in adapter.groups() if g.attempts == n])  # type: ignore[misc]
        send(adapter.port, [make_instance()])
        (group,) = adapter.grouped(2)
        assert group.ready_at == clock.now() + timedelta(seconds=4)
        script.on_group = deliver
        clock.advance(4)
        (job,) = wait_submitted(adapter, 1)
    assert len(job.instances) == 2


def test_sys_exit_in_a_call_is_a_failure_like_any_other(tmp_path: Path, script: Script) -> None:
    """A call that wants to end the process ends itself alone; the AE title goes on."""
    clock = ManualClock()

    def leave(_processor: JobProcessorBase, _instance: StoredInstance) -> None:
        sys.exit(3)

    script.on_instance = leave
    with running(tmp_path, CONFIG, clock) as adapter:
        send(adapter.port, [make_instance()])
        assert adapter.wait_for(lambda: waiting(adapter, timedelta(seconds=1))) == [1]
        script.on_instance = by_study
        clock.advance(1)
        adapter.grouped(1)


def test_what_a_raising_call_asked_for_is_not_done(tmp_path: Path, script: Script) -> None:
    """A call that submits and removes, and then raises, has submitted and removed nothing."""
    clock = ManualClock()

    def submit_and_fail(processor: JobProcessorBase, group: InstanceGroup) -> None:
        deliver(processor, group)
        raise RuntimeError

    def group_and_fail(processor: JobProcessorBase, instance: StoredInstance) -> None:
        by_study(processor, instance)
        deliver_one(processor, instance)
        raise RuntimeError

    script.on_group, script.on_instance = submit_and_fail, group_and_fail
    with running(tmp_path, CONFIG, clock) as adapter:
        send(adapter.port, [make_instance()])
        adapter.wait_for(lambda: waiting(adapter, timedelta(seconds=1)))
        assert (adapter.groups(), submitted(adapter)) == ([], [])
        script.on_instance = by_study
        clock.advance(1)
        adapter.grouped(1)
        clock.advance(4)
        adapter.wait_for(lambda: [g for g in adapter.groups() if g.attempts == 1])
        assert submitted(adapter) == []
        assert kept(adapter) == {"in an open group": 1}
        script.on_group = deliver
        clock.advance(1)
        assert len(wait_submitted(adapter, 1)) == 1


def deliver_one(processor: JobProcessorBase, instance: StoredInstance) -> None:
    """Submit an instance and let it go."""
    processor.submit_pipeline_job("job", "none", Priority.NORMAL, [instance])
    processor.remove_instances([instance])


def test_what_cannot_be_done_costs_only_its_own_call(tmp_path: Path, script: Script) -> None:
    """A call that asks for the impossible fails alone: the others of its AE title are done."""
    clock = ManualClock()

    def ask(processor: JobProcessorBase, instance: StoredInstance) -> None:
        if instance.instance_number == 2:
            made_up = replace(instance, id="made-up")
            processor.submit_pipeline_job("job", "none", Priority.NORMAL, [made_up])
        elif instance.instance_number == 3:
            processor.group(instance, "late", after=1e13)
        elif instance.instance_number == 4:
            processor.group(instance, "\udcff", after=5)
        else:
            by_study(processor, instance)

    script.on_instance = ask
    with running(tmp_path, CONFIG, clock) as adapter:
        send(adapter.port, [make_instance(number=n) for n in range(1, 6)])
        (group,) = adapter.grouped(2)
        for attempt, pause in enumerate(PAUSES, start=1):
            due = timedelta(seconds=pause)
            adapter.wait_for(
                lambda due=due, n=attempt: waiting(adapter, due) == [n] * 3  # type: ignore[misc]
            )
            clock.advance(pause)
        aside = wait_quarantined(adapter, 3)
        assert len(wait_submitted(adapter, 1)) == 1
    assert group.key == "1.2.3"
    assert [found.reason.split(": ")[1].rpartition(".")[2] for found in aside] == [
        "IntegrityError",
        "OverflowError",
        "UnicodeEncodeError",
    ]


def test_instances_of_another_ae_title_are_refused(tmp_path: Path, script: Script) -> None:
    """A processor cannot group, submit or remove what another AE title received."""
    with running(tmp_path, CONFIG, ManualClock()) as adapter:
        send(adapter.port, [make_instance()], called="OTHER")
        adapter.grouped(1)
        (foreign,) = SCRIPTS["OTHER"].instances
        (processor,) = script.processors
        refused = "instances: belong to OTHER, not to TEST"
        with pytest.raises(InvalidArgumentError, match=refused):
            by_study(processor, foreign)
        with pytest.raises(InvalidArgumentError, match=refused):
            processor.submit_pipeline_job("job", "none", Priority.NORMAL, [foreign])
        with pytest.raises(InvalidArgumentError, match=refused):
            processor.remove_instances([foreign])
        assert len(adapter.groups()) == 1
        assert submitted(adapter) == []
