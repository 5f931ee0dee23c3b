"""Which of a job's items a decision is about."""

from collections.abc import Sequence
from dataclasses import dataclass

from dicom_adapter.errors import InvalidArgumentError, WrongStateError
from dicom_adapter.lifecycle import ENDED_ITEM, ItemState
from dicom_adapter.model import Job, JobItem


@dataclass(frozen=True)
class Selection:
    """Items by their ids or numbers, by their states, or all of them; nothing: the usual ones."""

    items: tuple[str, ...] = ()
    states: tuple[ItemState, ...] = ()
    full: bool = False

    def to_retry(self, job: Job) -> list[JobItem]:
        """Return the items that are to run again, in their order.

        The usual ones are those that failed, or else were cancelled, or else all.

        Raises:
            InvalidArgumentError: more than one of the three ways is used, or there is no such item.
            WrongStateError: none is in such a state, or one has not ended.
        """
        if sum(map(bool, (self.items, self.states, self.full))) > 1:
            raise InvalidArgumentError(
                "items", "must be named, or chosen by states, or all of them"
            )
        if self.items:
            found = named(job, self.items)
        elif self.states:
            found = [item for item in job.items if item.state in self.states]
        elif self.full:
            found = list(job.items)
        else:
            found = _usual(job)
        if not found:
            wanted = " or ".join(self.states)
            raise WrongStateError(f"no item of {job.name} is {wanted}: there is nothing to repeat")
        for item in found:
            if item.state not in ENDED_ITEM:
                raise WrongStateError(f"item {item.number} of {job.name} is {item.state} still")
        return found


def named(job: Job, names: Sequence[str]) -> list[JobItem]:
    """Return items by their ids or numbers, in their order.

    Raises:
        InvalidArgumentError: there is no such item.
    """
    known = {name: item for item in job.items for name in (item.id, str(item.number))}
    for name in names:
        if name not in known:
            count = len(job.items)
            raise InvalidArgumentError(
                "items", f"{job.name} has no item '{name}'; it has 1 to {count}"
            )
    wanted = {known[name].id for name in names}
    return [item for item in job.items if item.id in wanted]


def _usual(job: Job) -> list[JobItem]:
    for state in (ItemState.FAILED, ItemState.CANCELLED):
        if found := [item for item in job.items if item.state == state]:
            return found
    return list(job.items)
