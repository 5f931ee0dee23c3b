"""Calls one AE title's processor: for each instance that came, for each group that is due.

All it needs to know is in the ledger, so a restart goes on where the last run ended. What a call of
the processor asks for is collected and committed in one transaction with the call's own outcome.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import uuid4

import structlog
from sqlalchemy import Connection

from dicom_adapter.clock import Clock
from dicom_adapter.config import AETitle
from dicom_adapter.errors import InvalidArgumentError, QuarantineInstance, StartError, fingerprint
from dicom_adapter.ledger import Ledger, groups, instances, submissions
from dicom_adapter.ledger.instances import Locate
from dicom_adapter.model import (
    GroupState,
    InstanceGroup,
    Priority,
    StoredInstance,
    Submission,
    SubmissionState,
    job_name,
)
from dicom_adapter.processor.base import JobProcessorBase
from dicom_adapter.worker import Worker

ATTEMPTS = 5
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_KEY = 1024
INSTANCES_PER_COMMIT = 100

Change = Callable[[Connection], None]

log = structlog.get_logger()


@dataclass
class _Call:
    """What one call of the processor has asked for so far."""

    group_id: str | None = None
    changes: list[Change] = field(default_factory=list)


class ProcessorHost:
    """Runs the processor of one AE title; it is the `Core` that the processor is given."""

    def __init__(
        self,
        title: AETitle,
        processor: type[JobProcessorBase],
        ledger: Ledger,
        clock: Clock,
        *,
        locate: Locate,
        changed: Callable[[], None],
    ) -> None:
        self._title = title.title
        self._ledger = ledger
        self._clock = clock
        self._locate = locate
        self._changed = changed
        self._here = threading.local()
        self._log = log.bind(ae_title=title.title, processor=processor.name)
        self._processor = processor(title.title, title.settings, self)
        self._worker = Worker(f"processor {title.title}", self._work, clock)

    def start(self) -> None:
        """Start the processor and its thread.

        Raises:
            StartError: the processor's own `start` raised.
        """
        try:
            self._processor.start()
        except Exception as error:
            raise StartError(
                f"AE title {self._title}: its job processor '{self._processor.name}' cannot "
                f"start: {type(error).__name__}: {error}"
            ) from error
        self._worker.start()

    def wake(self) -> None:
        """Have the processor called soon: an instance came, or a group was completed by hand."""
        self._worker.wake()

    def stop(self, timeout: float) -> None:
        """Let the current call end, then stop the processor."""
        self._worker.stop(timeout)
        try:
            self._processor.stop()
        except Exception as error:  # noqa: BLE001 - a stranger's code must not keep us from stopping
            self._complain("job processor failed to stop", "processor.stop", error)

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

        def join(tx: Connection) -> None:
            groups.join(tx, instance, key, after, max_wait)

        self._do(join)

    def submit_pipeline_job(
        self, name: str, pipeline: str, priority: Priority, instances: Sequence[StoredInstance]
    ) -> str:
        """Submit a job; see `JobProcessorBase.submit_pipeline_job`."""
        self._own(instances)
        if not instances:
            raise InvalidArgumentError("instances", "must not be empty")
        call: _Call | None = getattr(self._here, "call", None)
        now = self._clock.now()
        submission = Submission(
            id=uuid4().hex,
            ae_title=self._title,
            group_id=call.group_id if call else None,
            name=job_name(name, now),
            pipeline=pipeline,
            priority=Priority(priority),
            state=SubmissionState.PENDING,
            instances=len(instances),
            attempts=0,
            created_at=now,
            ready_at=now,
            settled_at=None,
            error="",
            job_id=None,
        )
        ids = [instance.id for instance in instances]

        def add(tx: Connection) -> None:
            submissions.add(tx, submission, ids)

        self._do(add)
        return submission.id

    def remove_instances(self, instances_: Iterable[StoredInstance]) -> None:
        """Let instances go; see `JobProcessorBase.remove_instances`."""
        removed = list(instances_)
        self._own(removed)
        ids = [instance.id for instance in removed]

        def release(tx: Connection) -> None:
            instances.release(tx, ids, self._clock.now())

        self._do(release)

    def _own(self, given: Iterable[StoredInstance]) -> None:
        for instance in given:
            if instance.ae_title != self._title:
                raise InvalidArgumentError(
                    "instances", f"belong to {instance.ae_title}, not to {self._title}"
                )

    def _do(self, change: Change) -> None:
        call: _Call | None = getattr(self._here, "call", None)
        if call is not None:
            call.changes.append(change)
            return
        # Outside of a call, from an API of the processor's own, there is nothing to wait for.
        with self._ledger.write() as tx:
            change(tx)
        self._changed()

    @contextmanager
    def _calling(self, group_id: str | None = None) -> Iterator[_Call]:
        self._here.call = _Call(group_id)
        try:
            yield self._here.call
        finally:
            del self._here.call

    # The work of the thread.

    def _work(self) -> datetime | None:
        now = self._clock.now()
        # Instances first: one that came before a group was due belongs into it.
        while not self._worker.stopping and self._handle_instances(now):
            pass
        with self._ledger.read() as tx:
            due = groups.due(tx, self._title, now)
        for group_id, attempts in due:
            if self._worker.stopping:
                break
            self._handle_group(group_id, attempts)
        with self._ledger.read() as tx:
            times = (instances.next_ready(tx, self._title), groups.next_ready(tx, self._title))
        return min((time for time in times if time is not None), default=None)

    def _handle_instances(self, now: datetime) -> bool:
        with self._ledger.read() as tx:
            due = instances.received(tx, self._title, now, INSTANCES_PER_COMMIT, self._locate)
        if not due:
            return False
        changes = [
            change
            for instance, attempts in due
            for change in self._handle_instance(instance, attempts)
        ]
        with self._ledger.write() as tx:
            for change in changes:
                change(tx)
        self._changed()
        return True

    def _handle_instance(self, instance: StoredInstance, attempts: int) -> list[Change]:
        with self._calling() as call:
            try:
                self._processor.handle_instance(instance)
            except QuarantineInstance as decision:
                return [self._quarantine(instance, str(decision), attempts)]
            except Exception as error:  # noqa: BLE001 - a stranger's code; it is counted and told
                return [self._failed_instance(instance, attempts + 1, error)]
        return [lambda tx: instances.handled(tx, instance.id), *call.changes]

    def _quarantine(self, instance: StoredInstance, reason: str, attempts: int) -> Change:
        now = self._clock.now()
        self._log.warning(
            "instance set aside: see `dicom-adapter quarantine list`",
            action="instance.quarantined",
            instance=instance.id,
            association=instance.association,
        )
        return lambda tx: instances.quarantine(tx, instance.id, reason, attempts, now)

    def _failed_instance(self, instance: StoredInstance, attempts: int, error: Exception) -> Change:
        self._complain(
            "job processor failed on an instance",
            "processor.instance_failed",
            error,
            instance=instance.id,
            attempt=attempts,
        )
        reason = f"the job processor failed on it: {type(error).__name__}: {error}"
        if attempts >= ATTEMPTS:
            return self._quarantine(instance, reason, attempts)
        again = self._clock.now() + _pause(attempts)
        return lambda tx: instances.postpone(tx, instance.id, attempts, again, reason)

    def _handle_group(self, group_id: str, attempts: int) -> None:
        with self._ledger.read() as tx:
            group = groups.get(tx, group_id, self._locate)
        with self._calling(group_id) as call:
            try:
                self._processor.handle_group(group)
            except Exception as error:  # noqa: BLE001 - a stranger's code; it is counted and told
                self._failed_group(group, attempts + 1, error)
                return
        now = self._clock.now()
        with self._ledger.write() as tx:
            # A person may have discarded it during the call: then nothing of the call counts.
            closed = groups.close(tx, group_id, GroupState.DISPATCHED, at=now, actor="system")
            for change in call.changes if closed else ():
                change(tx)
        if closed:
            self._log.info(
                "group handed over",
                action="group.dispatched",
                group=group_id,
                instances=len(group.instances),
            )
        self._changed()

    def _failed_group(self, group: InstanceGroup, attempts: int, error: Exception) -> None:
        self._complain(
            "job processor failed on a group",
            "processor.group_failed",
            error,
            group=group.id,
            attempt=attempts,
        )
        now = self._clock.now()
        reason = f"{type(error).__name__}: {error}"
        with self._ledger.write() as tx:
            groups.postpone(tx, group.id, attempts, now + _pause(attempts), reason)
            if attempts >= ATTEMPTS:
                groups.close(tx, group.id, GroupState.PARKED, at=now, actor="system", reason=reason)
                self._log.error(
                    "group parked: see `dicom-adapter groups list`",
                    action="group.parked",
                    group=group.id,
                )

    def _complain(self, text: str, action: str, error: Exception, **values: object) -> None:
        self._log.error(text, action=action, **fingerprint(error), **values)


def _pause(attempts: int) -> timedelta:
    return FIRST_PAUSE * (1 << (attempts - 1))
