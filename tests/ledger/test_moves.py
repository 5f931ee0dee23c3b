"""Whatever moves jobs, in whatever order or at the same moment: each move is one of the table's."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, text

from dicom_adapter.errors import NotFoundError, StaleLeaseError, WrongStateError
from dicom_adapter.ledger import Ledger, control, due, events, jobs, leases, queue
from dicom_adapter.lifecycle import Action, JobState
from dicom_adapter.model import Durability, Retries, RunRules
from tests.ledger import make
from tests.ledger.make import NOW
from tests.ledger.test_lifecycle import LEGAL
from tests.support import PATIENCE

#: Two threads meet at so many jobs, so often.
MEETINGS, ROUNDS = 50, 40
HELD = {"processing", "cancelling"}
GONE = ""
#: A move of the table: from, by what, to.
Story = tuple[str, str, str]

#: Everything that moves a job that is there.
ACTIONS = sorted({by for _, by, _ in LEGAL} - {"create"})
WHO: Any = {"actor": "ann", "why": "why"}
#: What an attempt does that ends its job.
ENDS = (Action.FINISH, Action.FAIL, Action.STOP)


def end(tx: Connection, job_id: str, action: Action, lease: str | None, at: datetime) -> None:
    """End a job as the attempt does that has a lease, or as who needs none."""
    values = {"finished_at": at}
    queue.move(tx, job_id, action, at=at, values=values, lease=lease)


@dataclass
class Expected:
    """What a job should be."""

    id: str
    retries: int
    state: str = "in_queue"
    lease: str = ""
    leased_until: timedelta = timedelta()
    retried: int = 0
    #: Every lease that it ever had, so that late attempts come back with them.
    leases: list[str] = field(default_factory=list)
    story: list[Story] = field(default_factory=lambda: [("", "create", "in_queue")])

    def target(self, action: str) -> str | None:
        """Return where an action leads now, None where it is not legal."""
        return next((to for start, by, to in LEGAL if (start, by) == (self.state, action)), None)

    def moved(self, action: str) -> None:
        """Note that an action moved it."""
        target = self.target(action)
        assert target is not None
        self.story.append((self.state, action, target))
        self.state = target
        if target not in HELD:
            self.lease = ""

    def held(self, lease: str, now: timedelta) -> None:
        """Note that it has a lease from now on."""
        self.lease, self.leased_until = lease, now + leases.LEASE
        if lease not in self.leases:
            self.leases.append(lease)


#: So many jobs at a time, so that much becomes of each.
JOBS = 3


class Moves(RuleBasedStateMachine):
    """Jobs of one ledger, and what they should be."""

    ledger: Ledger

    def __init__(self) -> None:
        super().__init__()
        self._jobs: list[Expected] = []
        self._now = timedelta()
        with self.ledger.read() as tx:
            self._count = tx.execute(text("SELECT count(*) FROM events")).scalar_one()

    def teardown(self) -> None:
        """Leave an empty queue, then look at every event: one a move, also of the deleted."""
        with self.ledger.write() as tx:
            told = [events.of_subject(tx, job.id) for job in self._jobs]
            for table in ("job_files", "job_inputs", "job_items", "job_outputs", "job_steps",
                          "superseded_outputs", "jobs"):  # fmt: skip
                tx.execute(text(f"DELETE FROM {table}"))  # noqa: S608 - our own words
        for job, found in zip(self._jobs, told, strict=True):
            assert [(one.from_state, one.action, one.to_state) for one in found] == job.story
            assert set(job.story) <= LEGAL.keys()

    @contextmanager
    def _move(self, job: Expected, action: str, lease: str | None = None) -> Iterator[Connection]:
        """Make a move, and see that it is refused as it should be, else note it."""
        is_stale = lease is not None and lease != job.lease
        with self.ledger.write() as tx:
            if job.state == GONE:
                with pytest.raises(NotFoundError):
                    yield tx
            elif is_stale:
                with pytest.raises(StaleLeaseError):
                    yield tx
            elif job.target(action) is None:
                with pytest.raises(WrongStateError, match=f"cannot {action} a job"):
                    yield tx
            else:
                yield tx
                job.moved(action)

    # What happens

    @precondition(lambda self: sum(job.state != GONE for job in self._jobs) < JOBS)
    @rule(retries=st.integers(0, 2))
    def create(self, retries: int) -> None:
        """A job comes."""
        with self.ledger.write() as tx:
            rules = RunRules(queue_timeout=60.0, retries=Retries(retries, (75,), 1.0, 1.0))
            self._jobs.append(Expected(make.add_job(tx, rules=rules).id, retries))

    @precondition(lambda self: self._jobs)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        """A job makes one of the moves that are legal now, by who may make it."""
        job = data.draw(st.sampled_from(self._jobs))
        legal = sorted(by for start, by, _ in LEGAL if start == job.state != GONE)
        if legal:
            self.do(job, data.draw(st.sampled_from(legal)), job.lease)

    @precondition(lambda self: self._jobs)
    @rule(data=st.data(), action=st.sampled_from(ACTIONS))
    def try_to(self, data: st.DataObject, action: str) -> None:
        """Somebody wants whatever move, perhaps an attempt that has lost its job long ago."""
        job = data.draw(st.sampled_from(self._jobs))
        self.do(job, action, data.draw(st.sampled_from([*job.leases, "f" * 32])))

    def go(self, ways: list[str]) -> Expected:
        """Return a new job that has gone some ways."""
        self.create(retries=0)
        job = self._jobs[-1]
        for action in ways:
            self.do(job, action, job.lease)
        return job

    def do(self, job: Expected, action: str, lease: str) -> None:
        """Make a move, or have it refused as it should be."""
        at = NOW + self._now
        if action == "cancel" and job.state == "cancelling":
            # Once more changes nothing.
            with self.ledger.write() as tx:
                assert control.cancel(tx, job.id, at=at, **WHO) == "cancelling"
        elif action == "requeue":
            # Where it was to end, that is its end.
            action = "stop" if job.state == "cancelling" else action
            lease = lease or "f" * 32
            with self._move(job, action, lease) as tx:
                queue.put_back(tx, job.id, at=at, lease=lease, reason="drain")
        elif action in ENDS:
            with self._move(job, action, lease or None) as tx:
                end(tx, job.id, Action(action), lease or None, at)
        else:
            with self._move(job, action) as tx:
                self._decide(tx, job, action, at)

    def _decide(self, tx: Connection, job: Expected, action: str, at: datetime) -> None:
        """Do what needs no lease."""
        if action == "claim":
            job.held(queue.claim(tx, job.id, at).lease, self._now)
        elif action == "cancel":
            control.cancel(tx, job.id, at=at, **WHO)
        elif action == "retry":
            found = jobs.get(tx, job.id)
            control.retry(tx, found, found.items, at=at, **WHO)
            job.retried = 0
        elif action == "expire":
            due.expire(tx, job.id, at=at)
        else:
            decided = control.invalidate if action == "invalidate" else control.remove
            decided(tx, job.id, at=at, **WHO)

    @precondition(lambda self: any(job.state in HELD for job in self._jobs))
    @rule(data=st.data())
    def cancel_what_runs(self, data: st.DataObject) -> None:
        """Who wants to cancel what waits alone is refused."""
        job = data.draw(st.sampled_from([job for job in self._jobs if job.state in HELD]))
        at = NOW + self._now
        with self.ledger.write() as tx, pytest.raises(WrongStateError, match="and only one in_que"):
            control.cancel(tx, job.id, at=at, only_if_queued=True, **WHO)

    @precondition(lambda self: any(job.leases and job.state != GONE for job in self._jobs))
    @rule(data=st.data())
    def back_off(self, data: st.DataObject) -> None:
        """An attempt wants to be made again: as often as the job may, and while it runs."""
        job = data.draw(st.sampled_from([j for j in self._jobs if j.leases and j.state != GONE]))
        lease = data.draw(st.sampled_from(job.leases))

        def back_off(tx: Connection) -> bool:
            at = NOW + self._now
            found = due.back_off(tx, job.id, at=at, lease=lease, cause="busy", values={})
            return found is not None

        if job.state != "processing" or job.retried >= job.retries:
            with self.ledger.write() as tx:
                assert not back_off(tx)
            return
        with self._move(job, "requeue", lease) as tx:
            assert back_off(tx)
            job.retried += 1

    @rule(seconds=st.sampled_from([1, 30, 60, 61]), all_held=st.booleans())
    def take_over(self, seconds: int, *, all_held: bool) -> None:
        """Time passes, and what nobody holds any more is taken over, or everything at a start."""
        self._now += timedelta(seconds=seconds)
        over = [
            job
            for job in self._jobs
            if job.state in HELD and (all_held or job.leased_until <= self._now)
        ]
        with self.ledger.write() as tx:
            taken = leases.take_over(tx, NOW + self._now, all_held=all_held)
        assert [lost.job_id for lost in taken] == [job.id for job in over]
        for job, lost in zip(over, taken, strict=True):
            assert lost.lease not in job.leases
            job.held(lost.lease, self._now)

    @rule()
    def renew(self) -> None:
        """All attempts that there ever were say that they still run."""
        with self.ledger.write() as tx:
            every = [lease for job in self._jobs for lease in job.leases]
            held = leases.renew(tx, every, NOW + self._now)
        assert held == {job.lease for job in self._jobs if job.lease}
        for job in self._jobs:
            if job.lease:
                job.held(job.lease, self._now)

    # What is always so

    @invariant()
    def every_job_is_what_it_should_be(self) -> None:
        """In its state, with one event for each move; with a lease where an attempt holds it."""
        with self.ledger.read() as tx:
            rows = tx.execute(text("SELECT id, state, lease FROM jobs")).all()
            count = tx.execute(text("SELECT count(*) FROM events")).scalar_one()
        assert {row.id: (row.state, row.lease or "") for row in rows} == {
            job.id: (job.state, job.lease) for job in self._jobs if job.state != GONE
        }
        assert all(bool(row.lease) == (row.state in leases.HELD) for row in rows)
        assert count - self._count == sum(len(job.story) for job in self._jobs)


@pytest.fixture
def quick(url: str) -> Iterator[Ledger]:
    """A ledger for very many transactions."""
    ledger = Ledger(url, Durability.PROCESS_CRASH)
    ledger.open()
    yield ledger
    ledger.close()


@pytest.fixture
def moves(quick: Ledger) -> type[Moves]:
    """What moves jobs of that ledger."""

    class OfThis(Moves):
        ledger = quick

    return OfThis


def test_whatever_moves_jobs_in_whatever_order(moves: type[Moves]) -> None:
    """Jobs go the ways of the table alone; an attempt that has lost its job changes nothing."""
    run_state_machine_as_test(
        moves,
        settings=settings(
            max_examples=20,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("state", [*JobState, GONE])
def test_s4_every_move_is_made_or_refused_in_every_state(moves: type[Moves], state: str) -> None:
    """As the table has it: by who may make it, and by an attempt whose lease is not the job's."""
    ways: dict[str, list[str]] = {"in_queue": [], GONE: ["claim", "finish", "delete"]} | {
        "processing": ["claim"],
        "cancelling": ["claim", "cancel"],
        "finished": ["claim", "finish"],
        "failed": ["claim", "fail"],
        "cancelled": ["cancel"],
        "invalidated": ["claim", "finish", "invalidate"],
    }
    machine = moves()
    try:
        for action, is_late in product(ACTIONS, (False, True)):
            job = machine.go(ways[state])
            assert job.state == state
            machine.do(job, action, "f" * 32 if is_late else job.lease)
            machine.every_job_is_what_it_should_be()
    finally:
        machine.teardown()


