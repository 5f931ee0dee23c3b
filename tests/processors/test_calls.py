"""When a job processor is called, and what with."""

import threading
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_adapter import (
    InstanceGroup,
    JobProcessorBase,
    Priority,
    QuarantineInstance,
    StoredInstance,
    service,
)
from dicom_adapter.ledger import Ledger, groups, instances
from dicom_adapter.model import Received
from dicom_adapter.processor.host import ProcessorHost
from tests.processors.scripted import CONFIG, SCRIPTS, Script, Scripted, by_study, deliver
from tests.processors.tools import wait_submitted
from tests.support import (
    PATIENCE,
    SUCCESS,
    ManualClock,
    make_instance,
    running,
    send,
    settings_of,
)

Ask = Callable[[JobProcessorBase, StoredInstance], None]
Logs = list[MutableMapping[str, Any]]


class Gate:
    """Holds a call until the test lets it go on."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def hold(self) -> None:
        """Wait in the call."""
        self._reached.set()
        assert self._open.wait(PATIENCE)

    def wait(self) -> None:
        """Wait in the test until the call has come here."""
        assert self._reached.wait(PATIENCE)

    def open(self) -> None:
        """Let the call go on."""
        self._open.set()


def test_s88_the_handler_is_called_for_each_instance_once(tmp_path: Path, script: Script) -> None:
    """Each received instance comes to the handler once, in the order of the association."""
    sent = [make_instance(number=n) for n in range(1, 6)]
    with running(tmp_path, CONFIG, ManualClock()) as adapter:
        assert send(adapter.port, sent) == [SUCCESS] * 5
        adapter.grouped(5)
    handled = [instance.sop_instance_uid for instance in script.instances]
    assert handled == [str(instance.SOPInstanceUID) for instance in sent]
    assert [instance.instance_number for instance in script.instances] == [1, 2, 3, 4, 5]


def test_s89_the_processor_is_told_and_is_closed(tmp_path: Path, script: Script) -> None:
    """A processor is started first, called without polling as instances come, and stopped last."""
    with running(tmp_path, CONFIG, ManualClock()) as adapter:
        # The clock stands still: nothing that waits for a time would ever look again.
        send(adapter.port, [make_instance()])
        adapter.grouped(1)
        send(adapter.port, [make_instance()])
        adapter.grouped(2)
    assert script.calls == ["start", "instance", "instance", "stop"]
    assert SCRIPTS["OTHER"].calls == ["start", "stop"]


def test_s87_each_ae_title_has_an_object_of_its_own(tmp_path: Path, script: Script) -> None:
    """Two AE titles with one class have two objects, and each gets what was sent to it."""
    with running(tmp_path, CONFIG, ManualClock()) as adapter:
        for name, count in (("TEST", 1), ("OTHER", 2)):
            send(adapter.port, [make_instance() for _ in range(count)], called=name)
        adapter.grouped(3)
    other = SCRIPTS["OTHER"]
    assert [p.ae_title for p in script.processors + other.processors] == ["TEST", "OTHER"]
    assert [i.ae_title for i in script.instances] == ["TEST"]
    assert [i.ae_title for i in other.instances] == ["OTHER", "OTHER"]


def test_the_sender_never_waits_for_a_call(tmp_path: Path, script: Script) -> None:
    """A sender has its answers while the processor is still at work on the first instance."""
    gate = Gate()

    def hold(processor: JobProcessorBase, instance: StoredInstance) -> None:
        gate.hold()
        by_study(processor, instance)

    script.on_instance = hold
    with running(tmp_path, CONFIG, ManualClock()) as adapter:
        assert send(adapter.port, [make_instance() for _ in range(3)]) == [SUCCESS] * 3
        gate.wait()
        assert adapter.groups() == []
        gate.open()
        adapter.grouped(3)


@pytest.mark.usefixtures("script")
def test_calls_come_one_at_a_time(tmp_path: Path) -> None:
    """However many senders there are, an AE title's calls never overlap; two AE titles' may."""
    gates = {"TEST": Gate(), "OTHER": Gate()}

    def meet(processor: JobProcessorBase, instance: StoredInstance) -> None:
        gates[processor.ae_title].hold()
        by_study(processor, instance)

    for each in SCRIPTS.values():
        each.on_instance = meet
    clock = ManualClock()
    with running(tmp_path, CONFIG, clock) as adapter:
        senders = [
            threading.Thread(
                target=send, args=(adapter.port, [make_instance(study=f"1.{n}")], name)
            )
            for n in range(4)
            for name in gates
        ]
        for sender in senders:
            sender.start()
        for gate in gates.values():
            # Both are inside a call now.
            gate.wait()
        for sender in senders:
            sender.join(PATIENCE)
        for gate in gates.values():
            gate.open()
        adapter.grouped(8)
        clock.advance(5)
        wait_submitted(adapter, 8)
    for each in SCRIPTS.values():
        assert each.calls == ["start", *["instance"] * 4, *["group"] * 4, "stop"]
        assert each.most_at_once == 1


def test_an_instance_that_came_in_time_belongs_to_its_group(tmp_path: Path, script: Script) -> None:
    """A processor that is late does not part a study: what came before the deadline is in."""
    gate = Gate()

    def hold_first(processor: JobProcessorBase, instance: StoredInstance) -> None:
        if len(script.instances) == 1:
            gate.hold()
        by_study(processor, instance)

    script.on_instance = hold_first
    clock = ManualClock()
    with running(tmp_path, CONFIG, clock) as adapter:
        send(adapter.port, [make_instance()])
        gate.wait()
        clock.advance(4)
        send(adapter.port, [make_instance()])
        clock.advance(96)
        gate.open()
        (job,) = wait_submitted(adapter, 1)
        adapter.wait_for(lambda: not adapter.groups())
    assert len(job.instances) == 2


def test_an_instance_that_comes_while_another_group_is_handled_is_in_time(
    tmp_path: Path, script: Script
) -> None:
    """A group that is due waits its turn, and takes what comes before it is handed over."""
    gate = Gate()

    def hold_first(processor: JobProcessorBase, group: InstanceGroup) -> None:
        if group.key == "1.1":
            gate.hold()
        deliver(processor, group)

    script.on_group = hold_first
    clock = ManualClock()
    with running(tmp_path, CONFIG, clock) as adapter:
        send(adapter.port, [make_instance(study="1.1"), make_instance(study="1.2")])
        adapter.grouped(2)
        clock.advance(5)
        gate.wait()
        send(adapter.port, [make_instance(study="1.2")])
        gate.open()
        wait_submitted(adapter, 1)
        (group,) = adapter.wait_for(lambda: [g for g in adapter.groups() if g.instances == 2])
        clock.advance(5)
        found = wait_submitted(adapter, 2)
    assert group.key == "1.2"
    assert [len(job.instances) for job in found] == [1, 2]


def test_an_instance_that_joins_a_group_while_it_is_handled_is_not_left_behind(
    tmp_path: Path, script: Script
) -> None:
    """What a thread of the processor's own adds meanwhile is in the group when it is dispatched."""

    def keep_second(processor: JobProcessorBase, instance: StoredInstance) -> None:
        if instance.instance_number == 1:
            by_study(processor, instance)

    def add_second(processor: JobProcessorBase, group: InstanceGroup) -> None:
        if len(script.groups) == 1:
            second = script.instances[1]
            own = threading.Thread(target=by_study, args=(processor, second))
            own.start()
            own.join(PATIENCE)
        deliver(processor, group)

    script.on_instance, script.on_group = keep_second, add_second
    clock = ManualClock()
    with running(tmp_path, CONFIG, clock) as adapter:
        send(adapter.port, [make_instance(number=1), make_instance(number=2)])
        adapter.wait_for(lambda: len(script.instances) == 2 and adapter.grouped(1))
        clock.advance(5)
        (submission,) = wait_submitted(adapter, 1)
    assert [instance.instance_number for instance in submission.instances] == [1, 2]
    assert [len(group.instances) for group in script.groups] == [1, 2]


