"""What becomes of a message, whatever its receiver answers."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dicom_adapter.backoff import LONGEST_PAUSE_SECONDS, pause_after
from dicom_adapter.ledger import control, database, deliveries, events
from dicom_adapter.model import LOCAL, DeliveryState
from dicom_adapter.webhooks import outbox
from tests.ledger import make
from tests.support import PATIENCE
from tests.webhooks.harness import (
    KEY,
    Receiver,
    Reply,
    Telling,
    receiving,
    telling,
    unseen,
    webhook,
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver."""
    with receiving() as started:
        yield started


@pytest.fixture
def told(tmp_path: Path, receiver: Receiver) -> Iterator[Telling]:
    """An outbox that tells the receiver of ends."""
    with telling(tmp_path, {"his": webhook(receiver.url, timeout=5)}) as started:
        yield started


def test_a_move_is_told_once_and_signed(told: Telling, receiver: Receiver) -> None:
    """The message says what has moved, and whoever has the key can check who sends it."""
    (job,) = told.cancelled()
    (got,) = receiver.wait_for(1)
    (sent,) = told.until(DeliveryState.SENT)
    assert got.is_signed_by(KEY)
    assert not got.is_signed_by(b"another key")
    assert int(got.headers["webhook-timestamp"]) == int(told.clock.now().timestamp())
    assert got.headers["Content-Type"] == "application/json"
    assert got.id == sent.id
    with told.ledger.read() as tx:
        event = events.of_subject(tx, job.id)[-1]
    assert got.body == {
        "type": "job.cancelled",
        "timestamp": "2026-01-02T03:04:05Z",
        "data": {
            "event": event.number,
            "action": "cancel",
            "id": job.id,
            "name": job.name,
            "project": "default",
            "pipeline": "lung",
            "pipeline_version": "1",
            "ae_title": "TEST",
            "from": "in_queue",
            "to": "cancelled",
            # A person's own words are not for everybody.
            "reason": "",
            "priority": "normal",
            "created_at": "2026-01-02T03:04:05Z",
            "started_at": None,
            "finished_at": "2026-01-02T03:04:05Z",
            "instances": 1,
            "attempts": 0,
        },
    }
    assert (sent.status, sent.attempts, sent.error) == (204, 1, "")
    assert len(receiver.got) == 1


@pytest.mark.parametrize("status", [500, 502, 408, 425, 429, 302])
def test_a_passing_refusal_is_tried_again_later(
    told: Telling, receiver: Receiver, status: int
) -> None:
    """The same message comes again, with a time and so a signature of its own."""
    elsewhere = {"Location": receiver.url.replace("/hook", "/elsewhere")}
    receiver.replies += [Reply(status, elsewhere), Reply(status, elsewhere)]
    told.cancelled()
    waiting = told.tried(1)
    assert waiting.status == status
    assert waiting.error.startswith(f"answered {status}")
    assert told.clock.now() < waiting.ready_at <= told.clock.now() + timedelta(seconds=1)
    told.clock.advance(1)
    assert told.tried(2).ready_at > told.clock.now() + timedelta(seconds=0.9)
    told.clock.advance(2)
    told.until(DeliveryState.SENT)
    first, second, third = receiver.wait_for(3)
    assert first.raw == second.raw == third.raw
    assert first.id == second.id == third.id
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert all(got.is_signed_by(KEY) for got in (first, second, third))


@pytest.mark.parametrize("status", [400, 401, 404, 410])
def test_a_refusal_for_good_is_parked_until_a_person_decides(
    told: Telling, receiver: Receiver, status: int
) -> None:
    """It is sent once; then it waits, with its reason, to be sent again or given up."""
    receiver.replies += [Reply(status), Reply(status)]
    told.cancelled(2)
    first, second = told.until(DeliveryState.PARKED, 2)
    assert first.error.startswith(f"answered {status}")
    assert len(receiver.got) == 2
    told.operations.discard(LOCAL, [first.id])
    told.operations.retry(LOCAL, [second.id])
    (sent,) = told.until(DeliveryState.SENT)
    assert [got.id for got in receiver.got] == [first.id, second.id, second.id]
    assert (sent.id, sent.attempts) == (second.id, 1)
    with told.ledger.read() as tx:
        moves = [[e.action for e in events.of_subject(tx, one.id)] for one in (first, second)]
    assert moves == [["park", "discard"], ["park", "retry"]]


@pytest.mark.parametrize(
    "wish", ["120", "Fri, 02 Jan 2026 03:06:05 GMT", "Fri, 02 Jan 2026 03:06:05 -0000"]
)
def test_who_asks_for_a_pause_is_left_alone_for_so_long(
    told: Telling, receiver: Receiver, wish: str
) -> None:
    """Retry-After holds for every message to that receiver, also those that come meanwhile."""
    receiver.replies.append(Reply(429, {"Retry-After": wish}))
    told.cancelled()
    waiting = told.tried(1)
    until = told.clock.now() + timedelta(minutes=2)
    assert waiting.ready_at == until
    told.cancelled()
    assert [one.ready_at for one in told.until(DeliveryState.PENDING, 2)] == [until, until]
    told.clock.advance(119)
    # A third one, once it is there, has had every reason to be sent with the others.
    told.cancelled()
    told.until(DeliveryState.PENDING, 3)
    assert len(receiver.got) == 1
    told.clock.advance(1)
    told.until(DeliveryState.SENT, 3)
    assert len(receiver.wait_for(4)) == 4


