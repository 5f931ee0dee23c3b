"""Sends instances and echoes to another AE (Storage and Verification SCU, PS3.4 B and A)."""

import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pynetdicom import _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from dicom_adapter.config.certificates import verified_names, why_not
from dicom_adapter.config.values import check_ae_title
from dicom_adapter.errors import DicomAdapterError, InvalidArgumentError, UnavailableError
from dicom_adapter.hearing import ClosingAE, listen_well
from dicom_adapter.reactor import steady

VERIFICATION = "1.2.840.10008.1.1"
SUCCESS = 0x0000
# Stored, but not as it was sent (PS3.4 B.2.3): 0xB000 to 0xBFFF.
WARNING = 0xB000
# An association has an odd number from 1 to 255 for each context (PS3.8 9.3.2.2).
CONTEXTS = 128
TIMEOUT_SECONDS = 30
# The wait for a connection: less than anybody waits for us to stop.
CONNECT_SECONDS = 10
# What we take, in bytes: with the usual 16 KiB a large image is many a round of work.
LONGEST_PDU = 128 * 1024
LAST_PORT = 65_535

# The result of a rejection that may be none another time (PS3.8 section 9.3.4).
_FOR_NOW = 2
_REJECTIONS = {
    (1, 3): "calling AE title not recognized: it, or this address, is no source of the receiver",
    (1, 7): "called AE title not recognized: the receiver has no such AE title on this port",
    (3, 1): "the receiver is congested: try again later",
    (3, 2): "the receiver has too many associations: try again later",
}


class RejectedError(DicomAdapterError):
    """The peer rejected the association."""


class BusyError(RejectedError):
    """It did so for now alone."""


@dataclass(frozen=True)
class Peer:
    """An AE to talk to."""

    ae_title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Peer":
        """Return the peer of AET@HOST:PORT.

        Raises:
            InvalidArgumentError: the text has another form.
        """
        title, at, address = text.rpartition("@")
        host, colon, port = address.rpartition(":")
        if not (title and at and host and colon and port.isascii() and port.isdigit()):
            raise InvalidArgumentError("peer", f"'{text}' must have the form AET@HOST:PORT")
        if not 0 < int(port) <= LAST_PORT:
            raise InvalidArgumentError("peer", f"'{text}': a port is from 1 to {LAST_PORT}")
        return cls(_ae_title("peer", title), host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


@dataclass(frozen=True)
class Tls:
    """How a peer is talked with by TLS (PS3.15 section B.12)."""

    context: ssl.SSLContext
    #: What its certificate has for a name; None: whatever is trusted.
    name: str | None = None


@dataclass(frozen=True)
class Instance:
    """A file to send, and what it is sent as."""

    path: Path
    sop_class_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True)
class Sent:
    """What became of one file; `problem` is empty when the peer has taken it."""

    path: Path
    problem: str


def find(paths: Iterable[Path]) -> tuple[list[Instance], list[Path]]:
    """Return the Part 10 files among files and folders, and the files that cannot be sent.

    Raises:
        InvalidArgumentError: a path does not exist.
    """
    found, others = [], []
    for path in _files(paths):
        try:
            instance = _instance(path)
        except (InvalidDicomError, AttributeError, OSError, EOFError):
            others.append(path)
        else:
            found.append(instance)
    return found, others


def _instance(path: Path) -> Instance:
    # Only the file meta group: what stands behind it is sent unread.
    meta = read_file_meta_info(path)
    uids = (meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID)
    if not all(uids):
        raise InvalidDicomError("the file meta information lacks a UID")
    return Instance(path, str(uids[0]), str(uids[1]))


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(entry for entry in path.rglob("*") if entry.is_file())
        elif path.exists():
            yield path
        else:
            raise InvalidArgumentError("path", f"{path} does not exist")


def echo(peer: Peer, calling: str) -> None:
    """Send a C-ECHO.

    Raises:
        UnavailableError: the peer does not answer.
        RejectedError: it rejects the association, or the echo.
    """
    with associate(peer, calling, [build_context(VERIFICATION)]) as association:
        if not association.accepted_contexts:
            raise RejectedError(f"{peer} accepts the association, but no C-ECHO in it")
        status = association.send_c_echo()
        if "Status" not in status:
            raise UnavailableError(f"{peer} did not answer the C-ECHO")
        if status.Status != SUCCESS:
            raise RejectedError(f"{peer} answered the C-ECHO with 0x{status.Status:04X}")


def send(peer: Peer, calling: str, instances: Sequence[Instance]) -> Iterator[Sent]:
    """Send files as they are, neither decoded nor changed; yield what became of each.

    Raises:
        UnavailableError: the peer does not answer, or the association broke.
        RejectedError: it rejects the association.
    """
    # A file given by path is then sent by its bytes; pynetdicom knows only this process-wide way.
    _config.STORE_SEND_CHUNKED_DATASET = True
    for portion in _portions(instances):
        kinds = dict.fromkeys((i.sop_class_uid, i.transfer_syntax_uid) for i in portion)
        contexts = [build_context(sop_class, syntax) for sop_class, syntax in kinds]
        with associate(peer, calling, contexts) as association:
            accepted = {
                (str(context.abstract_syntax), str(context.transfer_syntax[0]))
                for context in association.accepted_contexts
            }
            for instance in portion:
                if (instance.sop_class_uid, instance.transfer_syntax_uid) in accepted:
                    problem = _send_one(peer, association, instance)
                else:
                    problem = "the receiver does not accept its SOP class in its transfer syntax"
                yield Sent(instance.path, problem)


