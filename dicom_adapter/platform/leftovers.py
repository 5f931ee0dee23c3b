"""Ends what other platforms still have of jobs that have ended here, timed out or lost."""

from datetime import datetime, timedelta

import structlog

from dicom_adapter.clock import Clock
from dicom_adapter.errors import DicomAdapterError, NotFoundError, WrongStateError
from dicom_adapter.ledger.remotes import Handed
from dicom_adapter.lifecycle import TERMINAL
from dicom_adapter.platform.remotes import Remotes
from dicom_adapter.worker import Worker

FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=5)
# It is woken by every job that ends, most of which no other platform has.
REST = timedelta(seconds=1)
WHY = "nobody waits for it any more where it came from"

log = structlog.get_logger()


class Leftovers:
    """Asks for the end of each, until the other platform says that it has ended."""

    def __init__(self, remotes: Remotes, clock: Clock) -> None:
        self._remotes = remotes
        self._clock = clock
        self._pause = FIRST_PAUSE
        self._worker = Worker("leftovers", self._work, clock, rest=REST)

    def start(self) -> None:
        """Start, with what an earlier run has left."""
        self._worker.start()

    def wake(self) -> None:
        """Look again: a job has ended, or the executors are others."""
        self._worker.wake()

    def stop(self, timeout: float) -> None:
        """Let the current call end, then stop; what is left is in the ledger."""
        self._worker.stop(timeout)

    def _work(self) -> datetime | None:
        found = self._remotes.left()
        still = [handed for handed in found if not self._worker.stopping and not self._end(handed)]
        if not still:
            self._pause = FIRST_PAUSE
            return None
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return self._clock.now() + pause

    def _end(self, handed: Handed) -> bool:
        """Ask for the end of one; True once it has ended."""
        try:
            has_ended = self._ask(handed)
        except DicomAdapterError as error:
            log.warning(
                "another platform may still run what nobody waits for; it is asked again",
                action="remote.left",
                executor=handed.executor,
                remote_job=handed.remote_id,
                why=str(error),
            )
            return False
        if has_ended:
            self._remotes.forget(handed)
        return has_ended

    def _ask(self, handed: Handed) -> bool:
        with self._remotes.connect(handed.executor) as client:
            try:
                request_id = "" if handed.remote_id else handed.request_id
                job = client.job(handed.remote_id, request_id=request_id)
                if job.state not in TERMINAL:
                    job = client.cancel(job.id, WHY)
            except NotFoundError:
                # It never came to be, or was deleted there.
                return True
            except WrongStateError:
                # It ended in between.
                return False
        return job.state in TERMINAL