@pytest.mark.parametrize("wish", ["soon", "-5", "", "9" * 30, "1e9", "Fri, 99 Jan 2026"])
def test_a_pause_that_nobody_means_is_none(told: Telling, receiver: Receiver, wish: str) -> None:
    """What is no time is passed over, and a far one becomes a day."""
    receiver.replies.append(Reply(503, {"Retry-After": wish}))
    told.cancelled()
    longest = timedelta(days=1) if wish.startswith("9") else timedelta(seconds=1)
    assert told.tried(1).ready_at <= told.clock.now() + longest


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(raw=b"\x00\xff garbage \r\n\r\n"), "no HTTP"),
        (Reply(raw=b""), "broke off"),
        (Reply(raw=b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2_000_000), "no HTTP"),
        (Reply(raw=b"SSH-2.0-OpenSSH\r\n"), "no HTTP"),
    ],
    ids=["garbage", "nothing", "endless head", "another protocol"],
)
def test_what_is_no_answer_is_tried_again(
    told: Telling, receiver: Receiver, reply: Reply, error: str
) -> None:
    """Whatever comes instead of an answer, the message waits; none of it is quoted."""
    receiver.replies.append(reply)
    told.cancelled()
    waiting = told.tried(1)
    assert (waiting.status, error in waiting.error) == (None, True), waiting.error
    told.clock.advance(1)
    told.until(DeliveryState.SENT)


def test_an_answer_without_an_end_is_cut_off(tmp_path: Path, receiver: Receiver) -> None:
    """Its first line says all that counts; nobody waits for the rest until the timeout."""
    receiver.replies.append(Reply(200, is_endless=True))
    began = time.monotonic()
    with telling(tmp_path, {"his": webhook(receiver.url, timeout=60)}) as told:
        told.cancelled()
        told.until(DeliveryState.SENT)
        assert receiver.cut_off.wait(PATIENCE)
    assert time.monotonic() - began < 30


def test_one_that_drips_is_no_answer_at_its_time(tmp_path: Path, receiver: Receiver) -> None:
    """The timeout is for all of an answer: a byte now and then does not prolong it."""
    receiver.replies.append(Reply(drip=0.05))
    began = time.monotonic()
    with telling(tmp_path, {"his": webhook(receiver.url, timeout=0.3)}) as told:
        told.cancelled()
        assert told.tried(1).error == "no answer within 0.3 s"
        assert time.monotonic() - began < 5


def test_one_that_stalls_holds_up_no_other(tmp_path: Path, receiver: Receiver) -> None:
    """Each webhook is sent to by itself, and the stop waits for none longer than it may."""
    never = threading.Event()
    receiver.replies.append(Reply(after=never))
    with receiving() as other:
        hooks = {"stalls": webhook(receiver.url, timeout=60), "works": webhook(other.url)}
        with telling(tmp_path, hooks) as told:
            told.cancelled(3)
            receiver.wait_for(1)
            other.wait_for(3)
            sent = told.until(DeliveryState.SENT, 3)
            assert {delivery.webhook for delivery in sent} == {"works"}
            began = time.monotonic()
            told.outbox.stop(0.2)
            assert time.monotonic() - began < 5
            never.set()
            # Left behind while it was sent: it is sent again after the next start.
            assert len(told.listed(DeliveryState.PENDING)) == 3
        with telling(tmp_path, hooks) as told:
            told.until(DeliveryState.SENT, 6)
    ids = [got.id for got in receiver.got]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert len(other.got) == 3


def test_where_nobody_listens_the_oldest_is_tried_for_all(tmp_path: Path) -> None:
    """The others wait with it, and come in their order when the receiver is back."""
    with receiving() as gone:
        pass
    with telling(tmp_path, {"his": webhook(gone.url)}) as told:
        jobs = told.cancelled(3)
        assert told.tried(1).error == "no connection: Connection refused"
        told.until(DeliveryState.PENDING, 3)
        with receiving(gone.server_port) as back:
            told.clock.advance(1)
            sent = told.until(DeliveryState.SENT, 3)
            assert [delivery.attempts for delivery in sent] == [2, 1, 1]
            assert [got.body["data"]["id"] for got in back.got] == [job.id for job in jobs]


