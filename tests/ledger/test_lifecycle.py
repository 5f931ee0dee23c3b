import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_adapter.errors import WrongStateError
from dicom_adapter.lifecycle import MOVES, TERMINAL, Action, JobState, Reason, diagram, target_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "jobs.md"

#: Every legal move: from, by what, to; "" is a job that is not made yet, or deleted.
LEGAL = {
    ("", "create", "in_queue"): "operator, system",
    ("in_queue", "claim", "processing"): "worker",
    ("in_queue", "cancel", "cancelled"): "operator",
    ("in_queue", "expire", "failed"): "system",
    ("processing", "cancel", "cancelling"): "operator",
    ("processing", "finish", "finished"): "worker",
    ("processing", "fail", "failed"): "worker, system",
    ("processing", "requeue", "in_queue"): "system, worker",
    ("cancelling", "stop", "cancelled"): "worker, system",
    ("cancelling", "finish", "finished"): "worker, system",
    ("cancelling", "fail", "failed"): "worker, system",
    ("failed", "retry", "in_queue"): "operator",
    ("cancelled", "retry", "in_queue"): "operator",
    ("finished", "retry", "in_queue"): "operator",
    ("finished", "invalidate", "invalidated"): "manager",
    ("finished", "delete", ""): "operator",
    ("failed", "delete", ""): "operator",
    ("cancelled", "delete", ""): "operator",
    ("invalidated", "delete", ""): "operator",
}


def test_s4_the_table_has_every_legal_move_and_no_other() -> None:
    """The moves, and who may make them, are those that were decided; none is in there twice."""
    found = {(m.source or "", str(m.action), m.target or ""): ", ".join(m.who) for m in MOVES}
    assert found == LEGAL
    assert len(MOVES) == len(LEGAL)


@given(source=st.sampled_from([None, *JobState]), action=st.sampled_from(Action))
def test_what_the_table_does_not_have_is_refused(source: JobState | None, action: Action) -> None:
    """An action leads where the table says; elsewhere it is refused, naming the legal states."""
    targets = [to for (start, by, to) in LEGAL if (start, by) == (source or "", action)]
    if targets:
        assert (target_of(source, action) or "") == targets[0]
        return
    allowed = [start or "not made yet" for (start, by, _) in LEGAL if by == action]
    with pytest.raises(WrongStateError) as refused:
        target_of(source, action)
    assert str(refused.value) == (
        f"cannot {action} a job that is {source or 'not made yet'}: "
        f"it must be {' or '.join(allowed)}"
    )


def test_a_job_can_be_deleted_in_its_terminal_states_only() -> None:
    """Terminal are the states that work has left for good, and only those may be deleted."""
    deletable = {m.source for m in MOVES if m.action == Action.DELETE}
    assert deletable == TERMINAL
    worked_on = {m.source for m in MOVES if m.action in {Action.CLAIM, Action.FINISH, Action.FAIL}}
    assert not TERMINAL & worked_on


def test_every_state_is_reached_and_can_be_left() -> None:
    """No state of a job is a dead end, and none is out of reach."""
    assert {m.target for m in MOVES} >= set(JobState)
    assert {m.source for m in MOVES} >= set(JobState)


def test_the_document_shows_the_table() -> None:
    """docs/jobs.md holds the diagram as the table draws it, and names every state and reason."""
    text = DOCUMENT.read_text("utf-8")
    shown = re.search(r"<!-- moves -->\n```mermaid\n(.*)\n```\n<!-- end -->", text, re.DOTALL)
    assert shown is not None, "docs/jobs.md has lost its marks"
    assert shown[1] == diagram(), f"put this between the marks of docs/jobs.md:\n{diagram()}"
    for word in (*JobState, *Reason):
        assert f"`{word}`" in text, word
