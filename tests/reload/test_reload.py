"""D24: a reload changes what comes next, and nothing that has begun, or nothing at all."""

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_adapter.errors import ConfigError, WrongStateError
from dicom_adapter.lifecycle import JobState
from tests.support import (
    CONFIG,
    PATIENCE,
    SUCCESS,
    ManualClock,
    Running,
    association,
    files_in,
    make_instance,
    running,
    send,
)

CT, PRIVATE = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5"
LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
SECOND = CONFIG + "  SECOND: {settings: {pipeline-copy: copy}}\n"
OTHER_PIPELINE = CONFIG.replace(
    "ae_titles:", "  other: {command: ['true'], resources: {memory: 1}}\nae_titles:"
).replace("pipeline-copy: copy", "pipeline-other: other")


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still, so that no group is due by itself."""
    return ManualClock()


@pytest.fixture
def adapter(tmp_path: Path, clock: ManualClock) -> Iterator[Running]:
    """A service of CONFIG."""
    with running(tmp_path, CONFIG, clock) as service:
        yield service


def reload(service: Running, text: str) -> list[str]:
    """Have a service go by another text; return what has changed."""
    Path(service.service.settings.file).write_text(text, "utf-8")
    return [f"{one.key} {one.change}" for one in service.service.reload()]


def is_accepted(service: Running, called: str, calling: str = "SCU") -> bool:
    """Tell whether an association with an AE title is accepted."""
    with association(service.port, called, calling) as opened:
        return bool(opened.is_established)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_an_association_goes_on_by_what_it_was_admitted_with(adapter: Running) -> None:
    """An association that is open stores as before; the next one meets the new settings."""
    ignoring = CONFIG.replace("TEST: {", "TEST: {ignored_sop_classes: [CTImageStorage], ")
    with association(adapter.port) as opened:
        assert opened.send_c_store(make_instance()).Status == SUCCESS
        assert reload(adapter, ignoring) == ["ae_titles.TEST.ignored_sop_classes changed"]
        assert opened.send_c_store(make_instance()).Status == SUCCESS
        adapter.grouped(2)
    assert send(adapter.port, [make_instance()]) == [SUCCESS]
    assert adapter.service.status().associations == 0
    assert sum(kept.instances for kept in adapter.service.status().keeping) == 2


def test_an_open_group_goes_to_the_new_settings(adapter: Running, clock: ManualClock) -> None:
    """A group keeps its instances and its deadline; what becomes of it the new settings say."""
    send(adapter.port, [make_instance()])
    (before,) = adapter.grouped(1)
    told = reload(adapter, OTHER_PIPELINE)
    assert told == [
        "pipelines.other added",
        "ae_titles.TEST.settings.pipeline-copy removed",
        "ae_titles.TEST.settings.pipeline-other added",
    ]
    assert adapter.groups() == [before]
    send(adapter.port, [make_instance()])
    adapter.grouped(2)
    clock.advance(5)
    (job,) = adapter.ended_jobs(1)
    assert (job.pipeline, job.instances) == ("other", 2)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (SECOND + "nonsense: 1\n", "12: nonsense: is an unknown key"),
        (
            SECOND.replace("host: 127.0.0.1", "host: 127.0.0.2"),
            "2: dicom.host: needs a restart: it cannot change while the service runs",
        ),
        (
            SECOND.replace("storage: {", "storage: {path: elsewhere, "),
            "4: storage.path: needs a restart: it cannot change while the service runs",
        ),
    ],
)
def test_an_invalid_file_changes_nothing_and_says_why(
    adapter: Running, text: str, mistake: str
) -> None:
    """Every mistake is told with its line, and the AE title beside it is not served."""
    before = adapter.service.settings
    with pytest.raises(ConfigError, match=re.escape(mistake)):
        reload(adapter, text)
    assert adapter.service.settings is before
    assert not is_accepted(adapter, "SECOND")
    assert send(adapter.port, [make_instance()]) == [SUCCESS]
    adapter.grouped(1)


def test_the_same_file_changes_nothing(adapter: Running) -> None:
    """A comment, or a key that is written with its default, is no change."""
    assert reload(adapter, CONFIG + "# as before\nlog: {level: info}\n") == []
    assert is_accepted(adapter, "TEST")


def test_ae_titles_come_and_go(adapter: Running, clock: ManualClock) -> None:
    """A new AE title is reached at once; one that is removed is rejected, and keeps what it has."""
    with association(adapter.port) as opened:
        opened.send_c_store(make_instance())
        adapter.grouped(1)
        assert not is_accepted(adapter, "SECOND")
        renamed = CONFIG.replace("TEST:", "SECOND:")
        assert reload(adapter, renamed) == ["ae_titles.TEST removed", "ae_titles.SECOND added"]
        assert not is_accepted(adapter, "TEST")
        assert send(adapter.port, [make_instance()], "SECOND") == [SUCCESS]
        # The association with what is gone goes on, too.
        assert opened.send_c_store(make_instance()).Status == SUCCESS
    clock.advance(60)
    (job,) = adapter.ended_jobs(1)
    assert job.ae_title == "SECOND"
    status = adapter.service.status()
    assert any("TEST is not configured any more, but 2" in line for line in status.attention)
    assert [rejection.called_ae_title for rejection in status.rejections] == ["SECOND", "TEST"]
    # Back again, it goes on where it was.
    assert reload(adapter, SECOND) == ["ae_titles.TEST added"]
    adapter.wait_for(lambda: len(adapter.jobs()) == 2)


def test_ports_come_and_go(adapter: Running) -> None:
    """An AE title's own port is opened and closed; one that is taken changes nothing."""
    own = free_port()
    with_port = SECOND.replace("SECOND: {", f"SECOND: {{port: {own}, ")
    with socket.create_server(("127.0.0.1", own)):
        with pytest.raises(WrongStateError, match=f"cannot listen on 127.0.0.1:{own}.*nothing has"):
            reload(adapter, with_port)
        assert "SECOND" not in adapter.service.settings.ae_titles
    assert reload(adapter, with_port) == ["ae_titles.SECOND added"]
    assert adapter.service.status().dicom == (*adapter.ready.dicom, f"127.0.0.1:{own}")
    with association(own, "SECOND") as opened:
        assert opened.is_established
        assert reload(adapter, CONFIG) == ["ae_titles.SECOND removed"]
        assert adapter.service.status().dicom == adapter.ready.dicom
        assert opened.send_c_store(make_instance()).Status == SUCCESS
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", own), PATIENCE)
    assert is_accepted(adapter, "TEST")


