"""Takes instances in: streamed to the spool, checked, made durable, known to the ledger.

In that order, and several together where several have come: what `keep` gives an id survives a
power cut.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from dicom_adapter.clock import Clock
from dicom_adapter.errors import (
    MismatchedInstanceError,
    OutOfResourcesError,
    UnavailableError,
    UncertainError,
)
from dicom_adapter.model import Received, Recorded, Resend, StoredInstance
from dicom_adapter.receive.part10 import IDENTIFYING, Identity, identity_of
from dicom_adapter.receive.spool import Spool
from dicom_adapter.receive.walk import DeflatedWalk, Walk, walk_of

# The free space is looked at again after so many bytes of one instance.
_BYTES_PER_LOOK = 64 * 1024 * 1024


@dataclass(frozen=True)
class Arrival:
    """One C-STORE request: what its command says, and who sends it."""

    ae_title: str
    association: int
    calling_ae_title: str
    source_address: str
    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    transfer_syntax_uid: str
    move_originator: tuple[str, int] | None = None
    resend: Resend = Resend.PROCESS


@dataclass(frozen=True)
class Limits:
    """What an instance may take."""

    #: The longest data set, in bytes.
    max_instance: int
    #: What is to be left free on the spool's volume, in bytes.
    reserve: int


#: Makes the ledger know instances; tells what was made of each.
Record = Callable[[Sequence[Received]], Sequence[Recorded]]


@dataclass(frozen=True)
class Outcome:
    """What became of a received instance."""

    #: What the ledger has made of it; None when it was not kept.
    recorded: Recorded | None = None
    #: Why it was not kept.
    error: Exception | None = None


class Reception:
    """An instance that is being received."""

    #: What it is; there once it is finished.
    instance: StoredInstance

    def __init__(self, arrival: Arrival, spool: Spool, limits: Limits, clock: Clock) -> None:
        self.arrival = arrival
        self.part = spool.begin(spool.new_id(clock.now()))
        self._spool = spool
        self._limits = limits
        self._clock = clock
        self._walk: Walk | DeflatedWalk = walk_of(arrival.transfer_syntax_uid, IDENTIFYING)
        self._left = limits.max_instance
        self._look_at = _BYTES_PER_LOOK

    def write(self, header: bytes, pieces: Sequence[memoryview]) -> None:
        """Take the next bytes of the data set, with what stands before them in the file.

        Raises:
            OutOfResourcesError: it gets too long, or the disk too full.
            UnreadableInstanceError: it cannot be a data set.
        """
        self._left -= sum(map(len, pieces))
        if self._left < 0:
            raise OutOfResourcesError("the data set is longer than dicom.max_instance")
        for piece in pieces:
            self._walk.feed(piece)
        try:
            self.part.write([header, *pieces] if header else pieces)
        except OSError as error:
            raise _cannot_store(error) from error
        if self.part.size > self._look_at:
            self._look_at += _BYTES_PER_LOOK
            _want_room(self._spool, self._limits.reserve)

    def finish(self) -> None:
        """Check what was received, now that the last byte is here.

        Raises:
            MismatchedInstanceError: the data set is not what the command announced.
            UnreadableInstanceError: the data set is not whole, or lacks its UIDs.
        """
        identity = identity_of(self._walk.finish())
        if self.arrival.sop_class_uid != identity.sop_class_uid:
            raise MismatchedInstanceError("SOP Class UID of command and data set differ")
        if self.arrival.sop_instance_uid != identity.sop_instance_uid:
            raise MismatchedInstanceError("SOP Instance UID of command and data set differ")
        self.instance = self._stored(identity)

    def _stored(self, identity: Identity) -> StoredInstance:
        arrival, part = self.arrival, self.part
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
            sha256=part.sha256,
            size=part.size,
            received_at=self._clock.now(),
            path=self._spool.path_of(part.id),
        )

    def discard(self) -> None:
        """Leave nothing behind of what was received."""
        self.part.discard()


class Intake:
    """Stores instances; those that it gives an id survive a power cut."""

    def __init__(self, spool: Spool, record: Record, clock: Clock) -> None:
        self._spool = spool
        self._record = record
        self._clock = clock

    @property
    def waits(self) -> bool:
        """True where keeping means to wait for the disk."""
        return self._spool.flush.waits

    def begin(self, arrival: Arrival, limits: Limits) -> Reception:
        """Begin to receive an instance.

        Raises:
            OutOfResourcesError: less than `storage.reserve` is free, or no file can be made.
        """
        try:
            _want_room(self._spool, limits.reserve)
            return Reception(arrival, self._spool, limits, self._clock)
        except OSError as error:
            raise _cannot_store(error) from error

    def keep(self, receptions: Sequence[Reception]) -> list[Outcome]:
        """Keep finished receptions; return what became of each. It waits for the disk.

        They are to be discarded then, kept or not.
        """
        errors = self._spool.keep([reception.part for reception in receptions])
        durable = [
            reception for reception, error in zip(receptions, errors, strict=True) if error is None
        ]
        recorded = iter(self._recorded(durable))
        return [
            next(recorded) if error is None else Outcome(error=_cannot_store(error))
            for error in errors
        ]

    def _recorded(self, durable: Sequence[Reception]) -> Sequence[Outcome]:
        if not durable:
            return ()
        try:
            told = self._record(
                [Received(r.instance, r.arrival.move_originator, r.arrival.resend) for r in durable]
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the senders keep their instances
            # Not recorded, so nobody would ever look for the files; but where that is not certain,
            # a row without its file would be worse: the next start has them agree.
            if not isinstance(error, UncertainError):
                self._remove(durable)
            if isinstance(error, UnavailableError):
                error = OutOfResourcesError("the ledger cannot be written")
            return [Outcome(error=error)] * len(durable)
        for reception, recorded in zip(durable, told, strict=True):
            if not recorded.is_new:
                # The file of its first reception stands for it; where that has been lost, its own.
                self._spool.merge(reception.instance.id, recorded.instance_id)
        return [Outcome(recorded) for recorded in told]

    def _remove(self, receptions: Sequence[Reception]) -> None:
        for reception in receptions:
            # One that a broken disk keeps must not keep the others; the next start records it.
            with suppress(OSError):
                self._spool.remove(reception.instance.id)


def _want_room(spool: Spool, reserve: int) -> None:
    if spool.free() < reserve:
        raise OutOfResourcesError("less disk space is free than storage.reserve")


def _cannot_store(error: OSError) -> OutOfResourcesError:
    return OutOfResourcesError(f"cannot store: {os.strerror(error.errno or 0)}")
