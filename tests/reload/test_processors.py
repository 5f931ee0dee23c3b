"""Job processors are exchanged while they work: one call at a time, and all of them or none."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_adapter import JobProcessorBase
from dicom_adapter.errors import WrongStateError
from dicom_adapter.model import StoredInstance
from tests.processors.scripted import CONFIG, SCRIPTS, Script, Scripted
from tests.reload.test_reload import reload
from tests.support import PATIENCE, ManualClock, make_instance, running, send

ANOTHER = CONFIG.replace(
    'TEST: {processor: "tests.processors.scripted:Scripted"}',
    'TEST: {processor: "tests.reload.test_processors:Another"}',
)


class Another(Scripted):
    """Does what the script says, as another processor."""

    name = "another"


@pytest.fixture
def script() -> Iterator[Script]:
    """The script of AE title TEST; OTHER has one too."""
    SCRIPTS.update(TEST=Script(), OTHER=Script())
    yield SCRIPTS["TEST"]
    SCRIPTS.clear()


def test_the_next_processor_waits_for_the_last_call_of_the_one_before(
    tmp_path: Path, script: Script
) -> None:
    """However often it is exchanged meanwhile; a reload waits for no call, nor do others."""
    begun, gate = threading.Event(), threading.Event()

    def hold(processor: JobProcessorBase, instance: StoredInstance) -> None:
        del processor, instance
        begun.set()
        gate.wait(PATIENCE)

    script.on_instance = hold
    with running(tmp_path, CONFIG, ManualClock()) as service:
        send(service.port, [make_instance()])
        assert begun.wait(PATIENCE)
        for text in (ANOTHER, CONFIG):
            assert reload(service, text) == ["ae_titles.TEST.processor changed"]
        send(service.port, [make_instance()])
        send(service.port, [make_instance()], "OTHER")
        service.wait_for(lambda: len(SCRIPTS["OTHER"].instances) == 1)
        assert script.calls == ["start", "instance", "start", "start"]
        gate.set()
        service.wait_for(lambda: len(script.instances) == 2)
        assert script.calls == ["start", "instance", "start", "start", "stop", "stop", "instance"]
        assert SCRIPTS["OTHER"].calls == ["start", "instance"], "what did not change stays"
        names = [processor.name for processor in script.processors]
    assert names == ["scripted", "another", "scripted"]
    assert script.calls[-1] == "stop"


def test_a_processor_that_cannot_start_changes_nothing(tmp_path: Path, script: Script) -> None:
    """The others that were started for the reload are stopped, and the old ones never were."""
    broken = ANOTHER.replace(
        'OTHER: {processor: "tests.processors.scripted:Scripted"}',
        'OTHER: {processor: "tests.processors.broken:CannotStart"}',
    )
    with running(tmp_path, CONFIG, ManualClock()) as service:
        before = service.service.settings
        with pytest.raises(WrongStateError, match=r"'unstarted' cannot start.*nothing has "):
            reload(service, broken)
        assert service.service.settings is before
        assert script.calls == ["start", "start", "stop"]
        send(service.port, [make_instance()])
        service.grouped(1)
        assert script.calls == ["start", "start", "stop", "instance"]


def test_a_title_that_comes_back_waits_for_its_own_last_call(
    tmp_path: Path, script: Script
) -> None:
    """An AE title that is removed in the middle of a call, and added again, has one call."""
    begun, gate = threading.Event(), threading.Event()

    def hold(processor: JobProcessorBase, instance: StoredInstance) -> None:
        processor.remove_instances([instance])
        begun.set()
        gate.wait(PATIENCE)

    script.on_instance = hold
    without = "".join(line for line in CONFIG.splitlines(keepends=True) if "TEST" not in line)
    with running(tmp_path, CONFIG, ManualClock()) as service:
        send(service.port, [make_instance()])
        assert begun.wait(PATIENCE)
        assert reload(service, without) == ["ae_titles.TEST removed"]
        assert reload(service, CONFIG) == ["ae_titles.TEST added"]
        assert script.calls == ["start", "instance", "start"]
        gate.set()
        send(service.port, [make_instance()])
        service.wait_for(lambda: len(script.instances) == 2)
        assert script.calls == ["start", "instance", "start", "stop", "instance"]
