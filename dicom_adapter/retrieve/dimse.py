"""Asks a PACS: C-FIND, and C-MOVE or C-GET (PS3.4 annex C, Study Root)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import Any, Self

from pydicom import Dataset
from pynetdicom import StoragePresentationContexts, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from dicom_adapter.attributes import texts_of
from dicom_adapter.errors import SourceError, UnavailableError
from dicom_adapter.hearing import cut
from dicom_adapter.receive.deposit import Deposit, Provenance
from dicom_adapter.retrieve.archive import Attributes, ElsewhereInstance, ElsewhereSeries, Level
from dicom_adapter.retrieve.suboperations import Suboperations
from dicom_adapter.scu import CONTEXTS, BusyError, Peer, RejectedError, Tls, associate

_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
_GET = "1.2.840.10008.5.1.4.1.2.2.3"
_NAMES = {_FIND: "C-FIND", _MOVE: "C-MOVE", _GET: "C-GET"}
_SUCCESS, _WARNING = 0x0000, 0xB000
_PENDING = frozenset({0xFF00, 0xFF01})
_CANCELLED = 0xFE00
_DESTINATION_UNKNOWN = 0xA801
_OUT_OF_RESOURCES = frozenset({0xA700, 0xA701, 0xA702})
#: The wait for an answer, in seconds: it may lie on a tape.
PATIENCE = 300.0
# A list of more would not fit into an element of 64 KiB.
_MOST_UIDS = 500
# The most usual ones first: of many SOP classes not all have room.
_SYNTAXES = tuple(
    f"1.2.840.10008.1.2{end}"
    for end in (
        ".1",  # Explicit VR Little Endian
        "",  # Implicit VR Little Endian
        *(f".4.{number}" for number in (90, 70, 50, 80, 91, 51, 57, 81)),  # JPEG 2000, JPEG, -LS
        ".5",  # RLE Lossless
        *(f".4.{number}" for number in (201, 202, 203)),  # High-Throughput JPEG 2000
        ".1.99",  # Deflated
        ".2",  # Explicit VR Big Endian
        *(f".4.{number}" for number in (*range(100, 109), 92, 93)),  # video; JPEG 2000 Part 2
    )
)


Ask = Callable[[], Iterator[tuple[Dataset, Dataset | None]]]


class DimseArchive:
    """A PACS that is asked; see `Archive`."""

    def __init__(
        self, name: str, peer: Peer, ae_title: str, retrieve: str, tls: Tls | None = None
    ) -> None:
        """Name it.

        Args:
            name: What it is called in the configuration.
            peer: Where it is.
            ae_title: Who asks, and what instances are for.
            retrieve: c-move or c-get.
            tls: How it is talked with, where that is by TLS.
        """
        self.name = name
        self._peer = peer
        self._ae_title = ae_title
        self._gets = retrieve == "c-get"
        self._tls = tls
        self._open = ExitStack()
        self._association: Association | None = None
        self._is_stopped = False

    @property
    def provenance(self) -> Provenance:
        """Where its instances come from."""
        return Provenance(self._peer.ae_title, self._peer.host)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def stop(self) -> None:
        """Have whoever waits for it wait no more."""
        self._is_stopped = True
        association = self._association
        if association is not None:
            cut(association)

    def _connected(self, event: evt.Event) -> None:
        # As soon as that: its peer need not answer.
        self._association = event.assoc
        if self._is_stopped:
            cut(event.assoc)

    def find(self, level: Level, keys: Attributes) -> Iterator[Attributes]:
        """Yield what matches; raises as `Archive.find` does."""
        identifier = _identifier(level, keys)
        association = self._asked(_FIND)
        with _broken_off(association):
            for code, status, found in self._answers(
                lambda: association.send_c_find(identifier, _FIND)
            ):
                if code in _PENDING:
                    if found is not None:
                        yield texts_of(found, keys)
                elif code != _SUCCESS:
                    raise self._refused(_FIND, code, status)

    def retrieve(
        self, series: ElsewhereSeries, wanted: Sequence[ElsewhereInstance], deposit: Deposit
    ) -> Iterator[str]:
        """Have instances of a series come; as `Archive.retrieve`."""
        for portion in _portions(series, wanted):
            identifier = _wanted(series, portion)
            if self._gets:
                yield from self._get(identifier, portion or wanted, deposit)
            else:
                yield from self._move(identifier)

    def _move(self, identifier: Dataset) -> Iterator[str]:
        association = self._asked(_MOVE)
        with _broken_off(association):
            for code, status, _ in self._answers(
                lambda: association.send_c_move(identifier, self._ae_title, _MOVE)
            ):
                self._judge(_MOVE, code, status)
                yield ""
                yield from self._left_out(code, status)

    def _left_out(self, code: int, status: Dataset) -> Iterator[str]:
        """Yield why instances were not sent, once for each, where the end of a C-MOVE says so."""
        if code in _PENDING:
            return
        for _ in range(status.get("NumberOfFailedSuboperations", 0)):
            yield f"it failed to send it: {self._cure}"
        if code == _SUCCESS and status.get("NumberOfCompletedSuboperations") == 0:
            yield f"it says that it has sent all there is, and sent nothing: {self._cure}"

    @property
    def _cure(self) -> str:
        return f"check the host and port that it has of the AE title {self._ae_title}"

    def _get(
        self, identifier: Dataset, wanted: Sequence[ElsewhereInstance], deposit: Deposit
    ) -> Iterator[str]:
        storage = _storage({one.sop_class_uid for one in wanted}, deposit)
        classes = dict.fromkeys(str(context.abstract_syntax) for context in storage)
        coming = Suboperations(deposit)
        with ExitStack() as open_:
            open_.callback(coming.close)
            association = self._associated(
                open_,
                [build_context(_GET), *storage],
                roles=[build_role(sop_class, scp_role=True) for sop_class in classes],
                handlers=[(evt.EVT_C_STORE, coming.stored)],
            )
            coming.attach(association)
            self._want(association, _GET)
            if not any(context.as_scp for context in association.accepted_contexts):
                raise SourceError(
                    f"{self.name} sends nothing of these SOP classes over an association that "
                    "others open: try retrieve: c-move"
                )
            open_.enter_context(_broken_off(association))
            for code, status, _ in self._answers(lambda: association.send_c_get(identifier, _GET)):
                yield from coming.problems.told()
                self._judge(_GET, code, status)
                yield ""

    def _asked(self, service: str) -> Association:
        """Return an association to ask in, which is kept for the next question."""
        if self._association is None or not self._association.is_established:
            self._open.close()
            services = [_FIND] if self._gets else [_FIND, _MOVE]
            self._associated(self._open, [build_context(service) for service in services])
        association = self._association
        assert association is not None  # noqa: S101 - opened above
        self._want(association, service)
        return association

    def _associated(
        self,
        open_: ExitStack,
        contexts: Sequence[PresentationContext],
        *,
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
        handlers: Sequence[tuple[evt.EventType, Callable[[evt.Event], Any]]] = (),
    ) -> Association:
        if self._is_stopped:
            raise self._silent()
        try:
            association = open_.enter_context(
                associate(
                    self._peer,
                    self._ae_title,
                    contexts,
                    roles=roles,
                    handlers=[(evt.EVT_CONN_OPEN, self._connected), *handlers],
                    patience=PATIENCE,
                    tls=self._tls,
                )
            )
        except (BusyError, UnavailableError) as error:
            raise self._silent(f"{self.name}: {error}") from error
        except RejectedError as error:
            raise SourceError(f"{self.name}: {error}") from error
        self._association = association
        return association

    def _want(self, association: Association, service: str) -> None:
        accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
        if service in accepted:
            return
        cure = {_MOVE: ": try retrieve: c-get", _GET: ": try retrieve: c-move"}.get(service, "")
        raise SourceError(
            f"{self.name} offers no {_NAMES[service]} of studies (Study Root) to "
            f"{self._ae_title}{cure}"
        )

    def _answers(self, ask: Ask) -> Iterator[tuple[int, Dataset, Dataset | None]]:
        """Yield the answers to a question: status code, status and identifier."""
        try:
            for status, found in ask():
                if "Status" not in status:
                    raise self._silent()
                yield int(status.Status), status, found
        except RuntimeError as error:
            # pynetdicom's word for an association that ended since it was last used.
            raise self._silent() from error

    def _silent(self, why: str = "") -> UnavailableError:
        if self._is_stopped:
            return UnavailableError("fetching was broken off")
        return UnavailableError(
            why or f"{self.name} broke off, or did not answer for {PATIENCE:g} s"
        )

    def _judge(self, service: str, code: int, status: Dataset) -> None:
        """Raise what an answer means; one that has left instances out is no error."""
        if code in _PENDING or code == _SUCCESS or code & 0xF000 == _WARNING:
            return
        raise self._refused(service, code, status)

    def _refused(self, service: str, code: int, status: Dataset) -> SourceError | UnavailableError:
        what = f"{self.name} answered the {_NAMES[service]} with 0x{code:04X}"
        if code == _DESTINATION_UNKNOWN:
            return SourceError(
                f"{what}: it does not know the AE title {self._ae_title}: enter it there with the "
                "host and port of this service, or use retrieve: c-get"
            )
        if code in _OUT_OF_RESOURCES:
            cure = f", or {self._cure}" if service == _MOVE else ""
            return UnavailableError(f"{what}: it is out of resources: try again later{cure}")
        if code == _CANCELLED:
            return UnavailableError(f"{what}: it was cancelled there")
        comment = texts_of(status, ["ErrorComment"]).get("ErrorComment", "no reason given")
        return SourceError(f"{what}: {comment}")


@contextmanager
def _broken_off(association: Association) -> Iterator[None]:
    """Abort an association in which an answer is given up: it would go on coming."""
    try:
        yield
    except BaseException:
        if association.is_established:
            association.abort()
        raise


def _identifier(level: Level, keys: Attributes) -> Dataset:
    identifier = Dataset()
    if not all(value.isascii() for value in keys.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.QueryRetrieveLevel = str(level)
    for key, value in keys.items():
        setattr(identifier, key, value)
    return identifier


def _wanted(series: ElsewhereSeries, portion: Sequence[ElsewhereInstance]) -> Dataset:
    """Return what names instances of a series, or all of it where none is named."""
    keys = {"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.uid}
    if not portion:
        return _identifier(Level.SERIES, keys)
    return _identifier(Level.IMAGE, {**keys, "SOPInstanceUID": "\\".join(i.uid for i in portion)})


def _portions(
    series: ElsewhereSeries, wanted: Sequence[ElsewhereInstance]
) -> Iterator[Sequence[ElsewhereInstance]]:
    """Yield what to ask for at a time; nothing is all of the series."""
    if len(wanted) == len(series.instances):
        yield ()
        return
    for start in range(0, len(wanted), _MOST_UIDS):
        yield wanted[start : start + _MOST_UIDS]


def _storage(classes: set[str], deposit: Deposit) -> list[PresentationContext]:
    """Return what to propose: each transfer syntax on its own, so that nothing is recoded.

    Of one context the peer chooses one transfer syntax, and sends everything in that.
    """
    known: Sequence[str] = sorted(one for one in classes if deposit.takes(one))
    if "" in classes:
        # It does not say which there are.
        usual = (str(context.abstract_syntax) for context in StoragePresentationContexts)
        known = [one for one in usual if deposit.takes(one)]
    room = CONTEXTS - 1
    known = known[:room]
    syntaxes = _SYNTAXES[: room // max(len(known), 1)]
    return [build_context(sop_class, syntax) for sop_class, syntax in product(known, syntaxes)]
