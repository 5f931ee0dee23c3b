import re
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from dicom_adapter.errors import NotFoundError, WrongStateError
from dicom_adapter.ledger import Ledger, due, events, jobs, queue, turns
from dicom_adapter.ledger.jobs import JobFilter
from dicom_adapter.lifecycle import Action, JobState
from dicom_adapter.model import (
    InputFile,
    InputSummary,
    Job,
    JobInput,
    JobOutput,
    JobStep,
    Retries,
    RunRules,
    StepState,
)
from tests.ledger import make
from tests.ledger.make import NOW, after


def claim(ledger: Ledger) -> str:
    """Take the next job and return its name."""
    with ledger.write() as tx:
        return make.claimed(tx).job.name


def finish(ledger: Ledger, job: Job, at: float = 0) -> None:
    """Let a job that is processed finish."""
    with ledger.write() as tx:
        queue.move(
            tx,
            job.id,
            Action.FINISH,
            at=after(at),
            values={"finished_at": after(at)},
        )


def test_a_job_is_read_as_it_was_written(ledger: Ledger) -> None:
    """Every value survives; the inputs and their files keep their order."""
    series = [
        JobInput(
            "1.2",
            f"1.2.{number}",
            "all",
            tuple(InputFile(f"i{number}-{n}", str(n) * 64, f"1.2.{number}.{n}") for n in (2, 1, 3)),
        )
        for number in (9, 1)
    ]
    made = make.job(
        arguments={"threshold": "0.5", "é": "ü"},
        command=("run", "{input}"),
        timeout=1.5,
        steps=(
            JobStep("b", StepState.WAITING, 0.0),
            JobStep("a", StepState.WAITING, 0.0),
        ),
    )
    with ledger.write() as tx:
        added = queue.add(tx, made, [series], queue.Origin("request", "digest", "TEST"))
        assert jobs.inputs_of(tx, made.id) == {made.items[0].id: tuple(series)}
        assert jobs.of_request(tx, "request") == (added, "digest")
        assert jobs.of_request(tx, "other") is None
        (told,) = events.of_subject(tx, made.id)
    summaries = tuple(InputSummary(s.study, s.series, "all", 3) for s in series)
    assert added == replace(made, items=(replace(made.items[0], inputs=summaries),))
    assert (told.kind, told.action, told.to_state, told.actor) == (
        "job",
        "create",
        "in_queue",
        "TEST",
    )


def test_the_rules_of_a_jobs_runs_are_kept(ledger: Ledger) -> None:
    """They are those of its making; a job from before there were rules has those without limits."""
    rules = RunRules(4096, 60.0, 5.0, Retries(3, (75, -9), 1.0, 8.0))
    with ledger.write() as tx:
        ruled, old = make.add_job(tx, rules=rules), make.add_job(tx)
        tx.execute(text("UPDATE jobs SET rules = NULL WHERE id = :id"), {"id": old.id})
        assert jobs.get(tx, ruled.id).rules == rules
        assert jobs.get(tx, old.id).rules == RunRules()
        assert due.next_due(tx, NOW) == after(60)
        assert due.overdue(tx, after(59)) == []
        assert due.overdue(tx, after(60)) == [ruled.id]


def test_a_job_whose_time_has_not_come_is_passed_over(ledger: Ledger) -> None:
    """The claim takes the next one, and the first again from its very moment on."""
    with ledger.write() as tx:
        rules = RunRules(retries=Retries(1, (75,), delay=10.0))
        first, second = make.add_job(tx, name="first", rules=rules), make.add_job(tx, name="second")
        lease = make.claimed(tx).lease
        later = due.back_off(tx, first.id, at=NOW, lease=lease, cause="busy", values={})
        assert later is not None
        assert (later.ready_at, due.next_due(tx, NOW)) == (after(10), after(10))
        assert make.claimed(tx, after(9)).job.id == second.id
        assert turns.next_turn(tx, make.rules(), after(9.999)) is None
        claimed = make.claimed(tx, after(10))
        assert (claimed.job.id, claimed.job.attempts, claimed.job.retried) == (first.id, 2, 1)
        # That was all.
        again = due.back_off(
            tx, first.id, at=after(10), lease=claimed.lease, cause="busy", values={}
        )
        assert (again, due.next_due(tx, after(10))) == (None, None)


def test_a_request_id_makes_one_job(ledger: Ledger) -> None:
    """The database itself refuses a second job of one request."""
    with ledger.write() as tx:
        make.add_job(tx, "request")
    with pytest.raises(IntegrityError), ledger.write() as tx:
        make.add_job(tx, "request")


def test_r16_names_are_never_alike(ledger: Ledger) -> None:
    """Jobs that ask for one name get numbers behind it, and keep the time and 63 characters."""
    long = "brain-tumor-model-" + "p" * 30 + "-20260102030405"
    assert len(long) == 63
    with ledger.write() as tx:
        names = [make.add_job(tx, name=name).name for _ in range(30) for name in ("x", long)]
    assert len(set(names)) == 60
    assert names[:4] == ["x", long, "x-2", "brain-tumor-model-" + "p" * 28 + "-20260102030405-2"]
    for name in names:
        assert re.fullmatch("[a-z0-9](-?[a-z0-9]){0,62}", name)
        assert len(name) <= 63
    assert all("-20260102030405" in name for name in names[1::2])