def test_a_stuck_processor_is_left_behind(tmp_path: Path, script: Script, logs: Logs) -> None:
    """A call that does not return does not keep the service from stopping, nor is it disturbed."""
    gate = Gate()
    script.on_instance = lambda _processor, _instance: gate.hold()
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.open()
    clock = ManualClock()
    with ledger.write() as tx:
        instances.record(tx, [Received(stored(clock))])
    host = host_of(tmp_path, ledger, clock)
    host.start()
    host.work()
    gate.wait()
    host.stop(0.01)
    assert script.calls == ["start", "instance"]
    assert [entry["action"] for entry in logs] == ["processor.stuck"]
    gate.open()
    host.stop(PATIENCE)
    assert script.calls == ["start", "instance", "stop"]
    ledger.close()


def test_stuck_processors_share_one_grace(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    """However many do not return from a call or from `stop`, the service stops soon."""
    gates = Gate(), Gate()
    script.on_instance = lambda _processor, _instance: gates[0].hold()
    monkeypatch.setattr(service, "THREAD_GRACE", 0.5)
    monkeypatch.setattr(Scripted, "stop", lambda _processor: gates[1].hold())
    with running(tmp_path, CONFIG, ManualClock()) as adapter:
        send(adapter.port, [make_instance()])
        gates[0].wait()
    told = {entry["ae_title"] for entry in logs if entry.get("action") == "processor.stuck"}
    for gate in gates:
        gate.open()
    for thread in threading.enumerate():
        if thread.name.startswith("processor "):
            # With the script of the next test it would do what that one says.
            thread.join(PATIENCE)
    assert told == {"TEST", "OTHER"}


def test_a_long_batch_is_left_between_two_calls(tmp_path: Path, script: Script) -> None:
    """A stop waits for the current call, not for those that could follow; they come again."""
    gate = Gate()

    def hold(processor: JobProcessorBase, instance: StoredInstance) -> None:
        gate.hold()
        by_study(processor, instance)

    script.on_instance = hold
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.open()
    clock = ManualClock()
    with ledger.write() as tx:
        made = [replace(stored(clock), id=f"i{n}", sop_instance_uid=f"1.2.{n}") for n in range(3)]
        instances.record(tx, [Received(instance) for instance in made])
    host = host_of(tmp_path, ledger, clock)
    host.start()
    host.work()
    gate.wait()
    host.stop(0.01)
    gate.open()
    host.stop(PATIENCE)
    assert script.calls == ["start", "instance", "stop"]
    with ledger.read() as tx:
        assert len(instances.received(tx, "TEST", clock.now(), 10, Path)) == 2
    ledger.close()


@pytest.mark.parametrize(
    ("ask", "woken"),
    [
        (by_study, []),
        (lambda processor, instance: processor.remove_instances([instance]), ["released"]),
        (
            lambda processor, instance: processor.submit_pipeline_job(
                "job", "none", Priority.NORMAL, [instance]
            ),
            ["submitted"],
        ),
    ],
)
def test_only_those_who_have_something_to_do_are_woken(
    tmp_path: Path, script: Script, ask: Ask, woken: list[str]
) -> None:
    """Grouping wakes neither who submits nor who removes."""
    script.on_instance = ask
    told: list[str] = []
    ledger, clock = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"), ManualClock()
    ledger.open()
    with ledger.write() as tx:
        instances.record(tx, [Received(stored(clock))])
    host = host_of(tmp_path, ledger, clock, told.append)
    host.start()
    host.work()
    ledger.next_commit(1, PATIENCE)
    host.stop(PATIENCE)
    assert told == woken
    ledger.close()


def test_what_has_come_together_is_committed_together(tmp_path: Path, script: Script) -> None:
    """One transaction takes all that is due, also where one call asks for the impossible."""

    def ask(processor: JobProcessorBase, instance: StoredInstance) -> None:
        if instance.id == "i1":
            processor.remove_instances([replace(instance, id="i2")])
            processor.group(instance, "never", after=1e13)
        elif instance.id == "i3":
            raise QuarantineInstance
        else:
            by_study(processor, instance)

    script.on_instance = ask
    ledger, clock = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"), ManualClock()
    ledger.open()
    with ledger.write() as tx:
        made = [replace(stored(clock), id=f"i{n}", sop_instance_uid=f"1.2.{n}") for n in range(5)]
        instances.record(tx, [Received(instance) for instance in made])
    told: list[str] = []
    host = host_of(tmp_path, ledger, clock, told.append)
    host.start()
    host.work()
    ledger.next_commit(1, PATIENCE)
    host.stop(PATIENCE)
    with ledger.read() as tx:
        (group,) = groups.summaries(tx)
        members = [member.id for member in groups.get(tx, group.id, Path).instances]
        (aside,) = instances.quarantined(tx, Path)
        (again,) = instances.received(tx, "TEST", clock.now() + timedelta(seconds=1), 10, Path)
    assert ledger.commits == 2
    assert members == ["i0", "i2", "i4"]
    assert aside.instance.id == "i3"
    assert (again[0].id, again[1]) == ("i1", 1)
    # What the call that failed has asked for besides counts for nothing.
    assert told == []
    ledger.close()


def host_of(
    folder: Path, ledger: Ledger, clock: ManualClock, woken: Callable[[str], None] = print
) -> ProcessorHost:
    """Return the host of the AE title TEST of the configuration, which tells whom it wakes."""
    return ProcessorHost(
        settings_of(folder, CONFIG).ae_titles["TEST"],
        Scripted,
        ledger,
        clock,
        locate=Path,
        submitted=lambda: woken("submitted"),
        released=lambda: woken("released"),
        kept=lambda: woken("kept"),
    )


def stored(clock: ManualClock) -> StoredInstance:
    """Return an instance as the receiving room records it."""
    return StoredInstance(
        id="i",
        ae_title="TEST",
        association=1,
        calling_ae_title="SCU",
        source_address="127.0.0.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="1.2.3.4.5",
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        instance_number=1,
        sha256="0" * 64,
        size=1,
        received_at=clock.now(),
        path=Path("i"),
    )
