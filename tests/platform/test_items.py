"""Jobs of several items: each runs, ends, is cancelled and run again on its own."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_adapter.config import Retries
from dicom_adapter.errors import InvalidArgumentError, WrongStateError
from dicom_adapter.ledger import control, events, items, queue
from dicom_adapter.lifecycle import ENDED_ITEM, CancelPolicy, ItemState, JobState, roll_up
from dicom_adapter.model import LOCAL, Job
from dicom_adapter.platform.selection import Selection
from tests.platform.harness import (
    SOMEBODY,
    Platform,
    leave_half_retried,
    part10,
    platform,
    sh,
    wait_for_file,
)

#: Does what the text of its input says, behind the 132 bytes that a file begins with.
SCRIPT = 'tail -c +133 "$DICOM_ADAPTER_INPUT"/001/000001.dcm > s; . ./s'
DONE = 'echo done > "$DICOM_ADAPTER_OUTPUT/out"'
#: Waits until a test says go on.
GATE = f"touch ../../../up; until [ -e ../../../go ]; do sleep 0.01; done; {DONE}"


def batch(made: Platform, *scripts: str, **values: Any) -> Job:  # noqa: ANN401 - a request's fields
    """Make a job of an item for each script, which does what that says."""
    inputs = tuple(made.series(part10(f"\n{script} #{os.urandom(4).hex()}")) for script in scripts)
    return made.operations.submit(LOCAL, made.request(items=inputs, **values))


def states(job: Job) -> list[str]:
    """Return the states of a job's items."""
    return [str(item.state) for item in job.items]


@contextmanager
def running(folder: Path, **values: Any) -> Iterator[Platform]:  # noqa: ANN401 - a Pipeline's fields
    """Run a platform whose jobs do what their inputs say."""
    with platform(folder, sh(SCRIPT, **values)) as made:
        yield made


def until_up(made: Platform) -> None:
    """Wait until an item stands at its gate."""
    wait_for_file(made.folder / "platform" / "up")


def open_gate(made: Platform) -> None:
    """Let what stands at its gate go on."""
    (made.folder / "platform" / "go").touch()


def all_outputs(made: Platform, job: Job) -> list[str]:
    """Return the files that a job has put out: on the disk, and the ledger says the same."""
    output = made.workspaces.of(job.id).output
    found = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    assert sorted(told.path for told in job.outputs) == found
    return found


def claim_again(made: Platform, job: Job) -> None:
    """Leave what a crash leaves: a job that has begun its next item, and nobody runs."""
    with made.ledger.write() as tx:
        queue.claim(tx, job.id, made.clock.now())


def test_items_run_in_their_order_each_on_its_own(tmp_path: Path) -> None:
    """Each has its own inputs, outputs, log part and record; the job finishes with the last."""
    with running(tmp_path) as made:
        job = made.until(batch(made, f"echo one; {DONE}", f"echo two; {DONE}", "echo three"))
        assert (job.state, states(job)) == ("finished", ["finished"] * 3)
        assert [output.path for output in job.outputs] == ["0001/out", "0002/out"]
        assert made.output_of(job, "0002/out") == "done\n"
        assert made.log_of(job) == (
            "--- item 1 ---\none\n--- item 2 ---\ntwo\n--- item 3 ---\nthree\n"
        )
        started = [item.started_at for item in job.items]
        assert None not in started
        assert job.used is not None
        walls = [item.used.wall_seconds for item in job.items if item.used]
        assert job.used.wall_seconds == pytest.approx(sum(walls))
        for number in (1, 2, 3):
            record = json.loads(b"".join(made.views.provenance(LOCAL, job.id, str(number))))
            assert record["item"] == {"id": job.items[number - 1].id, "number": number, "of": 3}
            assert [one["path"] for one in record["outputs"]] == [
                f"000{number}/out" for _ in range(number < 3)
            ]
        with pytest.raises(InvalidArgumentError, match="must be one of the 3 of"):
            made.views.provenance(LOCAL, job.id)
        with made.ledger.read() as tx:
            moves = [event.action for event in events.of_subject(tx, job.id)]
    assert moves == ["create", "claim", "finish"]


