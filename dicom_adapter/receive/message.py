"""One DIMSE message while it comes in: its command set, then its data set, into the spool."""

import time

from dicom_adapter.receive import dimse, pdu
from dicom_adapter.receive.dimse import Command
from dicom_adapter.receive.intake import Reception
from dicom_adapter.receive.negotiation import Context
from dicom_adapter.receive.pdu import ProtocolError

# What is refused is read to its end all the same, for only then may it be answered; but no further
# than this beyond `max_instance`.
_PATIENCE_BYTES = 64 * 1024 * 1024


class Message:
    """What has come of one message so far."""

    def __init__(self, context: Context, max_instance: int) -> None:
        self.context = context
        self.command: Command | None = None
        self.reception: Reception | None = None
        #: Why the sender has to keep its instance, once that is clear.
        self.error: Exception | None = None
        self.received = 0
        self.began = time.monotonic()
        self._command_set = bytearray()
        self._pieces: list[memoryview] = []
        self._longest = max_instance + _PATIENCE_BYTES

    def add_to_command(self, data: memoryview) -> None:
        """Take more of the command set; ProtocolError when it is longer than any."""
        self.received += len(data)
        self._command_set += data
        if len(self._command_set) > dimse.LONGEST_COMMAND_SET:
            raise ProtocolError(pdu.INVALID_PARAMETER)

    def end_command(self) -> Command:
        """Decode the command set, which is here whole; ProtocolError when it is none."""
        self.command = dimse.decode_command(bytes(self._command_set))
        self._command_set = bytearray()
        return self.command

    def add_to_data_set(self, data: memoryview) -> None:
        """Take more of the data set, to be written with what else is here by `write`.

        Raises:
            ProtocolError: it is refused, and never ends.
        """
        self.received += len(data)
        if self.reception is not None:
            self._pieces.append(data)
        elif self.received > self._longest:
            raise ProtocolError(pdu.INVALID_PARAMETER)

    def write(self) -> None:
        """Write what is here of the data set, before the buffer that it lies in is used again."""
        if not self._pieces or self.reception is None:
            return
        pieces, self._pieces = self._pieces, []
        is_first = not self.reception.part.size
        uid = self.reception.arrival.sop_instance_uid
        try:
            self.reception.write(self.context.header.of(uid) if is_first else b"", pieces)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs this instance alone
            self.refuse(error)

    def refuse(self, error: Exception) -> None:
        """Leave nothing of the instance, and only read on."""
        self.error = error
        self.discard()

    def discard(self) -> None:
        """Leave nothing of the instance."""
        self._pieces = []
        reception, self.reception = self.reception, None
        if reception is not None:
            reception.discard()