def test_a_platform_alone_becomes_an_adapter(tmp_path: Path) -> None:
    """The first AE title may come while the service runs, and the last one go."""
    alone = CONFIG.partition("ae_titles:")[0]
    with running(tmp_path, alone) as service:
        assert service.service.status().dicom == ()
        assert reload(service, CONFIG) == ["ae_titles.TEST added"]
        (address,) = service.service.status().dicom
        port = int(address.rpartition(":")[2])
        assert send(port, [make_instance()]) == [SUCCESS]
        service.ended_jobs(1)
        assert reload(service, alone) == ["ae_titles.TEST removed"]
        assert service.service.status().dicom == ()


def test_who_may_send_and_what(adapter: Running) -> None:
    """Sources, private SOP classes and the number of associations hold for the next association."""
    private = [(PRIVATE, LITTLE_ENDIAN)]
    with association(adapter.port, contexts=private) as opened:
        assert not opened.accepted_contexts
    told = reload(
        adapter,
        CONFIG.replace(
            "port: 0",
            f"port: 0, max_pdu: 16384, private_sop_classes: [{PRIVATE}], max_associations: 1, "
            "reject_unknown_sources: true",
        )
        + "sources: {CT1: {ae_title: CT1, host: 127.0.0.1}}\n",
    )
    assert told == [
        "dicom.max_associations changed",
        "dicom.max_pdu changed",
        "dicom.reject_unknown_sources changed",
        "dicom.private_sop_classes changed",
        "sources.CT1 added",
    ]
    assert not is_accepted(adapter, "TEST")
    with association(adapter.port, calling="CT1", contexts=private) as opened:
        assert [context.abstract_syntax for context in opened.accepted_contexts] == [PRIVATE]
        assert opened.acceptor.maximum_length == 16384
        assert not is_accepted(adapter, "TEST", "CT1")


