"""Submits what the job processors have asked for, until the platform has accepted it.

A submission is a row of the ledger before its first call, and its id is the request id on the wire:
a call whose answer was lost is simply made again. The platform's refusal parks it with its files.

What the pipeline requires is asked of the platform and checked here, before anything is uploaded.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from dicom_adapter.backoff import pause_after
from dicom_adapter.clock import Clock
from dicom_adapter.conditions import Unmet, told
from dicom_adapter.errors import DicomAdapterError, NotFoundError, UnavailableError, WrongStateError
from dicom_adapter.ledger import Ledger, instances, submissions
from dicom_adapter.ledger.instances import Locate
from dicom_adapter.lifecycle import Role
from dicom_adapter.model import (
    Caller,
    JobRequest,
    OnMismatch,
    Requirements,
    StoredInstance,
    Submission,
    input_of,
)
from dicom_adapter.rpc.client import Client
from dicom_adapter.submit.checking import unmet_by
from dicom_adapter.submit.delivery import upload_missing
from dicom_adapter.worker import Worker

log = structlog.get_logger()


class Outbox:
    """Works the outbox off, most urgent first."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        client: Client,
        *,
        locate: Locate,
        accepted: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._client = client
        self._locate = locate
        self._accepted = accepted
        #: What pipelines require, as far as it was asked for in this run of the thread's work.
        self._requirements: dict[str, Requirements | None] = {}
        self._worker = Worker("outbox", self._work, clock)

    def start(self) -> None:
        """Start submitting, with what an earlier run left."""
        self._worker.start()

    def wake(self) -> None:
        """Look at the outbox: a submission came, or one was retried by hand."""
        self._worker.wake()

    def stop(self, timeout: float) -> None:
        """Let the current call end, then stop."""
        self._worker.stop(timeout)

    def _work(self) -> datetime | None:
        # Asked once for all that is due now: after an outage that is much, and it waits.
        self._requirements.clear()
        while not self._worker.stopping:
            with self._ledger.read() as tx:
                # One at a time: a more urgent one may come while the platform makes us wait.
                due = submissions.due(tx, self._clock.now(), limit=1)
            if not due:
                break
            self._submit(due[0])
        with self._ledger.read() as tx:
            return submissions.next_ready(tx)

    def _submit(self, submission: Submission) -> None:
        with self._ledger.read() as tx:
            members = instances.of_submission(tx, submission.id, self._locate)
        request = request_of(submission, members)
        try:
            unmet = self._unmet(request, members)
            if unmet and not self._makes_a_job(submission):
                self._refuse(submission, unmet)
                return
            paths = {member.id: member.path for member in members}
            upload_missing(self._client, request, paths)
            job_id = self._client.submit(replace(request, unmet=told(unmet)))
        except (UnavailableError, WrongStateError) as error:
            # WrongStateError: an upload was reclaimed between the question and the submission.
            self._postpone(submission, str(error))
        except (DicomAdapterError, OSError) as error:
            self._park(submission, str(error), str(error))
        else:
            with self._ledger.write() as tx:
                submissions.accept(tx, submission.id, job_id, self._clock.now())
            self._accepted()

    def _unmet(self, request: JobRequest, members: Sequence[StoredInstance]) -> list[Unmet]:
        name = request.pipeline
        if name not in self._requirements:
            self._requirements[name] = self._client.requirements(name)
        requires = self._requirements[name]
        return [] if requires is None else unmet_by(request, members, requires)

    def _makes_a_job(self, submission: Submission) -> bool:
        """Tell whether there is to be a job all the same, or is one, whose answer was lost.

        That one was made while the pipeline had asked for less.
        """
        return submission.on_mismatch == OnMismatch.FAIL or (
            self._client.found(submission.id) is not None
        )

    def _refuse(self, submission: Submission, unmet: Sequence[Unmet]) -> None:
        why = f"is not what the pipeline '{submission.pipeline}' requires: {'; '.join(told(unmet))}"
        # The conditions alone: no log names a series.
        conditions = ", ".join(dict.fromkeys(one.condition for one in unmet))
        short = f"is not what the pipeline requires: {conditions}"
        if submission.on_mismatch == OnMismatch.SKIP:
            self._skip(submission, why, short)
        else:
            self._park(submission, why, short)

    def _skip(self, submission: Submission, why: str, short: str) -> None:
        with self._ledger.write() as tx:
            submissions.skip(tx, submission.id, why, self._clock.now())
        log.info(
            "no job is made of a submission",
            action="submission.skipped",
            submission=submission.id,
            name=submission.name,
            pipeline=submission.pipeline,
            why=short,
        )
        # What it has held may be free now.
        self._accepted()

    def _postpone(self, submission: Submission, error: str) -> None:
        pause = pause_after(submission.attempts)
        with self._ledger.write() as tx:
            submissions.postpone(tx, submission.id, self._clock.now() + pause, error)
        log.warning(
            "the platform did not take a submission; it is tried again",
            action="submission.postponed",
            submission=submission.id,
            name=submission.name,
            attempt=submission.attempts + 1,
            pause_seconds=round(pause.total_seconds(), 1),
            why=error,
        )

    def _park(self, submission: Submission, why: str, short: str) -> None:
        with self._ledger.write() as tx:
            submissions.park(tx, submission.id, why, self._clock.now())
        log.error(
            "a submission is refused: see `dicom-adapter submissions list`",
            action="submission.parked",
            submission=submission.id,
            name=submission.name,
            pipeline=submission.pipeline,
            why=short,
        )


