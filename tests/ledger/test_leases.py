from collections.abc import Callable

import pytest
from sqlalchemy import Connection, text

from dicom_adapter.errors import StaleLeaseError
from dicom_adapter.ledger import Ledger, events, jobs, leases, queue, turns
from dicom_adapter.ledger.columns import EPOCH
from dicom_adapter.lifecycle import Action, Phase
from dicom_adapter.model import JobOutput, JobStep, StepState
from tests.ledger import make
from tests.ledger.make import NOW, after

LEASE = leases.LEASE.total_seconds()


def ends(tx: Connection) -> list[float | None]:
    """Return when the lease of each job runs out, in seconds after the test's beginning."""
    start = NOW.timestamp()
    found = tx.execute(text("SELECT leased_until FROM jobs ORDER BY seq")).scalars()
    return [None if end is None else end / 1e6 - start for end in found]


def finish(tx: Connection, job_id: str, lease: str) -> None:
    """Finish a job as a worker does."""
    queue.move(
        tx,
        job_id,
        Action.FINISH,
        at=after(9),
        values={"finished_at": after(9)},
        lease=lease,
    )


def fail(tx: Connection, job_id: str, lease: str) -> None:
    """Fail a job as a worker does."""
    values = {"finished_at": after(9), "error": "stale"}
    queue.move(tx, job_id, Action.FAIL, at=after(9), values=values, lease=lease)


def put_back(tx: Connection, job_id: str, lease: str) -> None:
    """Put a job back as a worker does."""
    queue.put_back(tx, job_id, at=after(9), lease=lease, reason="drain")


def set_step(tx: Connection, job_id: str, lease: str) -> None:
    """Tell a step's progress as a worker does."""
    queue.set_step(tx, job_id, "a", 0.5, lease=lease)


def set_phase(tx: Connection, job_id: str, lease: str) -> None:
    """Tell how far it is as a worker does."""
    queue.set_phase(tx, job_id, Phase.EXECUTING, lease=lease)


def finish_steps(tx: Connection, job_id: str, lease: str) -> None:
    """End the steps as a worker does."""
    queue.finish_steps(tx, job_id, lease=lease)


def add_outputs(tx: Connection, job_id: str, lease: str) -> None:
    """Write outputs as a worker does."""
    queue.add_outputs(tx, job_id, [JobOutput("a", 1, "0" * 64)], lease=lease)


def hold(tx: Connection, job_id: str, lease: str) -> None:
    """Renew as a worker does before it empties the job's folder."""
    leases.hold(tx, job_id, lease, after(9))


WORK = (finish, fail, put_back, set_step, set_phase, finish_steps, add_outputs, hold)


@pytest.mark.parametrize("work", WORK, ids=[work.__name__ for work in WORK])
@pytest.mark.parametrize("ended", [False, True], ids=["taken", "put-back"])
def test_r13_a_stale_worker_changes_nothing(
    ledger: Ledger, work: Callable[[Connection, str, str], None], *, ended: bool
) -> None:
    """What an attempt does after another took its job over, or ended it, is refused as a whole."""
    with ledger.write() as tx:
        made = make.add_job(tx, steps=(JobStep("a", StepState.WAITING, 0.0),))
        stale = make.claimed(tx).lease
        (taken,) = leases.take_over(tx, after(LEASE))
        if ended:
            put_back(tx, made.id, taken.lease)
        before = (jobs.get(tx, made.id), ends(tx), len(events.of_subject(tx, made.id)))
    with ledger.write() as tx, pytest.raises(StaleLeaseError, match=f"job {made.id} is no longer"):
        work(tx, made.id, stale)
    with ledger.read() as tx:
        assert (jobs.get(tx, made.id), ends(tx), len(events.of_subject(tx, made.id))) == before
        assert make.lease_of(tx, made.id) == ("" if ended else taken.lease)


