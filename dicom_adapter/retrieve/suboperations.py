"""The C-STORE sub-operations of a C-GET (PS3.4 section C.4.3): taken in as they come.

pynetdicom collects a whole data set in memory before it hands it over, and an instance may have
gigabytes. Here it is written to the spool piece by piece, as by our own listener: what pynetdicom
collects it in is exchanged once the command of a C-STORE is here.
"""

from io import BytesIO
from typing import Any

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.pdu_primitives import P_DATA

from dicom_adapter.errors import UnsupportedClassError
from dicom_adapter.receive.deposit import Deposit, Incoming, Named
from dicom_adapter.receive.status import SUCCESS, comment_of, status_of
from dicom_adapter.retrieve.problems import Problems


class Suboperations:
    """Takes in what a peer sends over an association that we have opened."""

    def __init__(self, deposit: Deposit) -> None:
        self._deposit = deposit
        self._sinks: set[_Sink] = set()
        self.problems = Problems()

    def attach(self, association: Association) -> None:
        """Take in what comes over an association, from now on."""
        dimse = association.dimse
        collect = dimse.receive_primitive

        def receive(primitive: P_DATA) -> None:
            collect(primitive)
            message = dimse.message
            if isinstance(message, C_STORE_RQ) and not isinstance(message.data_set, _Sink):
                begun = message.data_set.getvalue() if message.data_set else b""
                message.data_set = self._sink(association, message.command_set, message.context_id)
                message.data_set.write(begun)

        # By name: it is a method, and nothing else offers this.
        vars(dimse)["receive_primitive"] = receive

    def _sink(self, association: Association, command: Any, context: Any) -> "_Sink":  # noqa: ANN401 - a command set, or what pynetdicom makes of it
        accepted = association._accepted_cx.get(context)  # noqa: SLF001 - no other way to it
        sop_class, uid = (
            str(getattr(command, key, None) or "")
            for key in ("AffectedSOPClassUID", "AffectedSOPInstanceUID")
        )
        if accepted is None or not accepted.as_scp or accepted.abstract_syntax != sop_class:
            # pynetdicom refuses it then, and nobody is called.
            error = UnsupportedClassError("its SOP class is not that of its presentation context")
            self.problems.note(error)
            return _Sink(self._deposit, error)
        syntax = str(accepted.transfer_syntax[0])
        sink = _Sink(self._deposit, Named(sop_class, uid, syntax))
        self._sinks.add(sink)
        return sink

    def stored(self, event: evt.Event) -> int | Dataset:
        """Keep an instance that is here whole; return the answer to its C-STORE."""
        request: Any = event.request
        sink = request.DataSet
        if not isinstance(sink, _Sink):
            # So short that it came together with its command.
            whole = sink.getvalue() if sink else b""
            sink = self._sink(event.assoc, request, event.context.context_id)
            sink.write(whole)
        try:
            error = sink.kept()
        finally:
            self._discard(sink)
        if error is None:
            return SUCCESS
        self.problems.note(error)
        answer = Dataset()
        answer.Status = status_of(error)
        answer.ErrorComment = comment_of(error)[:64]
        return answer

    def close(self) -> None:
        """Leave nothing of what will never be whole."""
        for sink in list(self._sinks):
            self._discard(sink)

    def _discard(self, sink: "_Sink") -> None:
        self._sinks.discard(sink)
        sink.discard()


class _Sink(BytesIO):
    """What pynetdicom writes a data set to: it goes to the spool, and nothing stays here."""

    def __init__(self, deposit: Deposit, what: Named | Exception) -> None:
        super().__init__()
        self._deposit = deposit
        self._incoming: Incoming | None = None
        #: Why it cannot be kept, once that is clear; the rest of it is only read then.
        self._error: Exception | None = None
        if isinstance(what, Exception):
            self._error = what
            return
        try:
            self._incoming = deposit.begin(what)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs this instance alone
            self._error = error

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def write(self, data: Any) -> int:  # noqa: ANN401 - as BytesIO has it
        """Take the next bytes."""
        if self._incoming is not None and self._error is None:
            try:
                self._incoming.write(data)
            except Exception as error:  # noqa: BLE001 - as above
                self._error = error
        return len(data)

    def kept(self) -> Exception | None:
        """Keep it, now that it is whole; return why it cannot be."""
        if self._error is not None or self._incoming is None:
            return self._error
        try:
            self._incoming.finish()
            (outcome,) = self._deposit.keep([self._incoming])
        except Exception as error:  # noqa: BLE001 - as above
            return error
        return outcome.error

    def discard(self) -> None:
        """Leave nothing behind but what was kept."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.discard()