def test_a_job_is_found_by_its_id_and_by_its_name(ledger: Ledger) -> None:
    """The id goes before a name that looks like it; what is neither is not found."""
    with ledger.write() as tx:
        first = make.add_job(tx, name="first")
        second = make.add_job(tx, name=first.id)
        assert jobs.get(tx, first.id) == first
        assert jobs.get(tx, "first") == first
        assert jobs.get(tx, second.id) == second
        with pytest.raises(NotFoundError, match="no job has the id or name 'third'"):
            jobs.get(tx, "third")


def test_t2_a_claim_begins_an_attempt(ledger: Ledger) -> None:
    """A claim counts, notes its time, and clears what the attempt before left."""
    with ledger.write() as tx:
        job = make.add_job(tx, steps=(JobStep("a", StepState.WAITING, 0.0),))
    claim(ledger)
    with ledger.write() as tx:
        queue.set_step(tx, job.id, "a", 0.5, lease=make.lease_of(tx, job.id))
        queue.move(
            tx,
            job.id,
            Action.REQUEUE,
            at=NOW,
            values={"error": "it was drained"},
            reason="drain",
        )
        assert make.lease_of(tx, job.id) == ""
        claimed = make.claimed(tx, after(7))
        assert claimed.lease == make.lease_of(tx, job.id)
    taken = claimed.job
    assert (taken.attempts, taken.started_at, taken.error, taken.reason) == (2, after(7), "", "")
    assert taken.steps == (JobStep("a", StepState.WAITING, 0.0),)
    assert taken.items[0].state == "processing"


def test_an_illegal_move_is_refused_and_names_the_legal_states(ledger: Ledger) -> None:
    """A move that the table does not have changes nothing and leaves no event."""
    with ledger.write() as tx:
        job = make.add_job(tx)
    with pytest.raises(WrongStateError) as refused:
        finish(ledger, job)
    assert str(refused.value) == (
        "cannot finish a job that is in_queue: it must be processing or cancelling"
    )
    with ledger.read() as tx:
        assert jobs.get(tx, job.id) == job
        assert len(events.of_subject(tx, job.id)) == 1


def test_a_move_of_no_job_is_not_found(ledger: Ledger) -> None:
    """A job that does not exist is told as that, not as a wrong state."""
    with pytest.raises(NotFoundError, match="no job has the id 'unknown'"):
        finish(ledger, make.job(id="unknown"))


def test_a_finished_job_has_its_outputs(ledger: Ledger) -> None:
    """Outputs, steps and state are written together."""
    outputs = (JobOutput("a/b.png", 2**33, "a" * 64), JobOutput("c.json", 0, "b" * 64))
    with ledger.write() as tx:
        job = make.add_job(tx, steps=(JobStep("a", StepState.WAITING, 0.0),))
    claim(ledger)
    with ledger.write() as tx:
        lease = make.lease_of(tx, job.id)
        queue.add_outputs(tx, job.id, outputs, lease=lease)
        queue.finish_steps(tx, job.id, lease=lease)
    finish(ledger, job, 3)
    with ledger.read() as tx:
        found = jobs.get(tx, job.id)
        assert jobs.counts(tx) == {"finished": 1}
        told = [(e.action, e.from_state, e.to_state) for e in events.of_subject(tx, job.id)]
    assert (found.state, found.finished_at, found.outputs) == ("finished", after(3), outputs)
    assert found.steps == (JobStep("a", StepState.DONE, 1.0),)
    assert told[1:] == [
        ("claim", "in_queue", "processing"),
        ("finish", "processing", "finished"),
    ]


def test_steps_before_the_one_that_runs_are_done(ledger: Ledger) -> None:
    """A report about a step ends those before it; an unknown step is told and changes nothing."""
    with ledger.write() as tx:
        steps = tuple(JobStep(name, StepState.WAITING, 0.0) for name in ("a", "b", "c"))
        job = make.add_job(tx, steps=steps)
        lease = make.claimed(tx).lease
        assert queue.set_step(tx, job.id, "b", 0.25, lease=lease)
        assert not queue.set_step(tx, job.id, "d", 1.0, lease=lease)
        found = jobs.get(tx, job.id).steps
        assert queue.set_step(tx, job.id, "b", 1.0, lease=lease)
        assert jobs.get(tx, job.id).steps[1] == JobStep("b", StepState.DONE, 1.0)
    assert found == (
        JobStep("a", StepState.DONE, 1.0),
        JobStep("b", StepState.RUNNING, 0.25),
        JobStep("c", StepState.WAITING, 0.0),
    )


def test_a_page_stays_where_it_was_while_jobs_arrive(ledger: Ledger) -> None:
    """Pages are newest first; a job that arrives meanwhile neither repeats nor hides another."""
    with ledger.write() as tx:
        for number in range(5):
            make.add_job(tx, name=f"job-{number}")
    seen: list[str] = []
    before: int | None = None
    while True:
        with ledger.write() as tx:
            page, before = jobs.listed(tx, JobFilter(), 2, before)
            make.add_job(tx, name=f"late-{len(seen)}")
        seen += [job.name for job in page]
        if before is None:
            break
    assert seen == ["job-4", "job-3", "job-2", "job-1", "job-0"]


