"""Makes the ledger know what is durable in the spool."""

from collections.abc import Sequence

from dicom_adapter.ledger import Ledger, instances
from dicom_adapter.receive.intake import Durable


class Recorder:
    """Records instances, all of a batch in one commit."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def record(self, durable: Sequence[Durable]) -> list[bool]:
        """Record instances; tell of each whether it is new, or waits here already.

        Raises:
            UnavailableError: the ledger cannot be written now.
        """
        new = []
        with self._ledger.write() as tx:
            for instance, originator in durable:
                is_new = not instances.is_duplicate(
                    tx, instance.ae_title, instance.sop_instance_uid, instance.sha256
                )
                if is_new:
                    instances.add(tx, instance, originator)
                new.append(is_new)
        return new
