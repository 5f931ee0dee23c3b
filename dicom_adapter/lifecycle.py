"""The rules of a job's life: its states, and every legal move between them, in one table.

Everything that decides whether a job may move is in this file; the ledger applies a move with one
conditional UPDATE and one event row, and docs/jobs.md draws its diagram from this table. The states
are few, the reason codes many.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from dicom_adapter.errors import WrongStateError


class JobState(StrEnum):
    """What a job is doing."""

    IN_QUEUE = "in_queue"
    PROCESSING = "processing"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INVALIDATED = "invalidated"


class ItemState(StrEnum):
    """Where an item of a job stands."""

    IN_QUEUE = "in_queue"
    PROCESSING = "processing"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({JobState.FINISHED, JobState.FAILED, JobState.CANCELLED, JobState.INVALIDATED})
#: The states of a job whose last attempt ended well: what it has put out is kept.
FRUITFUL = frozenset({JobState.FINISHED, JobState.INVALIDATED})


#: The states that an item does not leave before it is run again.
ENDED_ITEM = frozenset({ItemState.FINISHED, ItemState.FAILED, ItemState.CANCELLED})


class Phase(StrEnum):
    """How far the attempt is that holds a job."""

    #: Its inputs are checked, and its folder is made ready.
    PREPARING = "preparing"
    #: Its command runs.
    EXECUTING = "executing"
    #: Its command has ended well, and its outputs are checked and hashed.
    FINALIZING = "finalizing"


class Action(StrEnum):
    """What moves a job."""

    CREATE = "create"
    CLAIM = "claim"
    CANCEL = "cancel"
    STOP = "stop"
    FINISH = "finish"
    FAIL = "fail"
    REQUEUE = "requeue"
    RETRY = "retry"
    INVALIDATE = "invalidate"
    EXPIRE = "expire"
    DELETE = "delete"


class CancelPolicy(StrEnum):
    """What a cancellation does to a job that runs."""

    #: End its whole process tree, by force if need be.
    KILL = "kill"
    #: Let it end by itself.
    DRAIN = "drain"
    #: Ask its process to end, and let it decide.
    REQUEST = "request"


class Role(StrEnum):
    """What people may do; each role may do what those before it may."""

    #: Look at everything.
    VIEWER = "viewer"
    #: Make jobs, and decide about everybody's.
    OPERATOR = "operator"
    #: Say that outputs are wrong, and have the platform stand still.
    MANAGER = "manager"
    #: Give tokens away, change the configuration, and read the audit trail.
    ADMIN = "admin"

    def covers(self, other: "Role") -> bool:
        """Tell whether it may do all that another role may."""
        roles = list(Role)
        return roles.index(self) >= roles.index(other)


class Machine(StrEnum):
    """What moves jobs without being told to."""

    #: The attempt that holds the job.
    WORKER = "worker"
    #: The platform itself.
    SYSTEM = "system"


class Reason(StrEnum):
    """Why a job is where it is."""

    DRAIN = "drain"
    LOST = "lost"
    BACKOFF = "backoff"
    PIPELINE_ERROR = "pipeline_error"
    INPUT_ERROR = "input_error"
    OUTPUT_INVALID = "output_invalid"
    RUN_TIMEOUT = "run_timeout"
    SILENCE_TIMEOUT = "silence_timeout"
    QUEUE_TIMEOUT = "queue_timeout"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL = "internal"


@dataclass(frozen=True)
class Move:
    """One legal move; `source` None is a job not made yet, `target` None a job deleted."""

    source: JobState | None
    action: Action
    target: JobState | None
    who: tuple[Role | Machine, ...]


_S = JobState
_OPERATOR, _MANAGER, _WORKER, _SYSTEM = Role.OPERATOR, Role.MANAGER, Machine.WORKER, Machine.SYSTEM
MOVES: tuple[Move, ...] = (
    Move(None, Action.CREATE, _S.IN_QUEUE, (_OPERATOR, _SYSTEM)),
    Move(_S.IN_QUEUE, Action.CLAIM, _S.PROCESSING, (_WORKER,)),
    Move(_S.IN_QUEUE, Action.CANCEL, _S.CANCELLED, (_OPERATOR,)),
    Move(_S.IN_QUEUE, Action.EXPIRE, _S.FAILED, (_SYSTEM,)),
    Move(_S.PROCESSING, Action.FINISH, _S.FINISHED, (_WORKER,)),
    Move(_S.PROCESSING, Action.FAIL, _S.FAILED, (_WORKER, _SYSTEM)),
    Move(_S.PROCESSING, Action.REQUEUE, _S.IN_QUEUE, (_SYSTEM, _WORKER)),
    Move(_S.PROCESSING, Action.CANCEL, _S.CANCELLING, (_OPERATOR,)),
    Move(_S.CANCELLING, Action.STOP, _S.CANCELLED, (_WORKER, _SYSTEM)),
    Move(_S.CANCELLING, Action.FINISH, _S.FINISHED, (_WORKER, _SYSTEM)),
    Move(_S.CANCELLING, Action.FAIL, _S.FAILED, (_WORKER, _SYSTEM)),
    Move(_S.FAILED, Action.RETRY, _S.IN_QUEUE, (_OPERATOR,)),
    Move(_S.CANCELLED, Action.RETRY, _S.IN_QUEUE, (_OPERATOR,)),
    Move(_S.FINISHED, Action.RETRY, _S.IN_QUEUE, (_OPERATOR,)),
    Move(_S.FINISHED, Action.INVALIDATE, _S.INVALIDATED, (_MANAGER,)),
    Move(_S.FINISHED, Action.DELETE, None, (_OPERATOR,)),
    Move(_S.FAILED, Action.DELETE, None, (_OPERATOR,)),
    Move(_S.CANCELLED, Action.DELETE, None, (_OPERATOR,)),
    Move(_S.INVALIDATED, Action.DELETE, None, (_OPERATOR,)),
)


_I = ItemState
#: Where a move of a job takes those of its items that are in a state; the others stay.
ITEMS_GO: Mapping[Action, Mapping[ItemState, ItemState]] = {
    Action.CANCEL: {_I.IN_QUEUE: _I.CANCELLED, _I.PROCESSING: _I.CANCELLING},
    Action.STOP: dict.fromkeys((_I.IN_QUEUE, _I.PROCESSING, _I.CANCELLING), _I.CANCELLED),
    Action.FINISH: dict.fromkeys((_I.PROCESSING, _I.CANCELLING), _I.FINISHED),
    Action.FAIL: {
        _I.IN_QUEUE: _I.CANCELLED,
        **dict.fromkeys((_I.PROCESSING, _I.CANCELLING), _I.FAILED),
    },
    Action.REQUEUE: dict.fromkeys((_I.PROCESSING, _I.CANCELLING), _I.IN_QUEUE),
    Action.EXPIRE: {_I.IN_QUEUE: _I.FAILED},
}


def roll_up(items: Collection[ItemState], *, cancelling: bool, started: bool) -> JobState:
    """Return the state that a job's items give it.

    Args:
        items: The states of all of them.
        cancelling: Somebody wants the job's end.
        started: One of them was begun since the job came into the queue.
    """
    if not ENDED_ITEM.issuperset(items):
        if cancelling:
            return JobState.CANCELLING
        return JobState.PROCESSING if started else JobState.IN_QUEUE
    if ItemState.FAILED in items:
        return JobState.FAILED
    return JobState.CANCELLED if ItemState.CANCELLED in items else JobState.FINISHED


def target_of(source: JobState | None, action: Action) -> JobState | None:
    """Return the state that an action leads to.

    Raises:
        WrongStateError: the action is not legal in that state; names the states where it is.
    """
    for move in MOVES:
        if move.source == source and move.action == action:
            return move.target
    allowed = " or ".join(_word(move.source) for move in MOVES if move.action == action)
    raise WrongStateError(f"cannot {action} a job that is {_word(source)}: it must be {allowed}")


def role_for(action: Action) -> Role:
    """Return the role that a person needs for an action; ValueError where no person decides it."""
    needed = {who for move in MOVES if move.action == action for who in move.who}
    for role in Role:
        if role in needed:
            return role
    raise ValueError(f"no person may {action} a job")


def _word(state: JobState | None) -> str:
    return "not made yet" if state is None else state


def diagram() -> str:
    """Draw the table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2"]
    for move in MOVES:
        source = move.source or "[*]"
        target = move.target or "[*]"
        lines.append(f"    {source} --> {target}: {move.action} ({', '.join(move.who)})")
    return "\n".join(lines)
