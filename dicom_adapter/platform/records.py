"""Writes what became of a job's attempt: into the ledger, fenced by its lease, and its folder."""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from dicom_adapter.clock import Clock
from dicom_adapter.errors import StaleLeaseError, UnavailableError, fingerprint
from dicom_adapter.files import NO_ROOM
from dicom_adapter.ledger import Ledger, control, due, jobs, leases, queue
from dicom_adapter.ledger.leases import Claim
from dicom_adapter.lifecycle import FRUITFUL, Action, JobState, Phase, Reason
from dicom_adapter.model import ItemState, JobOutput
from dicom_adapter.platform.executor import Ended
from dicom_adapter.platform.provenance import provenance
from dicom_adapter.platform.workspace import Workspaces

LONGEST_ERROR = 500
LEDGER_PAUSE_SECONDS = 1.0
NO_ROOM_PAUSE_SECONDS = 5.0

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

    def finish(self, claim: Claim, outputs: tuple[JobOutput, ...], ended: Ended) -> None:
        """Finish a job: its outputs and its state are committed together, or neither is."""
        job, workspace = claim.job, self._workspaces.of(claim.job.id)
        at = self._clock.now()
        if not self._stage_provenance(claim, outputs, ended, at):
            return

        def finish(tx: Connection) -> None:
            queue.add_outputs(tx, job.id, outputs, lease=claim.lease)
            queue.finish_steps(tx, job.id, lease=claim.lease)
            queue.move(
                tx,
                job.id,
                Action.FINISH,
                at=at,
                item=ItemState.FINISHED,
                values={**self._end(claim, ended), "finished_at": at},
                lease=claim.lease,
            )
            # Within: nobody can take the lease now. Last: a crash before the commit leaves a job
            # that is run again, and the next attempt begins by removing these.
            workspace.commit_outputs()

        self._commit(finish)
        workspace.discard_staged()
        log.info(
            "job finished",
            action="job.finished",
            job=job.name,
            outputs=len(outputs),
            seconds=ended.used.wall_seconds,
        )

    def _stage_provenance(
        self, claim: Claim, outputs: tuple[JobOutput, ...], ended: Ended, at: datetime
    ) -> bool:
        """Write how outputs were made as soon as the disk has room; False if a stop comes first.

        Before the transaction that finishes the job: nobody else can write to the ledger during
        that one, and the record of very many inputs takes its time.
        """
        with self._ledger.read() as tx:
            inputs = jobs.inputs_of(tx, claim.job.id)
        record = provenance(claim.job, inputs, outputs, ended, at)
        workspace = self._workspaces.of(claim.job.id)
        return self.when_room(claim, lambda: workspace.stage_provenance(record))

    def when_room(self, claim: Claim, write: Callable[[], None]) -> bool:
        """Write into a job's folder as soon as the disk has room.

        A full disk is not the job's fault, and its sender was told that all is well. False when
        the platform is stopped before there is room: the job is back in the queue then.
        """
        while True:
            self.hold(claim)
            try:
                write()
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                log.warning(
                    "the disk has no room for a job; it is tried again",
                    action="job.no_room",
                    job=claim.job.name,
                )
            else:
                return True
            if self._stopping.wait(NO_ROOM_PAUSE_SECONDS):
                self.put_back(claim)
                return False

    def fail(self, claim: Claim, reason: Reason, error: str, ended: Ended | None = None) -> None:
        """Fail a job, and remove what it has written; its log stays."""
        self.hold(claim)
        self._workspaces.of(claim.job.id).discard_attempt()
        self._record_failure(claim, reason, error, ended)

    def try_again(self, claim: Claim, cause: str, error: str, ended: Ended) -> None:
        """Have a job run again after a while; fail it where it has often enough, or is to end.

        The cause is for the history, which must hold nothing of the log; the error may quote it.
        """
        self.hold(claim)
        self._workspaces.of(claim.job.id).discard_attempt()
        end = {**self._end(claim, ended), "finished_at": None, "error": error[:LONGEST_ERROR]}
        later = self._commit(
            lambda tx: due.back_off(
                tx, claim.job.id, at=self._clock.now(), lease=claim.lease, cause=cause, values=end
            )
        )
        if later is None:
            self._record_failure(claim, Reason.PIPELINE_ERROR, error, ended)
            return
        log.warning(
            "job failed, and runs again after a while",
            action="job.backed_off",
            job=later.name,
            attempt=later.attempts,
            exit_code=ended.exit_code,
            ready_at=later.ready_at,
        )

    def is_cancelled(self, claim: Claim) -> bool:
        """Tell whether somebody wants the job to end."""
        with self._ledger.read() as tx:
            return queue.state_of(tx, claim.job.id) == JobState.CANCELLING

    def stop(self, claim: Claim, ended: Ended | None = None) -> None:
        """Cancel a job whose processes have ended, and remove what it has written but its log."""
        self.hold(claim)
        self._workspaces.of(claim.job.id).discard_attempt()

        def stop(tx: Connection) -> None:
            at = self._clock.now()
            if ended and ended.ran_at and queue.state_of(tx, claim.job.id) == JobState.PROCESSING:
                # Nobody here has asked for it: somebody there has cancelled it.
                leases.check(tx, claim.job.id, claim.lease)
                control.cancel(tx, claim.job.id, at=at, actor=ended.ran_at.executor, why=ended.told)
            queue.move(
                tx,
                claim.job.id,
                Action.STOP,
                at=at,
                item=ItemState.CANCELLED,
                values=self._end(claim, ended),
                lease=claim.lease,
            )

        self._commit(stop)
        log.info("job cancelled", action="job.cancelled", job=claim.job.name)

    def put_back(self, claim: Claim) -> None:
        """Let the service's next run have a job, without what this attempt has written."""
        self.hold(claim)
        self._workspaces.of(claim.job.id).discard_attempt()
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
            workspace = self._workspaces.of(claim.job.id)
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
                self._workspaces.of(claim.job.id).discard_attempt()
            self._record_failure(claim, Reason.INTERNAL, error)
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
        self, claim: Claim, reason: Reason, error: str, ended: Ended | None = None
    ) -> None:
        self._commit(
            lambda tx: queue.move(
                tx,
                claim.job.id,
                Action.FAIL,
                at=self._clock.now(),
                item=ItemState.FAILED,
                values={**self._end(claim, ended), "error": error[:LONGEST_ERROR]},
                reason=reason,
                lease=claim.lease,
            )
        )
        # The error itself may quote the log, and so patient data: `jobs show` has it.
        log.error("job failed: see `dicom-adapter jobs show`", action="job.failed",
                  job=claim.job.name, reason=reason)  # fmt: skip

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

    def _end(self, claim: Claim, ended: Ended | None) -> Mapping[str, Any]:
        values: dict[str, Any] = {"finished_at": self._clock.now()}
        if ended is not None:
            values |= {
                # What a name stood for may be known only since it ran.
                "image_id": claim.job.image_id,
                "pipeline_version": claim.job.pipeline_version,
                "exit_code": ended.exit_code,
                "cpu_seconds": ended.used.cpu_seconds,
                "max_rss_bytes": ended.used.max_rss_bytes,
                "wall_seconds": ended.used.wall_seconds,
            }
        return values
