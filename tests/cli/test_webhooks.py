"""`webhooks`: what is still to be told, and what people decide of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_adapter.ledger import deliveries
from dicom_adapter.model import DeliveryState
from tests.cli.conftest import Command, complete
from tests.support import CONFIG, Running, make_instance, running, send
from tests.webhooks.harness import SECRET, Receiver, Reply, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that wants the first two messages no more."""
    with receiving() as started:
        started.replies += [Reply(410), Reply(410)]
        yield started


@pytest.fixture
def service(tmp_path: Path, receiver: Receiver) -> Iterator[Running]:
    """A service with two parked messages, and one that was sent."""
    (tmp_path / "keys").write_text(SECRET, "utf-8")
    text = f"{CONFIG}webhooks: {{ris: {{url: '{receiver.url}', secret: keys, on: [finished]}}}}\n"
    with running(tmp_path, text) as started:
        for number in range(3):
            send(started.port, [make_instance(study=f"1.2.{number}")])
            (group,) = started.grouped(1)
            complete(started, group.id)
            receiver.wait_for(number + 1)
        started.wait_for(lambda: states(started) == ["parked", "parked", "sent"])
        yield started


def states(service: Running) -> list[str]:
    """Return the states of all deliveries, in order of the alphabet."""
    with service.service.ledger.read() as tx:
        return sorted(d.state for d in deliveries.listed(tx, (), "", 100)[0])


def test_what_waits_is_listed_with_its_reason(
    service: Running, receiver: Receiver, cli: Command
) -> None:
    """What was sent is shown where it is asked for; the address and the key nowhere."""
    rows = cli("webhooks", "list", "--json").rows
    assert [row["id"] for row in rows] == [got.id for got in receiver.got[1::-1]]
    job = service.jobs()[0]
    assert rows[1] | {"id": "", "event": 0, "created_at": "", "ready_at": ""} == {
        "id": "",
        "webhook": "ris",
        "type": "job.finished",
        "event": 0,
        "job_id": job.id,
        "job": job.name,
        "state": "parked",
        "attempts": 1,
        "created_at": "",
        "ready_at": "",
        "settled_at": None,
        "status": 410,
        "error": "answered 410: it wants no more messages",
    }
    every = [word for state in DeliveryState for word in ("--state", state)]
    shown = cli("webhooks", "list", *every)
    assert len(shown.out.splitlines()) == 4
    assert "answered 410" in shown.out
    for secret in (SECRET, "hidden", "127.0.0.1"):
        assert secret not in shown.out
    (sent,) = cli("webhooks", "list", "--state", "sent", "--json").rows
    assert (sent["status"], sent["error"]) == (204, "")
    assert len(cli("webhooks", "list", "--limit", "1", "--json").rows) == 1
    assert cli("webhooks", "list", "--webhook", "other").out == "No message matches.\n"
    assert cli("webhooks", "list", "--state", "asleep").code == 2


def test_people_decide_what_becomes_of_it(
    service: Running, receiver: Receiver, cli: Command
) -> None:
    """One is sent again, one is given up, and of a third nobody has heard."""
    first, second = (got.id for got in receiver.got[:2])
    unknown = cli("webhooks", "retry", first, "nonsense")
    assert (unknown.code, receiver.got[3:]) == (1, [])
    assert unknown.err == ("dicom-adapter: no pending or parked message has the id 'nonsense'\n")
    assert cli("webhooks", "retry", first).out == "1 message is tried again\n"
    assert receiver.wait_for(4)[3].id == first
    service.wait_for(lambda: states(service) == ["parked", "sent", "sent"])
    asked = cli("webhooks", "discard", second)
    assert asked.code == 1
    assert "1 message would be discarded for good, and nobody is there to ask" in asked.err
    assert cli("webhooks", "discard", "--all", "--yes").out == "1 message is discarded\n"
    assert cli("webhooks", "list").out == "No message waits for a webhook.\n"
    assert states(service) == ["discarded", "sent", "sent"]