def test_one_that_fails_keeps_none_of_the_others(tmp_path: Path) -> None:
    """The job says so at once, goes on, and fails when all have ended; results stay."""
    with running(tmp_path) as made:
        job = batch(made, DONE, "echo broken; exit 3", GATE)
        until_up(made)
        meanwhile = made.views.get(LOCAL, job.id)
        assert (meanwhile.state, states(meanwhile)) == (
            "processing",
            ["finished", "failed", "processing"],
        )
        assert [output.path for output in meanwhile.outputs] == ["0001/out"]
        assert b"".join(made.views.output(LOCAL, job.id, "0001/out")) == b"done\n"
        open_gate(made)
        job = made.until(job)
        assert (job.state, job.reason) == ("failed", "pipeline_error")
        assert states(job) == ["finished", "failed", "finished"]
        told = "the command ended with exit code 3; the log ends with: broken"
        assert job.items[1].error == told
        assert (job.items[1].exit_code, job.exit_code) == (3, None)
        assert job.error == f"1 of 3 items failed; item 2: {told}"
        assert [output.path for output in job.outputs] == ["0001/out", "0003/out"]


def test_fail_fast_cancels_what_is_behind(tmp_path: Path) -> None:
    """Where that is asked for, nothing more is begun."""
    with running(tmp_path) as made:
        job = made.until(batch(made, DONE, "exit 1", DONE, DONE, fail_fast=True))
        assert (job.state, states(job)) == (
            "failed",
            ["finished", "failed", "cancelled", "cancelled"],
        )


def test_broken_input_fails_its_own_item(tmp_path: Path) -> None:
    """The others run."""
    with running(tmp_path) as made:
        made.platform.pause(LOCAL)
        job = batch(made, DONE, DONE)
        (made.workspaces.of(job.id).input / "0001" / "001" / "000001.dcm").unlink()
        made.platform.resume(LOCAL)
        job = made.until(job)
        assert (job.state, states(job)) == ("failed", ["failed", "finished"])
        assert job.items[0].reason == "input_error"


@pytest.mark.parametrize("policy", list(CancelPolicy))
def test_s114_s115_cancelling_the_job_ends_what_runs_and_begins_nothing(
    tmp_path: Path, policy: CancelPolicy
) -> None:
    """What has finished stays, what waits is cancelled at once, what runs as its pipeline says."""
    with running(tmp_path, cancel=policy) as made:
        job = batch(made, DONE, f"trap 'exit 9' TERM; {GATE}", DONE)
        until_up(made)
        now = made.control.cancel(SOMEBODY, job.id)
        assert (now.state, states(now)) == ("cancelling", ["finished", "cancelling", "cancelled"])
        if policy == CancelPolicy.DRAIN:
            open_gate(made)
        job = made.until(job)
        drained = policy == CancelPolicy.DRAIN
        assert states(job) == ["finished", "finished" if drained else "cancelled", "cancelled"]
        assert job.state == "cancelled"
        assert [output.path for output in job.outputs] == [
            "0001/out",
            *(["0002/out"] if drained else []),
        ]


def test_items_are_cancelled_on_their_own(tmp_path: Path) -> None:
    """One that waits at once, one that runs by force; the others go on, the job says what came."""
    with running(tmp_path) as made:
        job = batch(made, DONE, "touch ../../../up; sleep 1000", DONE, DONE)
        until_up(made)
        now = made.control.cancel_items(SOMEBODY, job.id, ["2", job.items[2].id], why="blurred")
        assert now.state == "processing"
        assert states(now)[1:3] == ["cancelling", "cancelled"]
        job = made.until(job)
        assert (job.state, states(job)) == (
            "cancelled",
            ["finished", "cancelled", "cancelled", "finished"],
        )
        with made.ledger.read() as tx:
            told = [(e.action, e.actor, e.reason) for e in events.of_subject(tx, job.id)][2:]
        assert told == [
            ("cancel-items", "somebody", "items 2, 3: blurred"),
            ("cancel", "system", "items were cancelled"),
            ("stop", "system", ""),
        ]
        for item, error in (("1", "item 1 of .* has ended: it is finished"), ("5", "no item '5'")):
            with pytest.raises((WrongStateError, InvalidArgumentError), match=error):
                made.control.cancel_items(SOMEBODY, job.id, [item])


def test_a_job_whose_items_are_all_cancelled_in_the_queue_is_cancelled(tmp_path: Path) -> None:
    """It never starts, and the machine's places are nobody's."""
    with running(tmp_path) as made:
        made.platform.pause(LOCAL)
        job = batch(made, DONE, DONE)
        first = made.control.cancel_items(SOMEBODY, job.id, ["1"])
        assert (first.state, states(first)) == ("in_queue", ["cancelled", "in_queue"])
        both = made.control.cancel_items(SOMEBODY, job.id, ["2"])
        assert (both.state, states(both)) == ("cancelled", ["cancelled", "cancelled"])
        made.platform.resume(LOCAL)
        other = made.until(batch(made, DONE))
        assert other.state == "finished"
        assert made.views.get(LOCAL, job.id).attempts == 0


