"""Whose turn it is in the queue, and what holds the others back."""

from typing import Any

import pytest

from dicom_adapter.ledger import Ledger, jobs, pauses, queue, turns
from dicom_adapter.ledger.turns import DAY, Limits, Rules
from dicom_adapter.lifecycle import Action
from dicom_adapter.model import Job, Priority, Resources
from tests.ledger import make
from tests.ledger.make import MIB, NOW, after

MACHINE = Resources(4, 100 * MIB, 1)
HOUR = 3600.0


def add(ledger: Ledger, name: str, at: float = 0, **values: Any) -> Job:  # noqa: ANN401 - its fields
    """Put a job into the queue."""
    with ledger.write() as tx:
        return make.add_job(tx, name=name, created_at=after(at), **values)


def needing(cpus: int = 1, memory: int = MIB, gpus: int = 0) -> Resources:
    """Return what a job needs."""
    return Resources(cpus, memory, gpus)


def claim(ledger: Ledger, rules: Rules | None = None, at: float = 0) -> str:
    """Take the next job and return its name, empty when none may start."""
    with ledger.write() as tx:
        job_id = turns.next_turn(tx, rules or make.rules(MACHINE), after(at))
        return "" if job_id is None else queue.claim(tx, job_id, after(at)).job.name


def end(ledger: Ledger, name: str, at: float = 0) -> None:
    """Let a job that runs finish."""
    with ledger.write() as tx:
        queue.move(
            tx,
            jobs.id_of(tx, name),
            Action.FINISH,
            at=after(at),
            values={"finished_at": after(at)},
        )


def why(ledger: Ledger, name: str, rules: Rules | None = None, at: float = 0) -> str:
    """Return what holds a job back."""
    with ledger.read() as tx:
        job = jobs.get(tx, name)
        return turns.why_waiting(tx, rules or make.rules(MACHINE), job, after(at))


def before(ledger: Ledger, name: str) -> int:
    """Return how many jobs are before one."""
    with ledger.read() as tx:
        return turns.before(tx, make.rules(MACHINE), jobs.get(tx, name))


def test_s45_the_queue_goes_by_priority_then_by_registration(ledger: Ledger) -> None:
    """The most urgent job is taken first; of equal ones, also of one moment, the first made."""
    order = [Priority.NORMAL, Priority.LOWER, Priority.IMMEDIATE, Priority.NORMAL, Priority.HIGHER]
    for number, priority in enumerate(order):
        add(ledger, f"{priority.label}-{number}", priority=priority)
    names = ["immediate-2", "higher-4", "normal-0", "normal-3", "lower-1"]
    assert [before(ledger, name) for name in names] == [0, 1, 2, 3, 4]
    rules = make.rules()
    assert [claim(ledger, rules) for _ in range(6)] == [*names, ""]


def test_waiting_is_worth_priority_so_that_nothing_starves(ledger: Ledger) -> None:
    """A job of lower priority is overtaken only by those that come within its hour a step."""
    add(ledger, "lower", priority=Priority.LOWER, pipeline="other")
    for at in (HOUR - 1, HOUR, HOUR + 1):
        add(ledger, f"normal-{at:.0f}", at, priority=Priority.NORMAL)
    add(ledger, "immediate", 3 * HOUR + 1, priority=Priority.IMMEDIATE)
    assert before(ledger, "lower") == 1
    order = [claim(ledger, make.rules(), 4 * HOUR) for _ in range(5)]
    assert order == ["normal-3599", "lower", "normal-3600", "normal-3601", "immediate"]


def test_r13b_a_big_job_does_not_starve_behind_small_ones(ledger: Ledger) -> None:
    """The first job is waited for, however many small ones would fit; what can never run is not."""
    add(ledger, "never", requested=needing(cpus=5), priority=Priority.HIGHER)
    add(ledger, "runs", requested=needing(cpus=1))
    assert claim(ledger) == "runs"
    add(ledger, "big", requested=needing(cpus=4))
    for number in range(50):
        add(ledger, f"small-{number}", 1, requested=needing(cpus=1))
    assert claim(ledger) == ""
    assert why(ledger, "big") == "it needs 4 CPUs, and the machine has free 3"
    assert before(ledger, "small-3") == 5
    end(ledger, "runs")
    assert claim(ledger) == "big"
    assert claim(ledger) == ""
    end(ledger, "big")
    assert claim(ledger) == "small-0"
    assert why(ledger, "never") == (
        "it can never start here: it needs 5 CPUs, and the machine has 4 for jobs: raise "
        "platform.capacity"
    )


