"""Calls one AE title's processor: for each instance that came, for each group that is due.

All it needs to know is in the ledger, so a restart goes on where the last run ended. What a call of
the processor asks for is collected and committed in one transaction with the call's own outcome.
"""

import traceback
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from dicom_adapter.clock import Clock
from dicom_adapter.config import AETitle
from dicom_adapter.errors import QuarantineInstance, StartError, fingerprint
from dicom_adapter.ledger import Ledger, groups, instances
from dicom_adapter.ledger.instances import Locate
from dicom_adapter.model import GroupState, InstanceGroup, StoredInstance
from dicom_adapter.processor.base import JobProcessorBase
from dicom_adapter.processor.calls import Call, Calls, applied
from dicom_adapter.worker import Worker

ATTEMPTS = 5
FIRST_PAUSE = timedelta(seconds=1)
INSTANCES_PER_COMMIT = 100
LONGEST_REASON = 500

log = structlog.get_logger()


class _DecidedMeanwhileError(Exception):
    """The group is no more as the processor saw it: discarded by a person, or joined."""


class ProcessorHost:
    """Runs the processor of one AE title."""

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
        self._name = processor.name
        self._log = log.bind(ae_title=title.title, processor=processor.name)
        self._calls = Calls(title.title, ledger, clock, changed)
        try:
            self._processor = processor(title.title, title.settings, self._calls)
        except Exception as error:
            raise self._cannot_start(error) from error
        self._worker = Worker(f"processor {title.title}", self._work, clock)

    def start(self) -> None:
        """Start the processor and its thread.

        Raises:
            StartError: the processor's own `start` raised.
        """
        try:
            self._processor.start()
        except Exception as error:
            raise self._cannot_start(error) from error
        self._worker.start()

    def _cannot_start(self, error: Exception) -> StartError:
        return StartError(
            f"AE title {self._title}: its job processor '{self._name}' cannot start: {_told(error)}"
        )

    def wake(self) -> None:
        """Have the processor called soon: an instance came, or a group was completed by hand."""
        self._worker.wake()

    def stop(self, timeout: float) -> None:
        """Let the current call end, then stop the processor."""
        if not self._worker.stop(timeout):
            # One call at a time: it is not stopped in the middle of another. What the call asked
            # for is not lost: it is made again by the next run.
            self._log.error(
                "job processor has not returned in time: it is left behind",
                action="processor.stuck",
            )
            return
        try:
            self._processor.stop()
        except Exception as error:  # noqa: BLE001 - a stranger's code must not keep us from stopping
            self._complain("job processor failed to stop", "processor.stop", error)

    # The work of the thread.

    def _work(self) -> datetime | None:
        while not self._worker.stopping and self._step():
            pass
        with self._ledger.read() as tx:
            times = (instances.next_ready(tx, self._title), groups.next_ready(tx, self._title))
        return min((time for time in times if time is not None), default=None)

    def _step(self) -> bool:
        """Handle the instances that are due, then one group; False when there was nothing."""
        now = self._clock.now()
        # Instances first: one that came before a group is handed over belongs into it. So they are
        # looked at before each group, for the one before may have taken long.
        while not self._worker.stopping and self._handle_instances(now):
            pass
        with self._ledger.read() as tx:
            due = groups.due(tx, self._title, now)
            next_instance = instances.next_ready(tx, self._title)
        if next_instance is not None and next_instance <= now:
            return True
        if due and not self._worker.stopping:
            self._handle_group(*due[0])
        return bool(due)

    def _handle_instances(self, now: datetime) -> bool:
        with self._ledger.read() as tx:
            due = instances.received(tx, self._title, now, INSTANCES_PER_COMMIT, self._locate)
        outcomes = []
        for instance, attempts in due:
            if self._worker.stopping:
                break
            outcomes.append((instance, attempts, self._call(instance)))
        if not outcomes:
            return False
        with self._ledger.write() as tx:
            for instance, attempts, call in outcomes:
                self._settle_instance(tx, instance, attempts, call)
        self._changed()
        return True

    def _call(self, instance: StoredInstance) -> Call:
        return self._calls.make(lambda: self._processor.handle_instance(instance))

    def _settle_instance(
        self, tx: Connection, instance: StoredInstance, attempts: int, call: Call
    ) -> None:
        error = call.error or applied(
            tx, [lambda tx: instances.handled(tx, instance.id), *call.changes]
        )
        if isinstance(error, QuarantineInstance):
            reason = _one_line(str(error)) or "the job processor set it aside and does not say why"
            self._quarantine(tx, instance, reason, attempts)
        elif error is not None:
            self._failed_instance(tx, instance, attempts + 1, error)

    def _quarantine(
        self, tx: Connection, instance: StoredInstance, reason: str, attempts: int
    ) -> None:
        self._log.warning(
            "instance set aside: see `dicom-adapter quarantine list`",
            action="instance.quarantined",
            instance=instance.id,
            association=instance.association,
        )
        instances.quarantine(tx, instance.id, reason, attempts, self._clock.now())

    def _failed_instance(
        self, tx: Connection, instance: StoredInstance, attempts: int, error: BaseException
    ) -> None:
        self._complain(
            "job processor failed on an instance",
            "processor.instance_failed",
            error,
            instance=instance.id,
            attempt=attempts,
        )
        reason = f"the job processor failed on it: {_told(error)}"
        if attempts >= ATTEMPTS:
            self._quarantine(tx, instance, reason, attempts)
            return
        again = self._clock.now() + _pause(attempts)
        instances.postpone(tx, instance.id, attempts, again, reason)

    def _handle_group(self, group_id: str, attempts: int) -> None:
        with self._ledger.read() as tx:
            group = groups.get(tx, group_id, self._locate)
        call = self._calls.make(lambda: self._processor.handle_group(group), group_id)
        with self._ledger.write() as tx:
            error = call.error or applied(tx, [lambda tx: self._close(tx, group), *call.changes])
            if error is not None and not isinstance(error, _DecidedMeanwhileError):
                self._failed_group(tx, group, attempts + 1, error)
        if error is None:
            self._log.info(
                "group handed over",
                action="group.dispatched",
                group=group_id,
                instances=len(group.instances),
            )
        self._changed()

    def _close(self, tx: Connection, group: InstanceGroup) -> None:
        now = self._clock.now()
        if not groups.close(tx, group.id, GroupState.DISPATCHED, at=now, actor="system"):
            # Then nothing of the call counts.
            raise _DecidedMeanwhileError
        if groups.size(tx, group.id) != len(group.instances):
            # A thread of the processor's own has put one in: it is to be handled with the others.
            raise _DecidedMeanwhileError

    def _failed_group(
        self, tx: Connection, group: InstanceGroup, attempts: int, error: BaseException
    ) -> None:
        self._complain(
            "job processor failed on a group",
            "processor.group_failed",
            error,
            group=group.id,
            attempt=attempts,
        )
        now = self._clock.now()
        reason = _told(error)
        groups.postpone(tx, group.id, attempts, now + _pause(attempts), reason)
        if attempts >= ATTEMPTS and groups.close(
            tx, group.id, GroupState.PARKED, at=now, actor="system", reason=reason
        ):
            self._log.error(
                "group parked: see `dicom-adapter groups list`",
                action="group.parked",
                group=group.id,
            )

    def _complain(self, text: str, action: str, error: BaseException, **values: object) -> None:
        self._log.error(text, action=action, **fingerprint(error), **values)


def _pause(attempts: int) -> timedelta:
    return FIRST_PAUSE * (1 << (attempts - 1))


def _told(error: BaseException) -> str:
    """Return an error for people to read in the ledger; the log never has its message."""
    return _one_line("".join(traceback.format_exception_only(error)))


def _one_line(text: str) -> str:
    # A stranger's message may be as long, and of as odd characters, as what it quotes.
    whole = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    return whole if len(whole) <= LONGEST_REASON else f"{whole[:LONGEST_REASON]}..."