def failing(made: Platform) -> Job:
    """Return a job that has failed: its second item does until there is a file."""
    return made.until(batch(made, DONE, f"[ -e ../../../good ] || exit 1; {DONE}", DONE))


def retried(made: Platform, job: Job, **values: Any) -> Job:  # noqa: ANN401 - a Selection's fields
    """Run items again, and wait for the end."""
    (made.folder / "platform" / "good").touch()
    confirm = values.pop("confirm", False)
    made.control.retry(SOMEBODY, job.id, selection=Selection(**values), confirm=confirm)
    return made.until(job)


def test_s106_what_failed_runs_again_and_the_rest_stays(tmp_path: Path) -> None:
    """The others keep their states, results and records; the job is the same one."""
    with running(tmp_path) as made:
        job = failing(made)
        before = {
            path: path.stat().st_ino for path in made.workspaces.of(job.id).output.rglob("out")
        }
        would = made.control.retry(SOMEBODY, job.id, dry_run=True)
        assert states(would) == ["finished", "in_queue", "finished"]
        assert states(made.views.get(LOCAL, job.id)) == ["finished", "failed", "finished"]
        again = retried(made, job)
        assert (again.state, again.name, again.attempts) == ("finished", job.name, 2)
        assert again.items[0] == job.items[0]
        assert [output.path for output in again.outputs] == ["0001/out", "0002/out", "0003/out"]
        assert {path: path.stat().st_ino for path in before} == before
        assert (again.error, again.reason, again.superseded_outputs) == ("", "", {})


@pytest.mark.parametrize(
    ("chosen", "items_"),
    [
        ({"items": ("1",)}, [1]),
        ({"states": (ItemState.FINISHED,)}, [1, 3]),
        ({"full": True}, [1, 2, 3]),
    ],
    ids=["items", "states", "full"],
)
def test_s104_s107_s108_finished_items_are_repeated_where_that_is_meant(
    tmp_path: Path, chosen: dict[str, Any], items_: list[int]
) -> None:
    """What they had put out is superseded, and kept; nobody repeats it by mistake."""
    with running(tmp_path) as made:
        job = failing(made)
        with pytest.raises(WrongStateError, match="work would be done once more: confirm"):
            made.control.retry(SOMEBODY, job.id, selection=Selection(**chosen))
        again = retried(made, job, confirm=True, **chosen)
        kept = [f"000{number}/out" for number in items_ if number != 2]
        assert [output.path for output in again.superseded_outputs[1]] == kept
        folder = made.workspaces.of(job.id).superseded / "1"
        assert sorted(str(p.relative_to(folder)) for p in folder.rglob("out")) == kept
        assert again.state == ("finished" if chosen.get("full") else "failed")


def test_what_cannot_be_chosen_is_told(tmp_path: Path) -> None:
    """An item that is not there, a state that none is in, two ways at once."""
    with running(tmp_path) as made:
        job = failing(made)
        for chosen, told in (
            ({"items": ("9",)}, "has no item '9'; it has 1 to 3"),
            ({"states": (ItemState.CANCELLED,)}, "no item of .* is cancelled"),
            ({"items": ("1",), "full": True}, "must be named, or chosen by states, or all"),
        ):
            with pytest.raises((WrongStateError, InvalidArgumentError), match=told):
                made.control.retry(SOMEBODY, job.id, selection=Selection(**chosen))


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_retry_of_items_that_a_crash_cut_off(tmp_path: Path, *, is_committed: bool) -> None:
    """The next start has each item's outputs lie where the ledger says."""
    with running(tmp_path) as made:
        job = made.until(batch(made, DONE, DONE))
        made.scheduler.stop(10)
        if is_committed:
            with made.ledger.write() as tx:
                control.retry(tx, job, job.items[1:], at=made.clock.now(), actor="ann", why="")
        else:
            leave_half_retried(made, job, job.items[1])
    with running(tmp_path) as again:
        found = again.until(job)
        assert (found.state, states(found)) == ("finished", ["finished", "finished"])
        assert [again.output_of(found, output.path) for output in found.outputs] == ["done\n"] * 2
        aside = again.workspaces.of(job.id).superseded / "1" / "0002" / "out"
        assert aside.exists() == is_committed