def _send_one(peer: Peer, association: Association, instance: Instance) -> str:
    if not association.is_established:
        raise UnavailableError(f"{peer} broke the association off")
    try:
        status = association.send_c_store(instance.path)
    except (AttributeError, ValueError, OSError) as error:
        return f"cannot be sent: {error}"
    except RuntimeError:
        # pynetdicom's word for an association that ended since the last instance.
        status = Dataset()
    if "Status" not in status:
        raise UnavailableError(f"{peer} broke the association off")
    if status.Status == SUCCESS or status.Status & 0xF000 == WARNING:
        return ""
    comment = status.get("ErrorComment", "no comment")
    return f"refused with 0x{status.Status:04X}: {comment}"


@contextmanager
def associate(
    peer: Peer,
    calling: str,
    contexts: Sequence[PresentationContext],
    *,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[tuple[evt.EventType, Callable[[evt.Event], Any]]] = (),
    patience: float = TIMEOUT_SECONDS,
    tls: Tls | None = None,
) -> Iterator[Association]:
    """Open an association; when its peer accepts no context at all, it is over already.

    Args:
        peer: Whom with.
        calling: The AE title to call as.
        contexts: What is proposed.
        roles: Where we are the SCP of what is proposed.
        handlers: Told of what the peer sends.
        patience: The wait for the next of an answer, in seconds.
        tls: How the connection is secured; None: not at all.

    Raises:
        UnavailableError: the peer does not answer.
        RejectedError: it rejects the association, or TLS rejects either of us.
    """
    ae = ClosingAE(_ae_title("calling", calling))
    ae.acse_timeout, ae.connection_timeout = TIMEOUT_SECONDS, CONNECT_SECONDS
    ae.dimse_timeout = ae.network_timeout = patience
    unreachable = UnavailableError(
        f"{peer} does not answer: check host, port and firewall, and that the receiver runs"
    )
    rejections: list[A_ASSOCIATE_RJ] = []

    def opened(event: evt.Event) -> None:
        listen_well(event.assoc, patience, min(patience, TIMEOUT_SECONDS))

    def received(event: evt.Event) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            rejections.append(event.pdu)

    try:
        association = ae.associate(
            peer.host,
            peer.port,
            list(contexts),
            ae_title=peer.ae_title,
            max_pdu=LONGEST_PDU,
            ext_neg=list(roles),
            tls_args=(tls.context, peer.host) if tls else None,
            evt_handlers=[(evt.EVT_CONN_OPEN, opened), (evt.EVT_PDU_RECV, received), *handlers],
        )
    except OSError as error:
        # A host name that nobody has; everything else pynetdicom tells by the state.
        raise unreachable from error
    if rejections:
        # Not by the state: a peer that rejects at once is taken for one that nobody reached.
        kind = BusyError if rejections[0].result == _FOR_NOW else RejectedError
        raise kind(_rejection(peer, calling, rejections[0]))
    problem = ae.tls_problem
    if problem is not None:
        # One that goes away in the middle may be there another time.
        passes = isinstance(problem, ssl.SSLEOFError)
        told = f"{peer}: no connection by TLS: {why_not(problem)}"
        raise UnavailableError(told) if passes else RejectedError(told)
    # pynetdicom aborts an association without an accepted context; the peer has answered though.
    if not association.is_established and not association.rejected_contexts:
        raise unreachable
    steady(association)
    try:
        if tls is not None and tls.name is not None:
            _check_name(peer, association, tls.name)
        yield association
    finally:
        if association.is_established:
            association.release()


def _check_name(peer: Peer, association: Association, name: str) -> None:
    wrapper = association.dul.socket
    connection = wrapper.socket if wrapper else None
    names = verified_names(connection) if isinstance(connection, ssl.SSLSocket) else frozenset()
    if name.lower() not in names:
        raise RejectedError(
            f"{peer} has a certificate of {', '.join(sorted(names)) or 'no name'}, not of {name}"
        )


def _rejection(peer: Peer, calling: str, answer: A_ASSOCIATE_RJ) -> str:
    codes = (answer.result, answer.source, answer.reason_diagnostic)
    why = _REJECTIONS.get((codes[1] or 0, codes[2] or 0), "no reason given")
    numbers = "/".join(map(str, codes))
    return f"{peer} rejected the association of '{calling}' ({numbers}): {why}"


def _ae_title(field: str, text: str) -> str:
    try:
        return check_ae_title(text)
    except ValueError as error:
        raise InvalidArgumentError(field, str(error)) from None


def _portions(instances: Sequence[Instance]) -> Iterator[list[Instance]]:
    kinds: dict[tuple[str, str], list[Instance]] = {}
    for instance in instances:
        kinds.setdefault((instance.sop_class_uid, instance.transfer_syntax_uid), []).append(
            instance
        )
    rest = iter(kinds.values())
    while portion := list(islice(rest, CONTEXTS)):
        yield [instance for kind in portion for instance in kind]