class SubmissionOperations:
    """Shows and decides what the platform has not accepted yet."""

    def __init__(self, ledger: Ledger, clock: Clock, changed: Callable[[], None]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._changed = changed

    def listed(self, caller: Caller) -> list[Submission]:
        """Return the submissions that are pending or parked, oldest first."""
        caller.check_everywhere(Role.VIEWER)
        with self._ledger.read() as tx:
            return submissions.listed(tx)

    def retry(self, caller: Caller, ids: Sequence[str]) -> list[str]:
        """Have submissions tried again now and return their ids.

        Raises:
            PermissionDeniedError: the caller may not.
            NotFoundError: one of them is not pending or parked; nothing was changed.
        """
        caller.check_everywhere(Role.OPERATOR)
        with self._ledger.write() as tx:
            for submission_id in ids:
                if not submissions.retry(tx, submission_id, self._clock.now(), caller.name):
                    raise _no_submission(submission_id)
        self._changed()
        return list(ids)

    def discard(self, caller: Caller, ids: Sequence[str]) -> list[str]:
        """Give submissions up and return their ids; raises as `retry` does."""
        caller.check_everywhere(Role.OPERATOR)
        with self._ledger.write() as tx:
            for submission_id in ids:
                if not submissions.discard(tx, submission_id, self._clock.now(), caller.name):
                    raise _no_submission(submission_id)
        self._changed()
        return list(ids)


def request_of(submission: Submission, members: Sequence[StoredInstance]) -> JobRequest:
    """Return what is asked of the platform: series in the order they came, each by number."""
    series: dict[tuple[str, str], list[StoredInstance]] = {}
    for member in members:
        key = member.study_instance_uid, member.series_instance_uid
        series.setdefault(key, []).append(member)
    return JobRequest(
        request_id=submission.id,
        name=submission.name,
        pipeline=submission.pipeline,
        priority=submission.priority,
        ae_title=submission.ae_title,
        project=submission.project,
        supersedes=submission.supersedes,
        items=(tuple(input_of(*key, found) for key, found in series.items()),),
    )


def _no_submission(submission_id: str) -> NotFoundError:
    return NotFoundError(f"no pending or parked submission has the id '{submission_id}'")