def test_a_stop_keeps_what_has_ended(tmp_path: Path) -> None:
    """The next start goes on with the item that was running; no item runs twice but that one."""
    with running(tmp_path) as made:
        count = "echo x >> ../../../count"
        job = batch(made, f"{count}; {DONE}", f"{count}; {GATE}", f"{count}; {DONE}")
        until_up(made)
        made.scheduler.stop(10)
        back = made.views.get(LOCAL, job.id)
        assert (back.state, states(back)) == ("in_queue", ["finished", "in_queue", "in_queue"])
        open_gate(made)
        made.restart()
        job = made.until(job)
        assert (job.state, job.attempts) == ("finished", 2)
        assert (made.folder / "platform" / "count").read_text() == "x\n" * 4


def test_a_crash_keeps_what_has_ended(tmp_path: Path) -> None:
    """What became of the items before the one that it cut off stays, outputs and record."""
    with running(tmp_path) as made:
        job = batch(made, DONE, GATE, DONE)
        until_up(made)
        made.scheduler.stop(10)
        claim_again(made, job)
        open_gate(made)
        made.restart()
        job = made.until(job)
        assert (job.state, job.attempts) == ("finished", 3)
        assert all_outputs(made, job) == ["0001/out", "0002/out", "0003/out"]
        records = sorted((made.workspaces.of(job.id).folder / "provenance").iterdir())
        assert [path.name for path in records] == ["0001.json", "0002.json", "0003.json"]


def test_a_passing_trouble_is_waited_for_with_its_item(tmp_path: Path) -> None:
    """The pipeline's retries hold for an item: what is done already is not done again."""
    retries = Retries(attempts=2, exit_codes=(75,), delay=1)
    with running(tmp_path, retries=retries) as made:
        moody = f"[ -e ../../../good ] || {{ touch ../../../good; exit 75; }}; {DONE}"
        count = "echo x >> ../../../count"
        job = batch(made, f"{count}; {DONE}", moody)
        waits = made.until(job, "in_queue")
        made.ledger.wait_for(lambda: made.views.get(LOCAL, job.id).reason == "backoff", 10)
        waits = made.views.get(LOCAL, job.id)
        assert states(waits) == ["finished", "in_queue"]
        assert made.output_of(job, "0001/out") == "done\n"
        made.clock.advance(1)
        made.wake()
        job = made.until(job)
        assert (job.state, job.retried) == ("finished", 1)
        assert all_outputs(made, job) == ["0001/out", "0002/out"]
        assert (made.folder / "platform" / "count").read_text() == "x\n"


def test_a_rerun_has_all_items(tmp_path: Path) -> None:
    """With the inputs of each, also when nothing else has them any more."""
    with running(tmp_path) as made:
        job = failing(made)
        again = made.until(made.operations.rerun(SOMEBODY, job.id, latest=False))
        assert states(again) == ["finished", "failed", "finished"]
        assert {item.id for item in again.items}.isdisjoint(item.id for item in job.items)


ITEM_STATES = st.lists(st.sampled_from(ItemState), min_size=1)


@given(found=ITEM_STATES, cancelling=st.booleans(), started=st.booleans())
def test_a_job_is_what_its_items_make_it(
    found: list[ItemState], *, cancelling: bool, started: bool
) -> None:
    """While one has not ended it is under way; then a failed one counts, or else a cancelled."""
    state = roll_up(found, cancelling=cancelling, started=started)
    if ENDED_ITEM.issuperset(found):
        order = ((ItemState.FAILED, JobState.FAILED), (ItemState.CANCELLED, JobState.CANCELLED))
        assert state == next((job for one, job in order if one in found), JobState.FINISHED)
    elif cancelling:
        assert state == JobState.CANCELLING
    else:
        assert state == (JobState.PROCESSING if started else JobState.IN_QUEUE)


def test_cancelling_an_item_at_any_moment(tmp_path: Path) -> None:
    """It is cancelled, or had ended before; never does it hang, and the others are not touched."""
    with running(tmp_path) as made:
        for _ in range(10):
            job = batch(made, DONE, DONE, DONE)
            try:
                made.control.cancel_items(SOMEBODY, job.id, ["2"])
            except WrongStateError:
                expected: Callable[[str], bool] = lambda state: state == "finished"  # noqa: E731
            else:
                expected = lambda state: state in ("cancelled", "finished")  # noqa: E731
            job = made.until(job)
            assert expected(states(job)[1])
            assert [states(job)[0], states(job)[2]] == ["finished", "finished"]
            with made.ledger.read() as tx:
                assert items.summary(tx, job.id).states == [item.state for item in job.items]
