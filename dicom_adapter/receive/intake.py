"""Takes one instance in: checked, durable in the spool, known to the ledger, in that order."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from dicom_adapter.clock import Clock
from dicom_adapter.errors import (
    MismatchedInstanceError,
    OutOfResourcesError,
    UnavailableError,
    UnreadableInstanceError,
)
from dicom_adapter.ledger import Ledger, instances
from dicom_adapter.model import StoredInstance
from dicom_adapter.receive.part10 import IDENTIFYING, Identity, Origin, header, identity_of
from dicom_adapter.receive.spool import Part, Spool
from dicom_adapter.receive.walk import walk_of


@dataclass(frozen=True)
class Arrival:
    """One C-STORE request: what its command says, and its data set as it came over the wire."""

    ae_title: str
    association: int
    calling_ae_title: str
    source_address: str
    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    transfer_syntax_uid: str
    data: memoryview = field(repr=False)
    move_originator: tuple[str, int] | None = None


class Intake:
    """Stores instances; what it returns from without an exception survives a power cut."""

    def __init__(
        self,
        spool: Spool,
        ledger: Ledger,
        clock: Clock,
        *,
        reserve: int,
    ) -> None:
        self._spool = spool
        self._ledger = ledger
        self._clock = clock
        self._reserve = reserve

    def store(self, arrival: Arrival) -> str | None:
        """Store an instance and return its id; None when the same bytes wait here already.

        Raises:
            OutOfResourcesError: less than `storage.reserve` is free, or file or ledger failed.
            MismatchedInstanceError: the data set is not what the command announced.
            UnreadableInstanceError: the data set cannot be parsed, or lacks its UIDs.
        """
        try:
            instance = self._store_file(arrival)
        except OSError as error:
            raise OutOfResourcesError(f"cannot store: {os.strerror(error.errno or 0)}") from error
        return instance.id if self._record(instance, arrival) else None

    def _store_file(self, arrival: Arrival) -> StoredInstance:
        if self._spool.free() < self._reserve:
            raise OutOfResourcesError("less disk space is free than storage.reserve")
        if not arrival.data:
            raise UnreadableInstanceError("the data set is empty")
        walk = walk_of(arrival.transfer_syntax_uid, IDENTIFYING)
        walk.feed(arrival.data)
        identity = identity_of(walk.finish())
        _compare(arrival, identity)
        with self._spool.receive(uuid4().hex) as part:
            part.write(
                header(
                    arrival.sop_class_uid,
                    arrival.sop_instance_uid,
                    arrival.transfer_syntax_uid,
                    Origin(arrival.calling_ae_title, arrival.ae_title),
                )
            )
            part.write(arrival.data)
            path = self._spool.commit(part)
            return self._instance(arrival, identity, part, path)

    def _instance(
        self, arrival: Arrival, identity: Identity, part: Part, path: Path
    ) -> StoredInstance:
        return StoredInstance(
            id=part.id,
            ae_title=arrival.ae_title,
            association=arrival.association,
            calling_ae_title=arrival.calling_ae_title,
            source_address=arrival.source_address,
            sop_class_uid=identity.sop_class_uid,
            sop_instance_uid=identity.sop_instance_uid,
            study_instance_uid=identity.study_instance_uid,
            series_instance_uid=identity.series_instance_uid,
            transfer_syntax_uid=arrival.transfer_syntax_uid,
            instance_number=identity.instance_number,
            sha256=part.digest.hexdigest(),
            size=part.size,
            received_at=self._clock.now(),
            path=path,
        )

    def _record(self, instance: StoredInstance, arrival: Arrival) -> bool:
        new = False
        try:
            with self._ledger.write() as tx:
                new = not instances.is_duplicate(
                    tx, instance.ae_title, instance.sop_instance_uid, instance.sha256
                )
                if new:
                    instances.add(tx, instance, arrival.move_originator)
        except Exception as error:
            # Not recorded, so nobody would ever look for the file; the sender still has it.
            self._spool.remove(instance.id)
            if isinstance(error, UnavailableError):
                raise OutOfResourcesError("the ledger cannot be written") from error
            raise
        if not new:
            self._spool.remove(instance.id)
        return new


def _compare(arrival: Arrival, identity: Identity) -> None:
    if arrival.sop_class_uid != identity.sop_class_uid:
        raise MismatchedInstanceError("SOP Class UID of command and data set differ")
    if arrival.sop_instance_uid != identity.sop_instance_uid:
        raise MismatchedInstanceError("SOP Instance UID of command and data set differ")
