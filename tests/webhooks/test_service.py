"""Webhooks of a whole service: which jobs they are told of, and what a reload makes of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from dicom_adapter.audit import AuditTrail, Period
from dicom_adapter.config import Change
from dicom_adapter.ledger import deliveries
from dicom_adapter.model import LOCAL, Delivery, DeliveryState
from tests.support import ManualClock, Running, make_instance, running, send
from tests.webhooks.harness import KEY, SECRET, Receiver, Reply, receiving

JOBS = """
dicom: {host: 127.0.0.1, port: 0}
grpc: {listen: null}
storage: {reserve: 0, watermark: 100%}
pipelines:
  good: {command: [sh, -c, "true"], resources: {memory: 1MiB}}
  bad: {command: [sh, -c, "exit 3"], resources: {memory: 1MiB}}
ae_titles:
  ONE: {settings: {pipeline-good: good, pipeline-bad: bad}}
  TWO: {settings: {pipeline-good: good}}
"""


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """A receiver, whose key lies beside the configuration."""
    (tmp_path / "keys").write_text(f"{SECRET}\n", "utf-8")
    with receiving() as started:
        yield started


def with_hooks(**hooks: str) -> str:
    """Return a configuration with webhooks, each given by its keys without the secret."""
    lines = [f"  {name}: {{secret: keys, {keys}}}" for name, keys in hooks.items()]
    return "\n".join([JOBS, "webhooks:", *lines, ""]) if hooks else JOBS


def run_jobs(service: Running, clock: ManualClock, title: str, count: int) -> None:
    """Send a study, and wait until so many jobs have ended."""
    ended = len(service.jobs())
    study = f"1.2.{ended}"
    assert send(service.port, [make_instance(study=study)], called=title) == [0]
    service.grouped(1)
    clock.advance(5)
    service.ended_jobs(ended + count)


def listed(service: Running, *states: DeliveryState) -> list[Delivery]:
    """Return the deliveries in these states, the oldest first."""
    with service.service.ledger.read() as tx:
        return deliveries.listed(tx, states, "", 1000)[0][::-1]


def settled(service: Running, count: int) -> list[Delivery]:
    """Wait until so many messages are sent, and return them."""

    def look() -> list[Delivery]:
        found = listed(service, DeliveryState.SENT)
        return found if len(found) >= count else []

    return service.wait_for(look)


def reload(service: Running, text: str) -> list[Change]:
    """Have the service go by another text."""
    Path(service.service.settings.file).write_text(text, "utf-8")
    return list(service.service.reload())


def test_each_is_told_of_its_own_ae_titles_pipelines_and_moves(
    tmp_path: Path, receiver: Receiver
) -> None:
    """A filter that is left out lets every job through; several must all agree."""
    url = f"url: '{receiver.url}'"
    hooks = with_hooks(
        ends=url,
        good=f"{url}, pipelines: [good]",
        one=f"{url}, ae_titles: [ONE], on: [failed]",
        two=f"{url}, ae_titles: [TWO], pipelines: [good], on: [create, claim, finished]",
        never=f"{url}, ae_titles: [TWO], pipelines: [bad]",
    )
    clock = ManualClock()
    with running(tmp_path, hooks, clock) as service:
        run_jobs(service, clock, "ONE", 2)
        run_jobs(service, clock, "TWO", 1)
        sent = settled(service, 9)
        jobs = {job.id: job for job in service.jobs()}
    told = sorted(
        (d.webhook, jobs[d.job_id].ae_title, jobs[d.job_id].pipeline, d.type) for d in sent
    )
    assert told == [
        ("ends", "ONE", "bad", "job.failed"),
        ("ends", "ONE", "good", "job.finished"),
        ("ends", "TWO", "good", "job.finished"),
        ("good", "ONE", "good", "job.finished"),
        ("good", "TWO", "good", "job.finished"),
        ("one", "ONE", "bad", "job.failed"),
        ("two", "TWO", "good", "job.finished"),
        ("two", "TWO", "good", "job.in_queue"),
        ("two", "TWO", "good", "job.processing"),
    ]
    (failed,) = {
        got.body["data"]["reason"] for got in receiver.got if got.body["type"] == "job.failed"
    }
    assert failed == "pipeline_error"
    assert all(got.is_signed_by(KEY) for got in receiver.got)


def test_a_new_webhook_is_told_of_what_comes_after_it(tmp_path: Path, receiver: Receiver) -> None:
    """Neither a start nor a reload sends anybody the history."""
    url = f"url: '{receiver.url}'"
    clock = ManualClock()
    with running(tmp_path, JOBS, clock) as service:
        run_jobs(service, clock, "TWO", 1)
    with running(tmp_path, with_hooks(early=url), clock) as service:
        run_jobs(service, clock, "TWO", 1)
        settled(service, 1)
        reload(service, with_hooks(early=url, late=url))
        run_jobs(service, clock, "TWO", 1)
        sent = settled(service, 3)
    assert sorted(delivery.webhook for delivery in sent) == ["early", "early", "late"]


def test_what_happens_while_a_webhook_is_known_is_told_after_a_restart(
    tmp_path: Path, receiver: Receiver
) -> None:
    """A webhook goes on where it was, also when the service ended before it was sent to."""
    receiver.replies.append(Reply(500))
    hooks = with_hooks(his=f"url: '{receiver.url}'")
    clock = ManualClock()
    with running(tmp_path, hooks, clock) as service:
        run_jobs(service, clock, "TWO", 1)
        service.wait_for(lambda: [d for d in listed(service) if d.attempts])
    clock.advance(1)
    with running(tmp_path, hooks, clock) as service:
        (sent,) = settled(service, 1)
    assert [got.id for got in receiver.got] == [sent.id] * 2


def test_what_was_not_sent_to_a_removed_webhook_is_given_up_visibly(
    tmp_path: Path, receiver: Receiver
) -> None:
    """It is logged and audited, and stays in the list for a while; the others go on."""
    receiver.replies.append(Reply(500))
    clock = ManualClock()
    with running(tmp_path, with_hooks(his=f"url: '{receiver.url}'"), clock) as service:
        run_jobs(service, clock, "TWO", 1)
        service.wait_for(lambda: [d for d in listed(service) if d.attempts])
        assert service.service.status().attention == (
            "1 message is waiting for a webhook: see `webhooks list`",
        )
        with structlog.testing.capture_logs() as lines:
            assert reload(service, JOBS) == [Change("webhooks.his", "removed")]
        (removed,) = [line for line in lines if line["action"] == "webhook.removed"]
        assert (removed["webhook"], removed["messages"]) == ("his", 1)
        (given_up,) = listed(service)
        assert given_up.state == DeliveryState.DISCARDED
        assert service.service.status().attention == ()
        trail = AuditTrail(service.service.ledger).pages(LOCAL, 0, Period())
        (audited,) = [e for page in trail for e in page if e.subject == given_up.id]
    assert (audited.action, audited.actor) == ("discard", "system")
    assert audited.reason == "the webhook is not configured any more"
    assert len(receiver.got) == 1


def test_a_webhook_that_has_changed_is_tried_at_once(tmp_path: Path, receiver: Receiver) -> None:
    """Who corrects an address or a key waits for no pause, and restarts nothing."""
    with receiving() as wrong:
        wrong.replies.append(Reply(503, {"Retry-After": "86400"}))
        clock = ManualClock()
        with running(tmp_path, with_hooks(his=f"url: '{wrong.url}'"), clock) as service:
            run_jobs(service, clock, "TWO", 1)
            service.wait_for(lambda: [d for d in listed(service) if d.attempts])
            assert reload(service, with_hooks(his=f"url: '{receiver.url}'")) == [
                Change("webhooks.his.url", "changed")
            ]
            (sent,) = settled(service, 1)
            assert receiver.wait_for(1)[0].id == sent.id


def test_what_is_parked_needs_a_person(tmp_path: Path, receiver: Receiver) -> None:
    """The status says so until somebody has decided."""
    receiver.replies.append(Reply(410))
    clock = ManualClock()
    with running(tmp_path, with_hooks(his=f"url: '{receiver.url}'"), clock) as service:
        run_jobs(service, clock, "TWO", 1)
        (parked,) = service.wait_for(lambda: listed(service, DeliveryState.PARKED))
        assert parked.error == "answered 410: it wants no more messages"
        assert service.service.status().attention == (
            "1 message is parked: see why in `webhooks list --state parked`",
        )


def test_what_is_settled_is_kept_for_a_week(tmp_path: Path, receiver: Receiver) -> None:
    """Then it is forgotten; what waits or is parked is not, however old."""
    clock = ManualClock()
    with running(tmp_path, with_hooks(his=f"url: '{receiver.url}'"), clock) as service:
        run_jobs(service, clock, "TWO", 1)
        settled(service, 1)
        receiver.replies.append(Reply(410))
        run_jobs(service, clock, "TWO", 1)
        service.wait_for(lambda: listed(service, DeliveryState.PARKED))
        clock.advance(6 * 86_400)
        run_jobs(service, clock, "TWO", 1)
        settled(service, 2)
        clock.advance(86_400)
        service.wait_for(lambda: len(listed(service)) == 2)
        assert [d.state for d in listed(service)] == [DeliveryState.PARKED, DeliveryState.SENT]
