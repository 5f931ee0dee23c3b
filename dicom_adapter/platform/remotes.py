"""The other platforms that run pipelines for this one: how they are reached, and what they have."""

import threading
from collections.abc import Mapping

from dicom_adapter.config import Executor
from dicom_adapter.errors import UnavailableError
from dicom_adapter.ledger import Ledger, remotes
from dicom_adapter.ledger.remotes import Handed
from dicom_adapter.model import Job
from dicom_adapter.platform.program import CannotStartError
from dicom_adapter.platform.workspace import Workspace
from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.credentials import Credentials


class Remotes:
    """Knows the executors, and keeps in the ledger what was handed to them."""

    def __init__(self, executors: Mapping[str, Executor], ledger: Ledger) -> None:
        self._executors = executors
        self._ledger = ledger
        self._lock = threading.Lock()
        self._waited_for: set[str] = set()

    def reload(self, executors: Mapping[str, Executor]) -> None:
        """Reach them by these settings from the next connection on."""
        self._executors = executors

    def executor(self, name: str) -> Executor:
        """Return how an executor is reached.

        Raises:
            CannotStartError: it is not configured any more.
        """
        found = self._executors.get(name)
        if found is None:
            raise CannotStartError(
                f"the executor '{name}' is not configured: name it in executors, or rerun the job "
                "with --latest where its pipeline has another one by now"
            )
        return found

    def connect(self, name: str) -> Client:
        """Return a new connection to an executor.

        Raises:
            CannotStartError: it is not configured any more.
            UnavailableError: the file of its ca cannot be read now.
        """
        found = self.executor(name)
        shown = Credentials.of(found)
        try:
            return Client(found.address, shown)
        except OSError as error:
            raise UnavailableError(f"{shown.ca}: {error.strerror}") from error

    def take(self, job: Job, workspace: Workspace) -> Handed:
        """Return what an attempt waits for: what an earlier one has handed over, or what is to be.

        It is in the ledger before anything is sent: a crash forgets nothing that may run elsewhere.
        """
        place = _place(job, workspace)
        with self._lock, self._ledger.write() as tx:
            found = remotes.going_on(tx, place)
            if found is None:
                found = Handed(f"{place}-{job.attempts}", place, job.id, job.rules.executor)
                remotes.add(tx, found)
            self._waited_for.add(found.request_id)
        return found

    def accepted(self, handed: Handed, remote_id: str) -> None:
        """Note which job the other platform has made."""
        with self._ledger.write() as tx:
            remotes.accepted(tx, handed.request_id, remote_id)

    def unwant(self, handed: Handed) -> None:
        """Note that it is to end: no other attempt takes it on."""
        with self._ledger.write() as tx:
            remotes.unwant(tx, handed.request_id)

    def forget(self, handed: Handed) -> None:
        """Note that it has ended, and that all of it that is wanted is here."""
        with self._ledger.write() as tx:
            remotes.remove(tx, handed.request_id)

    def release(self, handed: Handed) -> None:
        """Have nobody wait for it any more, wherever it stands."""
        with self._lock:
            self._waited_for.discard(handed.request_id)

    def left(self) -> list[Handed]:
        """Return what nobody waits for and is to end; from then on nobody takes it on."""
        with self._lock:
            with self._ledger.read() as tx:
                found = remotes.left(tx, self._waited_for)
            if found:
                with self._ledger.write() as tx:
                    for handed in found:
                        remotes.unwant(tx, handed.request_id)
        return found


def _place(job: Job, workspace: Workspace) -> str:
    """Return what tells an item from every other."""
    return f"{job.id}-{workspace.part}" if workspace.part else job.id