def test_what_delays_nobody_may_overtake(ledger: Ledger) -> None:
    """A job that waits for the graphics processor lets those by that leave all else it needs."""
    add(ledger, "first", requested=needing(gpus=1))
    assert claim(ledger) == "first"
    add(ledger, "second", requested=needing(cpus=2, gpus=1))
    add(ledger, "third", requested=needing(gpus=1))
    add(ledger, "too big", requested=needing(cpus=2))
    add(ledger, "small", requested=needing(cpus=1))
    assert claim(ledger) == "small"
    assert claim(ledger) == ""
    end(ledger, "first")
    assert claim(ledger) == "second"


def test_the_last_place_is_kept_for_the_first_of_the_queue(ledger: Ledger) -> None:
    """Who overtakes takes no place that the first one waits for."""
    rules = make.rules(MACHINE, max_jobs=2)
    add(ledger, "first", requested=needing(gpus=1))
    assert claim(ledger, rules) == "first"
    add(ledger, "second", requested=needing(gpus=1))
    add(ledger, "small")
    assert claim(ledger, rules) == ""
    end(ledger, "first")
    assert [claim(ledger, rules) for _ in range(3)] == ["second", "small", ""]
    add(ledger, "fourth")
    assert why(ledger, "fourth", rules) == "platform.max_jobs is reached: 2 run"


def test_a_pipeline_at_its_limit_lets_the_others_by(ledger: Ledger) -> None:
    """As many run of a pipeline as its limit lets; other pipelines do not wait for it."""
    rules = make.rules(lung=Limits(running=2))
    for number in range(4):
        add(ledger, f"lung-{number}", pipeline="lung", priority=Priority.HIGHER)
    add(ledger, "heart", pipeline="heart")
    assert [claim(ledger, rules) for _ in range(4)] == ["lung-0", "lung-1", "heart", ""]
    told = "limits.running of the pipeline lung is reached: 2 run"
    assert why(ledger, "lung-2", rules) == told
    end(ledger, "lung-0")
    assert [claim(ledger, rules), claim(ledger, rules)] == ["lung-2", ""]


def test_a_daily_limit_holds_for_any_24_hours(ledger: Ledger) -> None:
    """The next job starts when the first of so many started a day ago, and that moment is known."""
    rules = make.rules(lung=Limits(daily=2))
    for number in range(4):
        add(ledger, f"lung-{number}")
    assert claim(ledger, rules, 0) == "lung-0"
    assert claim(ledger, rules, HOUR) == "lung-1"
    end(ledger, "lung-0", HOUR)
    assert claim(ledger, rules, 2 * HOUR) == ""
    assert why(ledger, "lung-2", rules, 2 * HOUR) == (
        "limits.daily of the pipeline lung is reached: 2 started within 24 hours: "
        f"the next one starts at {NOW + DAY:%Y-%m-%d %H:%M} UTC"
    )
    with ledger.read() as tx:
        assert turns.next_allowance(tx, rules, after(2 * HOUR)) == NOW + DAY
    day = DAY.total_seconds()
    assert [claim(ledger, rules, day), claim(ledger, rules, day)] == ["lung-2", ""]
    with ledger.read() as tx:
        assert turns.next_allowance(tx, rules, after(day)) == after(HOUR) + DAY
        assert turns.next_allowance(tx, make.rules(), after(day)) is None


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_pause_lasts_until_it_is_ended(ledger: Ledger, rounds: int) -> None:
    """Who pauses twice, or goes on twice, has changed nothing by the second time."""
    for _ in range(rounds):
        with ledger.write() as tx:
            assert pauses.current(tx) is None
            pauses.pause(tx, at=NOW, actor="local", why="a new disk")
            pauses.pause(tx, at=after(1), actor="other", why="")
            found = pauses.current(tx)
            assert found is not None
            assert (found.at, found.actor, found.reason) == (NOW, "local", "a new disk")
            pauses.resume(tx, at=after(2), actor="local", why="")
            pauses.resume(tx, at=after(3), actor="local", why="")
