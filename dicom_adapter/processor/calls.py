"""Collects what a call of a job processor asks for, so that it is committed whole or not at all."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from dicom_adapter.clock import Clock
from dicom_adapter.errors import InvalidArgumentError
from dicom_adapter.ledger import Ledger, groups, index_search, instances, submissions
from dicom_adapter.ledger.groups import Joining
from dicom_adapter.ledger.submissions import Submitting
from dicom_adapter.model import (
    Duplicates,
    KeptStudy,
    OnMismatch,
    Priority,
    StoredInstance,
    Submission,
    SubmissionState,
    job_name,
)

LONGEST_KEY = 1024

Change = Callable[[Connection], object]


@dataclass
class Call:
    """One call of the processor: what it has asked for so far, and what it raised."""

    group_id: str | None = None
    joinings: list[Joining] = field(default_factory=list)
    submissions: list[Submitting] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)
    error: BaseException | None = None


class Calls:
    """The `Core` that the processor of one AE title is given, and the calls that it is used in."""

    def __init__(
        self,
        ae_title: str,
        project: str,
        duplicates: Duplicates,
        ledger: Ledger,
        clock: Clock,
        *,
        submitted: Callable[[], None],
        released: Callable[[], None],
    ) -> None:
        self._title = ae_title
        self._project = project
        self._duplicates = duplicates
        self._ledger = ledger
        self._clock = clock
        self._submitted = submitted
        self._released = released
        self._here = threading.local()

    def make(self, function: Callable[[], None], group_id: str | None = None) -> Call:
        """Call the processor and return what came of it; nothing is committed yet."""
        call = self._here.call = Call(group_id)
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - a stranger's code, it may even sys.exit
            call.error = error
        finally:
            del self._here.call
        return call

    def carry_out(self, tx: Connection, calls: Sequence[Call]) -> None:
        """Make what calls have asked for."""
        joinings = [joining for call in calls for joining in call.joinings]
        if joinings:
            groups.join(tx, joinings)
        for call in calls:
            for submitting in call.submissions:
                submissions.add(tx, submitting)
        # Last: an instance that is also submitted must not look free.
        released = [instance_id for call in calls for instance_id in call.released]
        for study in (study for call in calls for study in call.studies):
            released += index_search.to_release(tx, study, ae_title=self._title)[0]
        if released:
            instances.release(tx, released, self._clock.now())

    def committed(self, calls: Sequence[Call]) -> None:
        """Wake those who go on with what calls have asked for, now that it is in the ledger."""
        if any(call.submissions for call in calls):
            self._submitted()
        if any(call.released or call.studies for call in calls):
            self._released()

    # What the processor is given.

    def group(
        self,
        instance: StoredInstance,
        key: str,
        after: timedelta,
        max_wait: timedelta | None,
    ) -> None:
        """Put an instance into a group; see `JobProcessorBase.group`."""
        self._own([instance])
        if not 0 < len(key) <= LONGEST_KEY:
            raise InvalidArgumentError("key", f"must have 1 to {LONGEST_KEY} characters")
        if after < timedelta(0) or (max_wait is not None and max_wait < timedelta(0)):
            raise InvalidArgumentError("after, max_wait", "must not be negative")
        with self._asking() as call:
            call.joinings.append(Joining(instance, key, after, max_wait))

    def submit_pipeline_job(
        self,
        name: str,
        pipeline: str,
        priority: Priority,
        instances: Sequence[StoredInstance],
        *,
        supersedes: str | None,
        on_mismatch: str,
    ) -> str:
        """Submit a job; see `JobProcessorBase.submit_pipeline_job`."""
        self._own(instances)
        if not instances:
            raise InvalidArgumentError("instances", "must not be empty")
        if on_mismatch not in set(OnMismatch):
            raise InvalidArgumentError("on_mismatch", f"must be one of {', '.join(OnMismatch)}")
        seen = self._duplicates.seen(instances)
        now = self._clock.now()
        with self._asking() as call:
            submission = Submission(
                id=uuid4().hex,
                ae_title=self._title,
                project=self._project,
                group_id=call.group_id,
                name=job_name(name, now),
                pipeline=pipeline,
                priority=Priority(priority),
                state=SubmissionState.PENDING,
                instances=len(seen),
                attempts=0,
                created_at=now,
                ready_at=now,
                settled_at=None,
                error="",
                job_id=None,
                supersedes=None,
                on_mismatch=OnMismatch(on_mismatch),
            )
            ids = [instance.id for instance in seen]
            call.submissions.append(Submitting(submission, ids, supersedes))
        return submission.id

    def remove_instances(self, instances_: Iterable[StoredInstance]) -> None:
        """Let instances go; see `JobProcessorBase.remove_instances`."""
        removed = list(instances_)
        self._own(removed)
        with self._asking() as call:
            call.released.extend(instance.id for instance in removed)

    def kept_studies(self) -> Sequence[KeptStudy]:
        """Return what is kept; see `JobProcessorBase.kept_studies`."""
        with self._ledger.read() as tx:
            return index_search.kept_studies(tx, self._title)

    def remove_study(self, study_instance_uid: str) -> None:
        """Let a study go; see `JobProcessorBase.remove_study`."""
        with self._asking() as call:
            call.studies.append(study_instance_uid)

    def _own(self, given: Iterable[StoredInstance]) -> None:
        for instance in given:
            if instance.ae_title != self._title:
                raise InvalidArgumentError(
                    "instances", f"belong to {instance.ae_title}, not to {self._title}"
                )

    @contextmanager
    def _asking(self) -> Iterator[Call]:
        call: Call | None = getattr(self._here, "call", None)
        if call is not None:
            yield call
            return
        # Outside of a call, from an API of the processor's own, there is nothing to wait for.
        call = Call()
        yield call
        with self._ledger.write() as tx:
            error = applied(tx, lambda tx: self.carry_out(tx, [call]))
        if error is not None:
            raise InvalidArgumentError(
                "instances", "are not in the ledger, or do not fit"
            ) from error
        self.committed([call])


def applied(tx: Connection, *changes: Change) -> Exception | None:
    """Make changes, or none of them: return the error of the one that cannot be made.

    One that asks for the impossible must not keep the transaction's others from being made. What
    the ledger itself cannot do now is raised.
    """
    try:
        with tx.begin_nested():
            for change in changes:
                change(tx)
    except (IntegrityError, DataError) as error:
        return error
    except DBAPIError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a stranger's values make of a statement
        return error
    return None