def test_a_full_last_page_has_no_next(ledger: Ledger) -> None:
    """A page that ends with the last job says so, and an empty ledger has one empty page."""
    with ledger.write() as tx:
        assert jobs.listed(tx, JobFilter(), 2) == ([], None)
        for number in range(2):
            make.add_job(tx, name=f"job-{number}")
        page, before = jobs.listed(tx, JobFilter(), 2)
    assert (len(page), before) == (2, None)


def test_jobs_of_very_many_outputs_make_shorter_pages(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page holds no more of them than a message may, but always a job; none is left out."""
    monkeypatch.setattr(jobs, "PARTS_PER_PAGE", 6)
    with ledger.write() as tx:
        made = [make.add_job(tx, request_id=str(number)) for number in range(5)]
        for job, count in zip(made, (1, 6, 2, 2, 1), strict=True):
            outputs = [JobOutput(str(n), n, "0" * 64) for n in range(count)]
            queue.add_outputs(tx, job.id, outputs, lease=make.claimed(tx).lease)
    pages, before, more = [], None, True
    while more:
        with ledger.read() as tx:
            page, before = jobs.listed(tx, JobFilter(), 10, before)
        pages.append([len(job.outputs) for job in page])
        more = before is not None
    assert pages == [[1, 2], [2], [6], [1]]


def test_filters_are_all_to_be_met(ledger: Ledger) -> None:
    """Jobs are listed by any of the states and each of the other values."""
    with ledger.write() as tx:
        make.add_job(tx, name="a", pipeline="heart")
        make.add_job(tx, name="b", ae_title="OTHER")
        make.add_job(tx, name="c")
    claim(ledger)

    def names(**wanted: object) -> list[str]:
        with ledger.read() as tx:
            return [job.name for job in jobs.listed(tx, JobFilter(**wanted), 10)[0]]  # type: ignore[arg-type]

    assert names(states=(JobState.PROCESSING,)) == ["a"]
    assert names(states=(JobState.PROCESSING, JobState.IN_QUEUE)) == ["c", "b", "a"]
    assert names(states=(JobState.FAILED,)) == []
    assert names(pipeline="lung") == ["c", "b"]
    assert names(pipeline="lung", ae_title="TEST") == ["c"]
    assert names(name="b") == ["b"]


def test_the_reclaimer_gets_parts_of_ended_jobs(ledger: Ledger) -> None:
    """A part may go when its job has ended long enough ago, once, and never before the end."""
    with ledger.write() as tx:
        early, late, _running, _waiting = (make.add_job(tx, name=name) for name in "abcd")
    for _ in range(3):
        claim(ledger)
    finish(ledger, late, 20)
    finish(ledger, early, 10)
    with ledger.write() as tx:
        assert jobs.next_end(tx, "inputs") == after(10)
        assert jobs.ended_before(tx, "inputs", after(9), 10) == []
        assert jobs.ended_before(tx, "inputs", after(99), 10) == [early.id, late.id]
        jobs.note_reclaimed(tx, "inputs", [early.id], after(30))
        assert jobs.ended_before(tx, "inputs", after(99), 10) == [late.id]
        assert jobs.ended_before(tx, "logs", after(99), 1) == [early.id]
        assert jobs.next_end(tx, "inputs") == after(20)
        assert jobs.get(tx, early.id).reclaimed == {"inputs": after(30)}


def test_a_retried_job_keeps_its_inputs(ledger: Ledger) -> None:
    """The time of an earlier end is no reason to take the inputs of a job that runs again."""
    with ledger.write() as tx:
        job = make.add_job(tx)
    claim(ledger)
    finish(ledger, job)
    with ledger.write() as tx:
        queue.move(tx, job.id, Action.RETRY, at=after(1), values={})
        assert jobs.ended_before(tx, "inputs", after(99), 10) == []
        assert jobs.next_end(tx, "inputs") is None


def test_any_number_of_ids_can_be_asked_for(ledger: Ledger) -> None:
    """More ids than a statement can name are looked up."""
    with ledger.write() as tx:
        job = make.add_job(tx)
        assert jobs.known(tx, [job.id, *map(str, range(40_000))]) == {job.id}


def test_t2_two_claims_of_one_job_cannot_both_succeed(ledger: Ledger) -> None:
    """A job whose state changed between look and move is left alone."""
    with ledger.write() as tx:
        job = make.add_job(tx)
        tx.execute(text("CREATE TEMP TRIGGER sly BEFORE UPDATE OF state ON jobs "
                        "BEGIN SELECT RAISE(IGNORE); END"))  # fmt: skip
        with pytest.raises(
            WrongStateError, match=f"job {job.id} left the state in_queue meanwhile"
        ):
            queue.claim(tx, job.id, NOW)
        tx.execute(text("DROP TRIGGER sly"))
