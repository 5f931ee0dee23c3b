"""Calls one AE title's processor: for each instance that came, for each group that is due.

All it needs to know is in the ledger, so a restart goes on where the last run ended. What a call of
the processor asks for is collected and committed in one transaction with the call's own outcome.
"""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from dicom_adapter.clock import Clock
from dicom_adapter.config import AETitle
from dicom_adapter.errors import QuarantineInstance, StartError, fingerprint
from dicom_adapter.ledger import Ledger, groups, index, instances
from dicom_adapter.ledger.instances import Locate
from dicom_adapter.model import GroupState, InstanceGroup, StoredInstance
from dicom_adapter.processor.base import JobProcessorBase
from dicom_adapter.processor.calls import Call, Calls, applied
from dicom_adapter.processor.tending import Tending
from dicom_adapter.worker import Worker

ATTEMPTS = 5
FIRST_PAUSE = timedelta(seconds=1)
INSTANCES_PER_COMMIT = 100
LONGEST_REASON = 500
# Under load, what comes meanwhile is handled together. No deadline of a group is as near as this.
REST = timedelta(milliseconds=100)

log = structlog.get_logger()


class _DecidedMeanwhileError(Exception):
    """The group is no more as the processor saw it: discarded by a person, or joined."""


@dataclass(frozen=True)
class _Handled:
    """A call of the processor with an instance, and how often that failed before."""

    instance: StoredInstance
    attempts: int
    call: Call


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
        submitted: Callable[[], None],
        released: Callable[[], None],
        kept: Callable[[], None],
    ) -> None:
        self._title = title.title
        self._configured = (title.processor, title.settings, title.duplicates)
        self._before: ProcessorHost | None = None
        self._ledger = ledger
        self._clock = clock
        self._locate = locate
        self._name = processor.name
        self._log = log.bind(ae_title=title.title, processor=processor.name)
        self._calls = Calls(
            title.title,
            title.project,
            title.duplicates,
            ledger,
            clock,
            submitted=submitted,
            released=released,
        )
        try:
            self._processor = processor(title.title, title.settings, self._calls)
        except Exception as error:
            raise self._cannot_start(error) from error
        self._keeps = processor.keeps
        self._kept = kept
        self._tending = Tending(self._processor, self._calls, ledger, clock)
        self._worker = Worker(
            f"processor {title.title}", self._work, clock, rest=REST, last=self._end
        )

    def serves(self, title: AETitle) -> bool:
        """Tell whether it works for an AE title just as that is configured."""
        return not self._worker.stopping and self._configured == (
            title.processor,
            title.settings,
            title.duplicates,
        )

    def start(self) -> None:
        """Start the processor; it is not called yet.

        Raises:
            StartError: the processor's own `start` raised.
        """
        try:
            self._processor.start()
        except Exception as error:
            raise self._cannot_start(error) from error

    def work(self, before: "ProcessorHost | None" = None) -> None:
        """Call the processor from now on, in a thread of its own.

        Args:
            before: The host that this one replaces. It is stopped, and waited for, however long its
                current call takes: there is one call at a time.
        """
        self._before = before
        self._worker.start()

    def _cannot_start(self, error: Exception) -> StartError:
        return StartError(
            f"AE title {self._title}: its job processor '{self._name}' cannot start: {_told(error)}"
        )

    def wake(self) -> None:
        """Have the processor called soon: an instance came, or a group was completed by hand."""
        self._worker.wake()

    def retire(self) -> None:
        """Have the processor stopped after its current call, without waiting for it."""
        self._worker.stop(0)

    def stop(self, timeout: float | None) -> None:
        """Let the current call end, then stop the processor."""
        if not self._worker.stop(timeout):
            # One call at a time: it is not stopped in the middle of another. What the call asked
            # for is not lost: it is made again by the next run.
            self._log.error(
                "job processor has not stopped in time: it is left behind",
                action="processor.stuck",
            )

    def discard(self) -> None:
        """Stop the processor, which is not called any more."""
        try:
            self._processor.stop()
        except Exception as error:  # noqa: BLE001 - a stranger's code must not keep us from stopping
            self._complain("job processor failed to stop", "processor.stop", error)

    # The work of the thread.

    def _take_over(self) -> None:
        if self._before is not None:
            self._before.stop(None)
            self._before = None
            self._log.info("job processor takes over", action="processor.changed")

    def _end(self) -> None:
        # Also where its turn never came: whoever follows waits for this one alone.
        self._take_over()
        self.discard()

    def _work(self) -> datetime | None:
        self._take_over()
        while not self._worker.stopping:
            now = self._clock.now()
            # Instances first: one that came before a group is handed over belongs into it. So they
            # are looked at before each group, for the one before may have taken long.
            if self._handle_instances(now) or self._worker.stopping:
                continue
            with self._ledger.read() as tx:
                due = groups.due(tx, self._title, now)
                next_instance = instances.next_ready(tx, self._title)
                next_group = groups.next_ready(tx, self._title)
            if next_instance is not None and next_instance <= now:
                continue
            if not due:
                times = (next_instance, next_group, self._tend())
                return min((at for at in times if at is not None), default=None)
            self._handle_group(*due[0])
            self._tending.want()
        return None

    def _tend(self) -> datetime | None:
        next_, error = self._tending.work()
        if error is not None:
            self._complain(
                "job processor failed to see to what it keeps", "processor.tend_failed", error
            )
        return next_

    def _handle_instances(self, now: datetime) -> bool:
        """Handle the instances that are due; True when there may be more of them."""
        with self._ledger.read() as tx:
            due = instances.received(tx, self._title, now, INSTANCES_PER_COMMIT, self._locate)
        handled = []
        for instance, attempts in due:
            if self._worker.stopping:
                break
            handled.append(_Handled(instance, attempts, self._call(instance)))
        if handled:
            with self._ledger.write() as tx:
                calls = self._settle_instances(tx, handled)
            self._calls.committed(calls)
            self._tending.want()
            if self._keeps:
                self._kept()
        return len(due) == INSTANCES_PER_COMMIT

    def _call(self, instance: StoredInstance) -> Call:
        return self._calls.make(lambda: self._processor.handle_instance(instance))

    def _settle_instances(self, tx: Connection, handled: Sequence[_Handled]) -> list[Call]:
        """Settle calls and return those that count; what they ask for is made together."""
        # Failures first: what is set aside here, another call of these cannot let go.
        for one in handled:
            if one.call.error is not None:
                self._failed_call(tx, one, one.call.error)
        well = [one for one in handled if one.call.error is None]
        if self._applied(tx, well) is None:
            return [one.call for one in well]
        # One of them asks for the impossible, which must not keep the others from what they ask.
        calls = []
        for one in well:
            error = self._applied(tx, [one])
            if error is None:
                calls.append(one.call)
            else:
                self._failed_call(tx, one, error)
        return calls

    def _applied(self, tx: Connection, handled: Sequence[_Handled]) -> Exception | None:
        ids = [one.instance.id for one in handled]
        calls = [one.call for one in handled]
        return applied(
            tx,
            lambda tx: self._handled(tx, ids),
            lambda tx: self._calls.carry_out(tx, calls),
        )

    def _handled(self, tx: Connection, ids: Sequence[str]) -> None:
        instances.handled(tx, ids)
        if self._keeps:
            index.enqueue(tx, ids)

    def _failed_call(self, tx: Connection, failed: _Handled, error: BaseException) -> None:
        if isinstance(error, QuarantineInstance):
            reason = _one_line(str(error)) or "the job processor set it aside and does not say why"
            self._quarantine(tx, failed.instance, reason, failed.attempts)
        else:
            self._failed_instance(tx, failed.instance, failed.attempts + 1, error)

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
            error = call.error or applied(
                tx,
                lambda tx: self._close(tx, group),
                lambda tx: self._calls.carry_out(tx, [call]),
            )
            if error is not None and not isinstance(error, _DecidedMeanwhileError):
                self._failed_group(tx, group, attempts + 1, error)
        if error is None:
            self._log.info(
                "group handed over",
                action="group.dispatched",
                group=group_id,
                instances=len(group.instances),
            )
            self._calls.committed([call])

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
