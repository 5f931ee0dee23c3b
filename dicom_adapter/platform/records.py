"""Writes what became of a job's attempt: into the ledger, fenced by its lease, and its folder."""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from dicom_adapter import files
from dicom_adapter.clock import Clock
from dicom_adapter.errors import StaleLeaseError, UnavailableError, fingerprint
from dicom_adapter.ledger import Ledger, due, items, jobs, leases, queue
from dicom_adapter.ledger.leases import Claim
from dicom_adapter.lifecycle import FRUITFUL, Action, ItemState, JobState, Phase, Reason, roll_up
from dicom_adapter.model import JobItem, JobOutput
from dicom_adapter.platform.ending import Ending
from dicom_adapter.platform.executor import Ended
from dicom_adapter.platform.provenance import provenance
from dicom_adapter.platform.workspace import Workspace, Workspaces

LONGEST_ERROR = 500
LEDGER_PAUSE_SECONDS = 1.0

_Made = TypeVar("_Made")

log = structlog.get_logger()


class Records:
    """What attempts do to their jobs; once another has the job, nothing of it happens.

    Every method but `drop` and `give_up` raises StaleLeaseError then. Before a folder is emptied
    its lease is renewed: until that has run out nobody else begins an attempt in it.
    """

    def __init__(
        self, ledger: Ledger, clock: Clock, workspaces: Workspaces, stopping: threading.Event
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._workspaces = workspaces
        self._stopping = stopping

    def hold(self, claim: Claim) -> None:
        """Make sure that the job, and so its folder, stays this attempt's for a while.

        Raises:
            StaleLeaseError: it is another's already.
        """
        self._commit(lambda tx: leases.hold(tx, claim.job.id, claim.lease, self._clock.now()))

    def note_steps(self, claim: Claim, reports: Mapping[str, float]) -> None:
        """Note how far steps are; what the pipeline does not declare is ignored."""
        job = claim.job
        steps = {step.name for step in job.steps}
        known = {step: progress for step, progress in reports.items() if step in steps}
        if not known:
            return

        def note(tx: Connection) -> None:
            for step, progress in known.items():
                queue.set_step(tx, job.id, step, progress, lease=claim.lease)

        self._note(claim, note)

    def note_phase(self, claim: Claim, phase: Phase) -> None:
        """Note how far the attempt is."""
        self._note(claim, lambda tx: queue.set_phase(tx, claim.job.id, phase, lease=claim.lease))

    def _note(self, claim: Claim, change: Callable[[Connection], None]) -> None:
        try:
            with self._ledger.write() as tx:
                change(tx)
        except UnavailableError:
            # A courtesy to those who watch: the pipeline itself goes on without it.
            log.warning("progress not recorded", action="job.progress_lost", job=claim.job.name)

    def finish(self, claim: Claim, outputs: tuple[JobOutput, ...], ended: Ended) -> JobItem | None:
        """Finish an item: its outputs and its state are committed together, or neither is.

        Returns, as every method that ends an item, the job's next one, which has begun; None where
        there is none, and the job has ended, or is not ours any more.
        """
        workspace, at = self._workspace(claim), self._clock.now()
        if not self._stage_provenance(claim, outputs, ended, at):
            return self.leave(claim)

        def finish(tx: Connection) -> JobItem | None:
            queue.add_outputs(tx, claim.job.id, outputs, lease=claim.lease)
            found = self._end_item(tx, claim, ItemState.FINISHED, Ending(at, ended))
            # Within: nobody can take the lease now. Last: a crash before the commit leaves an item
            # that is run again, and the next attempt begins by removing these.
            workspace.commit_outputs()
            return found

        following = self._commit(finish)
        workspace.discard_staged()
        log.info(
            "job finished" if following is None else "item finished",
            action="job.finished" if following is None else "item.finished",
            job=claim.job.name,
            **_numbered(claim),
            outputs=len(outputs),
            seconds=ended.used.wall_seconds,
        )
        return following

    def _stage_provenance(
        self, claim: Claim, outputs: tuple[JobOutput, ...], ended: Ended, at: datetime
    ) -> bool:
        """Write how outputs were made as soon as the disk has room; False if a stop comes first.

        Before the transaction that finishes the item: nobody else can write to the ledger during
        that one, and the record of very many inputs takes its time.
        """
        with self._ledger.read() as tx:
            inputs = jobs.inputs_of(tx, claim.job.id)[claim.item.id]
        record = provenance(claim, inputs, outputs, ended, at)
        workspace = self._workspace(claim)
        return self.when_room(claim, lambda: workspace.stage_provenance(record))

    def _workspace(self, claim: Claim) -> Workspace:
        return self._workspaces.of(claim.job.id).of_item(claim.item, len(claim.job.items))

    def when_room(self, claim: Claim, write: Callable[[], None]) -> bool:
        """Write into a job's folder as soon as the disk has room.

        A full disk is not the job's fault, and its sender was told that all is well. False when
        the platform is stopped before there is room, or somebody cancels the item: see `leave`.
        """
        while True:
            self.hold(claim)
            try:
                write()
            except OSError as error:
                if error.errno not in files.NO_ROOM:
                    raise
                log.warning(
                    "the disk has no room for a job; it is tried again",
                    action="job.no_room",
                    job=claim.job.name,
                    cure="make room on the disk of storage.path, or cancel the job",
                )
            else:
                return True
            if self._stopping.wait(files.NO_ROOM_PAUSE_SECONDS) or self.is_cancelled(claim):
                return False

    def leave(self, claim: Claim) -> JobItem | None:
        """Give up an item that there was no room for: cancelled, or for the service's next run."""
        if self.is_cancelled(claim):
            # It may be its own output that takes the room.
            return self.stop(claim)
        self.put_back(claim)
        return None

    def fail(
        self, claim: Claim, reason: Reason, error: str, ended: Ended | None = None
    ) -> JobItem | None:
        """Fail an item, and remove what it has written; its log stays."""
        self.hold(claim)
        self._workspace(claim).discard_attempt()
        return self._record_failure(claim, reason, error, ended)

    def try_again(self, claim: Claim, cause: str, error: str, ended: Ended) -> JobItem | None:
        """Have a job go on with its item after a while; fail that where it has often enough.

        The cause is for the history, which must hold nothing of the log; the error may quote it.
        """
        self.hold(claim)
        self._workspace(claim).discard_attempt()
        used = (
            {**asdict(ended.used), "exit_code": ended.exit_code}
            if len(claim.job.items) == 1
            else {}
        )
        end = {**_exactly(claim), **used, "error": error[:LONGEST_ERROR]}
        later = self._commit(
            lambda tx: due.back_off(
                tx, claim.job.id, at=self._clock.now(), lease=claim.lease, cause=cause, values=end
            )
        )
        if later is None:
            return self._record_failure(claim, Reason.PIPELINE_ERROR, error, ended)
        log.warning(
            "job failed, and runs again after a while",
            action="job.backed_off",
            job=later.name,
            attempt=later.attempts,
            exit_code=ended.exit_code,
            ready_at=later.ready_at,
        )
        return None

    def is_cancelled(self, claim: Claim) -> bool:
        """Tell whether somebody wants the job, or its item, to end."""
        with self._ledger.read() as tx:
            return items.state_of(tx, claim.item.id) == ItemState.CANCELLING

    def stop(self, claim: Claim, ended: Ended | None = None) -> JobItem | None:
        """Cancel an item whose processes have ended, and remove what it has written but its log."""
        self.hold(claim)
        self._workspace(claim).discard_attempt()
        ending = Ending(self._clock.now(), ended)
        following = self._commit(lambda tx: self._end_item(tx, claim, ItemState.CANCELLED, ending))
        log.info(
            "job cancelled" if following is None else "item cancelled",
            action="job.cancelled" if following is None else "item.cancelled",
            job=claim.job.name,
            **_numbered(claim),
        )
        return following

    def put_back(self, claim: Claim) -> None:
        """Let the service's next run have a job, without what this attempt has written."""
        self.hold(claim)
        self._workspace(claim).discard_attempt()
        now = self._clock.now()
        self._commit(
            lambda tx: queue.put_back(
                tx, claim.job.id, at=now, lease=claim.lease, reason=Reason.DRAIN
            )
        )
        log.info("job put back into the queue", action="job.requeued", job=claim.job.name)

    def drop(self, claim: Claim) -> None:
        """Leave a job alone that is no longer ours, and remove only what nobody else can own."""
        log.warning(
            "another has taken the job over, or ended it: what this attempt did is dropped",
            action="job.lease_lost",
            job=claim.job.name,
            attempt=claim.job.attempts,
        )
        with suppress(OSError, UnavailableError):
            with self._ledger.read() as tx:
                state = queue.state_of(tx, claim.job.id)
            workspace = self._workspace(claim)
            if state in FRUITFUL:
                workspace.discard_staged()
            elif state not in leases.HELD:
                # Not taken again here before this run has ended.
                workspace.discard_attempt()

    def give_up(self, claim: Claim, error: str) -> None:
        """Fail a job by a fault of the platform, as far as that is still possible."""
        try:
            self.hold(claim)
            with suppress(OSError):
                self._workspace(claim).discard_attempt()
            self._commit(
                lambda tx: queue.move(
                    tx,
                    claim.job.id,
                    Action.FAIL,
                    at=self._clock.now(),
                    values={"finished_at": self._clock.now(), "error": error[:LONGEST_ERROR]},
                    reason=Reason.INTERNAL,
                    lease=claim.lease,
                )
            )
            log.error("job failed: see `dicom-adapter jobs show`", action="job.failed",
                      job=claim.job.name, reason=Reason.INTERNAL)  # fmt: skip
        except StaleLeaseError:
            self.drop(claim)
        except Exception as cause:  # noqa: BLE001 - nothing is behind this but the thread's end
            log.error(  # noqa: TRY400 - a traceback's message may hold patient data
                "a job's end cannot be recorded; it is lost once its lease has run out",
                action="job.unrecorded",
                job=claim.job.name,
                **fingerprint(cause),
            )

    def _record_failure(
        self, claim: Claim, reason: Reason, error: str, ended: Ended | None
    ) -> JobItem | None:
        ending = Ending(self._clock.now(), ended, reason, error[:LONGEST_ERROR])
        following = self._commit(lambda tx: self._end_item(tx, claim, ItemState.FAILED, ending))
        # The error itself may quote the log, and so patient data: `jobs show` has it.
        log.error(
            "job failed: see `dicom-adapter jobs show`"
            if following is None
            else "item failed: see `dicom-adapter jobs show`",
            action="job.failed" if following is None else "item.failed",
            job=claim.job.name,
            **_numbered(claim),
            reason=reason,
        )
        return following

    def _end_item(
        self, tx: Connection, claim: Claim, state: ItemState, ending: Ending
    ) -> JobItem | None:
        """End an item, and begin the next one, or move the job where its items say."""
        job = claim.job
        leases.check(tx, job.id, claim.lease)
        items.end(tx, claim.item.id, state, ending.at, ending.values())
        if state == ItemState.FAILED and job.rules.fail_fast:
            items.cancel_waiting(tx, job.id, ending.at)
        is_running = queue.state_of(tx, job.id) == JobState.PROCESSING
        if is_running and len(job.items) > 1:
            following = items.begin_next(tx, job.id, ending.at)
            if following is not None:
                queue.reset_steps(tx, job.id)
                queue.set_phase(tx, job.id, Phase.PREPARING, lease=claim.lease)
                return following
        self._end_job(tx, claim, ending, is_running=is_running)
        return None

    def _end_job(self, tx: Connection, claim: Claim, ending: Ending, *, is_running: bool) -> None:
        """Move a job, all of whose items have ended, where they say."""
        job, at, found = claim.job, ending.at, items.summary(tx, claim.job.id)
        state = roll_up(found.states, cancelling=False, started=True)
        values = {
            **_exactly(claim),
            "finished_at": at,
            "exit_code": found.exit_code,
            "error": found.error[:LONGEST_ERROR],
        }
        if found.used is not None:
            values |= asdict(found.used)
        if state == JobState.FINISHED and job.steps:
            queue.finish_steps(tx, job.id, lease=claim.lease)
        if state == JobState.CANCELLED and is_running:
            # Item by item, or by another platform: nobody here has asked for the job's own end.
            queue.move(
                tx,
                job.id,
                Action.CANCEL,
                at=at,
                values={"cancelled_from": JobState.PROCESSING},
                lease=claim.lease,
                **ending.cancelled_by(),
            )
        queue.move(
            tx,
            job.id,
            _ENDS[state],
            at=at,
            values=values,
            reason=found.reason if state == JobState.FAILED else "",
            lease=claim.lease,
        )

    def _commit(self, change: Callable[[Connection], _Made]) -> _Made:
        """Make a change as soon as the ledger can be written; a full disk must not lose an end.

        Raises:
            UnavailableError: the platform is stopped before that.
        """
        while True:
            try:
                with self._ledger.write() as tx:
                    made = change(tx)
            except UnavailableError:
                log.warning(
                    "the ledger cannot be written; it is tried again", action="ledger.unavailable"
                )
                if self._stopping.wait(LEDGER_PAUSE_SECONDS):
                    raise
            else:
                return made


_ENDS = {
    JobState.FINISHED: Action.FINISH,
    JobState.FAILED: Action.FAIL,
    JobState.CANCELLED: Action.STOP,
}


def _exactly(claim: Claim) -> Mapping[str, Any]:
    """Return what exactly was run: what a name stood for may be known only since then."""
    return {"image_id": claim.job.image_id, "pipeline_version": claim.job.pipeline_version}


def _numbered(claim: Claim) -> Mapping[str, int]:
    return {"item": claim.item.number} if len(claim.job.items) > 1 else {}
