"""What people do to jobs that are there: they cancel, retry, invalidate and delete them."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import structlog

from dicom_adapter.clock import Clock
from dicom_adapter.errors import InvalidArgumentError, WrongStateError
from dicom_adapter.ledger import Ledger, control, jobs
from dicom_adapter.lifecycle import Action, ItemState, JobState, role_for, target_of
from dicom_adapter.model import Caller, Job, JobItem
from dicom_adapter.platform.queue import JobQueue
from dicom_adapter.platform.selection import Selection, named
from dicom_adapter.platform.workspace import Workspaces

#: Of what a person says of a decision; more is no reason but a document.
LONGEST_REASON = 500

log = structlog.get_logger()


class JobControl:
    """Moves jobs by the decisions of people."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        workspaces: Workspaces,
        *,
        queue: JobQueue,
        submitted: Callable[[], None],
        cancelling: Callable[[str], None],
        cancelling_item: Callable[[str, str], None],
        ended: Callable[[], None],
    ) -> None:
        """Name who has to know.

        Args:
            ledger: The ledger.
            clock: The time.
            workspaces: Where the jobs' files lie.
            queue: Where a job waits that is retried.
            submitted: Told that a job waits again.
            cancelling: Told of a job that runs, and is to end.
            cancelling_item: Told of a job and one of its items, which runs and is to end.
            ended: Told that a job has ended that never ran.
        """
        self._ledger = ledger
        self._clock = clock
        self._queue = queue
        self._workspaces = workspaces
        self._submitted = submitted
        self._cancelling = cancelling
        self._cancelling_item = cancelling_item
        self._ended = ended

    def cancel(
        self, caller: Caller, id_or_name: str, *, why: str = "", only_if_queued: bool = False
    ) -> Job:
        """Cancel a job; what runs is ended as its pipeline says, and may be faster.

        Returns the job as it is then: cancelled, or cancelling.

        Raises:
            NotFoundError: there is no such job.
            PermissionDeniedError: the caller may not.
            InvalidArgumentError: the reason is too long.
            WrongStateError: the job has ended, or has started although it must not have.
        """
        caller.check(role_for(Action.CANCEL))
        check_reason(why)
        with self._ledger.write() as tx:
            job_id = jobs.id_of(tx, id_or_name, caller.project)
            state = control.cancel(
                tx,
                job_id,
                at=self._clock.now(),
                actor=caller.name,
                why=why,
                only_if_queued=only_if_queued,
            )
            job = jobs.get(tx, job_id)
        log.info("job is to end", action="job.cancel", job=job.name, state=state, by=caller.name)
        if state == JobState.CANCELLING:
            self._cancelling(job.id)
        else:
            self._ended()
        return job

    def cancel_items(
        self, caller: Caller, id_or_name: str, items: Sequence[str], *, why: str = ""
    ) -> Job:
        """Cancel items of a job, by their ids or numbers; the others go on.

        Returns the job as it is then.

        Raises:
            NotFoundError: there is no such job.
            PermissionDeniedError: the caller may not.
            InvalidArgumentError: the reason is too long, or there is no such item.
            WrongStateError: one of them has ended; none is cancelled then.
        """
        caller.check(role_for(Action.CANCEL))
        check_reason(why)
        with self._ledger.write() as tx:
            job = jobs.get(tx, id_or_name, caller.project)
            running = control.cancel_items(
                tx, job, named(job, items), at=self._clock.now(), actor=caller.name, why=why
            )
            job = jobs.get(tx, job.id)
        log.info("items are to end", action="item.cancel", job=job.name, by=caller.name)
        for item_id in running:
            self._cancelling_item(job.id, item_id)
        self._ended()
        return job

    def retry(
        self,
        caller: Caller,
        id_or_name: str,
        *,
        selection: Selection | None = None,
        why: str = "",
        confirm: bool = False,
        dry_run: bool = False,
    ) -> Job:
        """Have items of a job that has ended run again, under its own id and name.

        The outputs that they have are superseded, and kept. `confirm` says that it is meant to
        repeat finished work, or to run on what the pipeline does not take; `dry_run` changes
        nothing, and raises what would be raised. Returns the job as it is then, or would be.

        Raises:
            NotFoundError: there is no such job.
            PermissionDeniedError: the caller may not.
            InvalidArgumentError: the reason is too long, or there is no such item.
            WrongStateError: it has not ended, is invalidated, would repeat finished work or run on
                what its pipeline does not take and nobody says that this is known, or its inputs
                were reclaimed.
        """
        caller.check(role_for(Action.RETRY))
        check_reason(why)
        with self._ledger.read() as tx:
            job = jobs.get(tx, id_or_name, caller.project)
        target_of(job.state, Action.RETRY)
        if "inputs" in job.reclaimed:
            at = f"{job.reclaimed['inputs']:%Y-%m-%d %H:%M}"
            raise WrongStateError(
                f"the inputs of {job.name} were reclaimed at {at} UTC: platform.keep.inputs had "
                "passed; send the study again"
            )
        if job.is_unfit and not (confirm or dry_run):
            raise WrongStateError(
                f"{job.name} never ran: {job.error}; confirm that it is meant to run all the same, "
                "by --confirm"
            )
        chosen = (selection or Selection()).to_retry(job)
        done = [str(item.number) for item in chosen if item.state == ItemState.FINISHED]
        if done and not (confirm or dry_run):
            what = f"{job.name} is finished, and its"
            if len(job.items) > 1:
                what = f"items {', '.join(done)} of {job.name} are finished, and their"
            raise WrongStateError(
                f"{what} work would be done once more: confirm that this is meant, by --confirm"
            )
        return _as_it_would_be(job, chosen) if dry_run else self._retried(caller, job, chosen, why)

    def _retried(self, caller: Caller, job: Job, chosen: Sequence[JobItem], why: str) -> Job:
        workspace = self._workspaces.of(job.id)
        done = [
            workspace.of_item(item, len(job.items))
            for item in chosen
            if item.state == ItemState.FINISHED
        ]
        aside = []
        # A crash before the commit, or after it, is seen by the next start.
        with self._workspaces.superseding(job.id) if done else nullcontext():
            try:
                with self._ledger.write() as tx:
                    self._queue.check_room(tx, job)
                    control.retry(tx, job, chosen, at=self._clock.now(), actor=caller.name, why=why)
                    found = jobs.get(tx, job.id)
                    for part in done:
                        aside.append(part)
                        part.supersede_outputs(job.attempts)
            except BaseException:
                # These alone: what another retry has set aside meanwhile stays there.
                for part in aside:
                    part.restore_outputs(job.attempts)
                raise
        log.info("job is to run again", action="job.retried", job=job.name, by=caller.name)
        self._submitted()
        return found

    def invalidate(self, caller: Caller, id_or_name: str, *, why: str) -> Job:
        """Declare the outputs of a finished job wrong; return it as it is then.

        Raises:
            NotFoundError: there is no such job.
            PermissionDeniedError: the caller may not.
            InvalidArgumentError: the reason is missing, or too long.
            WrongStateError: the job is not finished.
        """
        caller.check(role_for(Action.INVALIDATE))
        check_reason(why)
        if not why.strip():
            raise InvalidArgumentError("reason", "must say why the outputs are wrong")
        with self._ledger.write() as tx:
            job_id = jobs.id_of(tx, id_or_name, caller.project)
            control.invalidate(tx, job_id, at=self._clock.now(), actor=caller.name, why=why)
            job = jobs.get(tx, job_id)
        log.info("job invalidated", action="job.invalidated", job=job.name, by=caller.name)
        return job

    def delete(self, caller: Caller, id_or_name: str, *, why: str = "") -> Job:
        """Delete a job that has ended, with all its files; return it as it was.

        Raises:
            NotFoundError: there is no such job.
            PermissionDeniedError: the caller may not.
            InvalidArgumentError: the reason is too long.
            WrongStateError: the job has not ended.
        """
        caller.check(role_for(Action.DELETE))
        check_reason(why)
        with self._ledger.read() as tx:
            job = jobs.get(tx, id_or_name, caller.project)
        is_ours = False
        try:
            with self._ledger.write() as tx:
                control.remove(tx, job.id, at=self._clock.now(), actor=caller.name, why=why)
                is_ours = True
                # Within: nobody can retry it now. Last: a crash before the commit leaves a folder
                # by whose name the next start knows what was to become of it.
                self._workspaces.condemn(job.id)
        except BaseException:
            # Not where another has deleted it meanwhile: its files are just being removed.
            if is_ours:
                self._workspaces.pardon(job.id)
            raise
        self._workspaces.remove_condemned(job.id)
        log.info("job deleted", action="job.deleted", job=job.name, by=caller.name)
        return job


def _as_it_would_be(job: Job, chosen: Sequence[JobItem]) -> Job:
    again = {item.id for item in chosen}
    return replace(
        job,
        state=JobState.IN_QUEUE,
        items=tuple(
            replace(item, state=ItemState.IN_QUEUE) if item.id in again else item
            for item in job.items
        ),
    )


def check_reason(why: str) -> None:
    """Raise InvalidArgumentError where a reason is too long."""
    if len(why) > LONGEST_REASON:
        raise InvalidArgumentError("reason", f"must have {LONGEST_REASON} characters at most")