def test_a_job_keeps_the_pipeline_that_it_was_submitted_with(tmp_path: Path) -> None:
    """Running and waiting jobs go by the old command, the next one by the new; more may run."""
    gate = tmp_path / "gate"
    old = CONFIG.replace("cp -r", f"while [ ! -e {gate} ]; do sleep 0.05; done; cp -r")
    old += "platform: {max_jobs: 1}\n"
    new = CONFIG.replace("cp -r", "exit 3; cp -r") + "platform: {max_jobs: 2}\n"
    clock = ManualClock()
    with running(tmp_path, old, clock) as service:

        def submit(count: int) -> None:
            send(service.port, [make_instance(study=f"1.2.{count}")])
            service.grouped(1)
            clock.advance(5)
            service.wait_for(lambda: len(service.jobs()) == count)

        def processing() -> int:
            return sum(job.state == JobState.PROCESSING for job in service.jobs())

        submit(1)
        submit(2)
        service.wait_for(lambda: processing() == 1)
        assert reload(service, new) == [
            "platform.max_jobs changed",
            "pipelines.copy.command changed",
        ]
        service.wait_for(lambda: processing() == 2)
        submit(3)
        gate.touch()
        jobs = service.ended_jobs(3)
    assert [job.state for job in jobs] == ["finished", "finished", "failed"]
    assert len({job.pipeline_version for job in jobs}) == 2


def test_what_is_kept_goes_by_the_new_times(tmp_path: Path) -> None:
    """A shorter `retain` and `keep` hold for what is here already."""
    kept = CONFIG.replace("reserve: 0", "reserve: 0, retain: 1h")
    gone = CONFIG + "platform: {keep: {inputs: 0s, outputs: 0s}}\n"
    clock = ManualClock()
    with running(tmp_path, kept, clock) as service:
        send(service.port, [make_instance()])
        service.grouped(1)
        clock.advance(5)
        service.ended_jobs(1)
        assert len([path for path in files_in(tmp_path / "data") if path.suffix == ".dcm"]) == 3
        assert reload(service, gone) == [
            "storage.retain changed",
            "platform.keep.inputs changed",
            "platform.keep.outputs changed",
        ]
        service.wait_for(
            lambda: not [path for path in files_in(tmp_path / "data") if path.suffix == ".dcm"]
        )


def test_a_reserve_that_the_disk_has_not_refuses_the_next_instance(adapter: Running) -> None:
    """`storage.reserve` holds from the next instance on, also of an association that is open."""
    with association(adapter.port) as opened:
        assert opened.send_c_store(make_instance()).Status == SUCCESS
        reload(adapter, CONFIG.replace("reserve: 0", "reserve: 1000000TiB"))
        assert opened.send_c_store(make_instance()).Status == 0xA700


def test_reloads_come_one_after_another(adapter: Running) -> None:
    """Several at once are made in turn; each tells what it has changed itself."""
    Path(adapter.service.settings.file).write_text(SECOND, "utf-8")
    told: list[int] = []
    threads = [
        threading.Thread(target=lambda: told.append(len(adapter.service.reload())))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(told) == [0, 0, 0, 1]


def test_a_service_that_stops_is_not_reloaded(tmp_path: Path) -> None:
    """Nothing is started any more where all is being stopped."""
    with running(tmp_path) as service:
        pass
    with pytest.raises(WrongStateError, match="the service stops"):
        reload(service, SECOND)