def test_a_new_webhook_gets_none_of_what_another_has_missed(
    tmp_path: Path, receiver: Receiver
) -> None:
    """What happened while nobody looked is for those alone who were known then."""
    hook = webhook(receiver.url)
    with telling(tmp_path, {"old": hook}):
        pass
    with unseen(tmp_path) as late:
        late.cancelled(2)
    with telling(tmp_path, {"old": hook, "new": hook}) as told:
        told.cancelled()
        sent = told.until(DeliveryState.SENT, 4)
    assert sorted(delivery.webhook for delivery in sent) == ["new", "old", "old", "old"]


def test_one_message_that_is_not_taken_holds_up_no_other(told: Telling, receiver: Receiver) -> None:
    """An answer like 500 may be about the one message; the next is sent at once."""
    receiver.replies.append(Reply(500))
    told.cancelled(2)
    (sent,) = told.until(DeliveryState.SENT)
    assert told.tried(1).id != sent.id


def test_what_fails_for_three_days_is_parked(told: Telling, receiver: Receiver) -> None:
    """Then a person has to decide; a retry gives it three days more."""
    receiver.replies += [Reply(500)] * 3
    told.cancelled()
    told.tried(1)
    told.clock.advance(3 * 86_400 - 1)
    told.tried(2)
    told.clock.advance(3600)
    (parked,) = told.until(DeliveryState.PARKED)
    assert parked.error == "for 3 days: answered 500"
    receiver.replies.append(Reply(500))
    told.operations.retry(LOCAL, [parked.id])
    assert told.tried(1).state == DeliveryState.PENDING


def test_pauses_grow_to_their_longest_and_differ() -> None:
    """Each is up to twice the one before; two senders do not come back in step."""
    longest = [max(pause_after(n).total_seconds() for _ in range(50)) for n in range(40)]
    assert all(seconds <= min(2.0**n, LONGEST_PAUSE_SECONDS) for n, seconds in enumerate(longest))
    assert longest[30] > LONGEST_PAUSE_SECONDS / 2
    assert len({pause_after(5) for _ in range(50)}) > 1


def test_a_deleted_job_is_told_as_it_was(tmp_path: Path, receiver: Receiver) -> None:
    """Who deletes a job at once takes nothing from those who are told of it, in its order."""
    hooks = {"his": webhook(receiver.url, on=["cancelled", "delete"], pipelines=["lung"])}
    with telling(tmp_path, hooks) as told:
        with told.ledger.write() as tx:
            job = make.add_job(tx)
            at = told.clock.now()
            control.cancel(tx, job.id, at=at, actor="ann", why="")
            control.remove(tx, job.id, at=at, actor="ann", why="")
        first, second = receiver.wait_for(2)
        told.until(DeliveryState.SENT, 2)
        assert [first.body["type"], second.body["type"]] == ["job.cancelled", "job.deleted"]
        assert second.body["data"]["name"] == job.name
        assert second.body["data"]["created_at"] == "2026-01-02T03:04:05Z"
        with told.ledger.read() as tx:
            assert deliveries.facts(tx, [job.id]) == {}


def test_a_message_of_many_keys_can_be_checked_by_each(tmp_path: Path, receiver: Receiver) -> None:
    """So a receiver changes from one key to the next without missing a message."""
    settings = webhook(receiver.url)
    both = settings.secret.__class__(Path("keys"), (KEY, b"the next key of 24 bytes"))
    with telling(tmp_path, {"his": settings.model_copy(update={"secret": both})}) as told:
        told.cancelled()
        (got,) = receiver.wait_for(1)
        assert got.is_signed_by(KEY)
        assert got.is_signed_by(b"the next key of 24 bytes")
        told.until(DeliveryState.SENT)


def test_a_reload_that_the_ledger_cannot_take_now_holds_later(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to ask again; what is there goes on until then."""
    monkeypatch.setattr(database, "LONGEST_WAIT_SECONDS", 0.01)
    with receiving() as other, telling(tmp_path, {"his": webhook(receiver.url)}) as told:
        with told.ledger.write():
            told.outbox.reload({"his": webhook(receiver.url), "hers": webhook(other.url)})
        # The worker that has failed with it comes back after its pause.
        told.clock.advance(60)

        def known() -> bool:
            with told.ledger.read() as tx:
                return deliveries.registered(tx).keys() == {"his", "hers"}

        told.outbox.wake()
        told.ledger.wait_for(known, PATIENCE)
        told.cancelled()
        told.until(DeliveryState.SENT, 2)
        assert len(receiver.got) == len(other.got) == 1


def test_what_several_looks_find_is_told_once(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More moves than one look takes come all, each once, in their order."""
    monkeypatch.setattr(outbox, "PER_TRANSACTION", 3)
    with telling(tmp_path, {"his": webhook(receiver.url)}) as told:
        with told.ledger.write() as tx:
            jobs = [make.add_job(tx) for _ in range(10)]
            for job in jobs:
                control.cancel(tx, job.id, at=told.clock.now(), actor="ann", why="")
        told.until(DeliveryState.SENT, len(jobs))
    assert [got.body["data"]["id"] for got in receiver.got] == [job.id for job in jobs]
    assert len({got.id for got in receiver.got}) == len(jobs)