@dataclass
class Race:
    """Two threads that meet at jobs: one wants to run them, the other to end them."""

    ledger: Ledger
    ids: list[str]
    claimed: list[bool] = field(default_factory=list)
    found: list[JobState] = field(default_factory=list)

    def claim(self, tx: Connection, job_id: str) -> None:
        """Take a job, where that is still possible."""
        try:
            queue.claim(tx, job_id, NOW)
            self.claimed.append(True)
        except WrongStateError:
            self.claimed.append(False)

    def cancel(self, tx: Connection, job_id: str) -> None:
        """Cancel a job."""
        self.found.append(control.cancel(tx, job_id, at=NOW, **WHO))

    def run(self, rounds: int) -> None:
        """Have them meet at each job, in so many rounds."""
        barrier = threading.Barrier(2, self._put_back)
        thread = threading.Thread(target=self._each, args=(rounds, barrier, self.claim))
        thread.start()
        self._each(rounds, barrier, self.cancel)
        thread.join(PATIENCE)

    def _each(
        self, rounds: int, barrier: threading.Barrier, decide: Callable[[Connection, str], None]
    ) -> None:
        try:
            for job_id in self.ids * rounds:
                # Who lost the last one comes last, and so mostly goes on first.
                barrier.wait(PATIENCE)
                with self.ledger.write() as tx:
                    decide(tx, job_id)
        except BaseException:
            barrier.abort()
            raise

    def _put_back(self) -> None:
        """Have all of them wait again, when both threads have been at each."""
        if len(self.found) % len(self.ids) == 0:
            with self.ledger.write() as tx:
                tx.execute(text("UPDATE jobs SET state = 'in_queue', lease = NULL"))
                tx.execute(text("UPDATE job_items SET state = 'in_queue'"))


def test_t2_t3_cancel_against_claim_exactly_one_wins(quick: Ledger) -> None:
    """They meet thousands of times: a job is cancelled without an attempt, or claimed first."""
    with quick.write() as tx:
        race = Race(quick, [make.add_job(tx).id for _ in range(MEETINGS)])
    race.run(ROUNDS)
    won = {True: JobState.CANCELLING, False: JobState.CANCELLED}
    assert len(race.found) == MEETINGS * ROUNDS
    assert race.found == [won[was_claimed] for was_claimed in race.claimed]
    # Both did happen, or it was no race.
    assert set(race.claimed) == {True, False}
    stories = {True: ["claim", "cancel"], False: ["cancel"]}
    with quick.read() as tx:
        for place, job_id in enumerate(race.ids):
            told = [event.action for event in events.of_subject(tx, job_id)]
            meetings = race.claimed[place::MEETINGS]
            assert told == ["create", *(move for one in meetings for move in stories[one])]