def test_t2_r13_a_claim_holds_a_lease_until_the_job_leaves_processing(ledger: Ledger) -> None:
    """Each claim has a token of its own; being cancelled keeps it, every end clears it."""
    with ledger.write() as tx:
        made = make.add_job(tx)
        first = make.claimed(tx)
        assert (make.lease_of(tx, made.id), ends(tx)) == (first.lease, [LEASE])
        put_back(tx, made.id, first.lease)
        assert (make.lease_of(tx, made.id), ends(tx)) == ("", [None])
        second = make.claimed(tx, after(5))
        assert second.lease != first.lease
        queue.move(tx, made.id, Action.CANCEL, at=after(6), values={})
        assert (make.lease_of(tx, made.id), ends(tx)) == (second.lease, [5 + LEASE])
        finish(tx, made.id, second.lease)
        assert (make.lease_of(tx, made.id), ends(tx)) == ("", [None])


def test_leases_are_renewed_together(ledger: Ledger) -> None:
    """One call renews all that are named and held, also one that has run out, and tells which."""
    with ledger.write() as tx:
        held, _other, gone = (make.add_job(tx) for _ in range(3))
        first, _second, third = (make.claimed(tx).lease for _ in range(3))
        finish(tx, gone.id, third)
        assert leases.renew(tx, [first, third, "f" * 32], after(99)) == {first}
        assert ends(tx) == [99 + LEASE, LEASE, None]
        assert make.lease_of(tx, held.id) == first
        assert leases.renew(tx, [], after(99)) == set()


def test_only_leases_that_have_run_out_are_taken_over(ledger: Ledger) -> None:
    """A job is left to who holds it, and to who asks; one that never had a lease is taken."""
    with ledger.write() as tx:
        early, own, late, old, _waiting = (make.add_job(tx) for _ in range(5))
        make.claimed(tx)
        make.claimed(tx)
        make.claimed(tx, after(10))
        assert leases.next_end(tx, [own.id]) == after(LEASE)
        assert leases.take_over(tx, after(LEASE - 1), but=[own.id]) == []
        make.claimed(tx)
        tx.execute(text(f"UPDATE jobs SET lease = NULL, leased_until = NULL WHERE id = '{old.id}'"))  # noqa: S608 - our own id
        assert leases.next_end(tx, [own.id]) == EPOCH
        taken = leases.take_over(tx, after(LEASE), but=[own.id])
        assert [(job.job_id, job.name) for job in taken] == [
            (early.id, early.name),
            (old.id, old.name),
        ]
        assert [make.lease_of(tx, job.job_id) for job in taken] == [job.lease for job in taken]
        assert ends(tx) == [2 * LEASE, LEASE, 10 + LEASE, 2 * LEASE, None]
        assert leases.next_end(tx, [own.id]) == after(10 + LEASE)
        assert leases.next_end(tx, [early.id, own.id, late.id, old.id]) is None
        everyone = leases.take_over(tx, after(1), all_held=True)
        assert [job.job_id for job in everyone] == [early.id, own.id, late.id, old.id]


def test_a_job_that_was_to_end_is_not_put_back(ledger: Ledger) -> None:
    """Where an attempt is lost in `cancelling`, the job is cancelled."""
    with ledger.write() as tx:
        made = make.add_job(tx)
        lease = make.claimed(tx).lease
        queue.move(tx, made.id, Action.CANCEL, at=NOW, values={}, why="asked")
        assert queue.put_back(tx, made.id, at=after(3), lease=lease, reason="lost") == "cancelled"
        found = jobs.get(tx, made.id)
    assert (found.state, found.finished_at) == ("cancelled", after(3))
    assert found.items[0].state == "cancelled"


def test_a_job_that_has_not_left_is_not_claimed_again(ledger: Ledger) -> None:
    """A job whose earlier attempt still ends is passed over by the one who knows that."""
    with ledger.write() as tx:
        leaving, other = make.add_job(tx), make.add_job(tx)
        assert turns.next_turn(tx, make.rules(), NOW, but=[leaving.id]) == other.id
