"""Takes in instances that were asked for elsewhere, instead of sent by a peer's own will.

They are stored, checked and recorded as what comes by C-STORE is, and under a number of their own,
as those of an association are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dicom_adapter.errors import (
    NoInstanceUIDError,
    UnreadableInstanceError,
    UnsupportedClassError,
)
from dicom_adapter.receive.intake import Arrival, Intake, Limits, Outcome, Reception
from dicom_adapter.receive.part10 import Header, Origin, is_uid
from dicom_adapter.receive.policy import Policy, Title, is_transfer_syntax


@dataclass(frozen=True)
class Provenance:
    """Where the instances of a deposit come from."""

    #: The AE title that sends them; empty where they come by HTTP.
    calling_ae_title: str
    #: The address, or name, of its host.
    address: str


@dataclass(frozen=True)
class Named:
    """What an instance is announced to be."""

    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    transfer_syntax_uid: str


class Incoming:
    """An instance that is being taken in."""

    def __init__(self, reception: Reception, header: bytes) -> None:
        self.reception = reception
        self._header = header

    def write(self, piece: bytes | memoryview) -> None:
        """Take the next bytes of the data set; raises as `Reception.write` does."""
        if piece:
            self.reception.write(self._header, [memoryview(piece)])
            self._header = b""

    def finish(self) -> None:
        """Check it, now that the last byte is here; raises as `Reception.finish` does."""
        self.reception.finish()

    def discard(self) -> None:
        """Leave nothing behind but what was kept."""
        self.reception.discard()


class Deposit:
    """Takes instances in for one AE title, from one place, under one number."""

    def __init__(
        self,
        number: int,
        title: Title,
        provenance: Provenance,
        *,
        intake: Intake,
        limits: Limits,
        policy: Policy,
        stored: Callable[[str], None],
    ) -> None:
        self.number = number
        self._title = title
        self._provenance = provenance
        self._intake = intake
        self._limits = limits
        self._policy = policy
        self._stored = stored

    def takes(self, sop_class_uid: str) -> bool:
        """Tell whether instances of a SOP class are kept by the AE title."""
        is_ignored = sop_class_uid in self._title.ignored_sop_classes
        return not is_ignored and self._policy.accepts(self._title, sop_class_uid)

    def begin(self, named: Named) -> Incoming:
        """Begin to take an instance in; it is to be discarded in the end, kept or not.

        Raises:
            RefusedInstanceError: it cannot be taken as it is announced, or there is no room.
        """
        if not self.takes(named.sop_class_uid):
            raise UnsupportedClassError("its SOP class is none that the AE title takes")
        if not is_uid(named.sop_instance_uid):
            raise NoInstanceUIDError("its SOP Instance UID is no UID")
        if not is_transfer_syntax(named.transfer_syntax_uid):
            raise UnreadableInstanceError("its transfer syntax is none that data sets are in")
        arrival = Arrival(
            ae_title=self._title.title,
            association=self.number,
            calling_ae_title=self._provenance.calling_ae_title,
            source_address=self._provenance.address,
            sop_class_uid=named.sop_class_uid,
            sop_instance_uid=named.sop_instance_uid,
            transfer_syntax_uid=named.transfer_syntax_uid,
            resend=self._title.resend,
        )
        origin = Origin(self._provenance.calling_ae_title, self._title.title)
        header = Header(named.sop_class_uid, named.transfer_syntax_uid, origin)
        reception = self._intake.begin(arrival, self._limits)
        return Incoming(reception, header.of(named.sop_instance_uid))

    def keep(self, finished: Sequence[Incoming]) -> list[Outcome]:
        """Keep finished instances; return what became of each. It waits for the disk."""
        outcomes = self._intake.keep([each.reception for each in finished])
        if any(outcome.recorded for outcome in outcomes):
            self._stored(self._title.title)
        return outcomes
