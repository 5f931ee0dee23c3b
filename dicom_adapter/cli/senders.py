"""What `doctor` asks a running service about its senders: do they reach it, who was turned away?"""

import difflib
import ipaddress
import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psutil

from dicom_adapter import scu
from dicom_adapter.cli.findings import Finding
from dicom_adapter.cli.output import counted, human_span
from dicom_adapter.config import AETitle, Settings
from dicom_adapter.errors import DicomAdapterError
from dicom_adapter.v1 import adapter_pb2

CALLING = "DOCTOR"
CONNECT_SECONDS = 3.0
# A sender that is still kept out tries again; a rejection that was the last for so long is history.
REJECTED_LATELY = timedelta(hours=1)
# How the reasons begin that are no rejections of an association.
INSTANCE_REFUSED = "instance refused"
NOTHING_ACCEPTED = "no proposed"


def _ports(settings: Settings) -> dict[int, list[AETitle]]:
    found: dict[int, list[AETitle]] = {}
    for title in settings.ae_titles.values():
        port = settings.dicom.port if title.port is None else title.port
        found.setdefault(port, []).append(title)
    shared = [title for title in settings.ae_titles.values() if title.port is None]
    if settings.dicom.tls is not None and shared:
        found[settings.dicom.tls.port] = shared
    return found


def _is_tls(settings: Settings, port: int) -> bool:
    return settings.dicom.tls is not None and port == settings.dicom.tls.port


def open_ports(settings: Settings, status: adapter_pb2.Status) -> Iterator[Finding]:
    """Look whether the ports of a running service answer."""
    ports = _ports(settings)
    real_ports = [int(address.rpartition(":")[2]) for address in status.dicom]
    if len(real_ports) != len(ports) or any(
        port not in {0, real} for port, real in zip(ports, real_ports, strict=True)
    ):
        yield Finding(
            "bad",
            "port",
            f"the service listens on {', '.join(status.dicom) or 'none'}, the configuration says "
            f"{', '.join(map(str, ports)) or 'none'}: it was changed since the start",
            "restart the service",
        )
        return
    for address, titles in zip(status.dicom, ports.values(), strict=True):
        yield _answer(address, titles, settings)


def _answer(address: str, titles: list[AETitle], settings: Settings) -> Finding:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    reached = "localhost" if ipaddress.ip_address(host).is_unspecified else host
    try:
        if settings.dicom.reject_unknown_sources or _is_tls(settings, int(port)):
            # A C-ECHO of ours would be rejected, and be shown as a sender that is kept out.
            socket.create_connection((reached, int(port)), CONNECT_SECONDS).close()
        else:
            scu.echo(scu.Peer(titles[0].title, reached, int(port)), CALLING)
    except (DicomAdapterError, OSError) as error:
        return Finding(
            "bad", "port", f"{port} does not answer: {error}", "look at the service's log"
        )
    return Finding("good", "port", f"{port} answers")


def rejections(settings: Settings, status: adapter_pb2.Status) -> Iterator[Finding]:
    """Tell who was turned away since the start, by the values that were seen."""
    now = datetime.now(UTC)
    for rejection in reversed(status.rejections):
        ago = now - rejection.last_at.ToDatetime(tzinfo=UTC)
        # A refused instance keeps nobody out: the next one may be good.
        bad = ago < REJECTED_LATELY and not rejection.why.startswith(INSTANCE_REFUSED)
        yield Finding(
            "bad" if bad else "look",
            "sender",
            f"'{rejection.calling_ae_title}' at {rejection.address} called "
            f"'{rejection.called_ae_title}' and {_what(rejection)}, "
            f"last {human_span(max(ago, timedelta()))} ago: {rejection.why}",
            _cure(settings, rejection),
        )


def _what(rejection: adapter_pb2.Rejection) -> str:
    times = counted(rejection.count, "time")
    if rejection.why.startswith(INSTANCE_REFUSED):
        refused = counted(rejection.count, "instance was", "instances were")
        return f"{refused} refused"
    if rejection.why.startswith(NOTHING_ACCEPTED):
        return f"could store nothing {times}"
    return f"was rejected {times}"


def _cure(settings: Settings, rejection: adapter_pb2.Rejection) -> str:
    if rejection.why.startswith(INSTANCE_REFUSED):
        return _instance_cure(rejection.why)
    if rejection.why.startswith(NOTHING_ACCEPTED):
        return _nothing_cure(rejection)
    if "called AE title" in rejection.why:
        return _called_cure(settings, rejection.called_ae_title)
    if "max_associations" in rejection.why:
        return "raise dicom.max_associations, or have the sender open fewer"
    if "source" in rejection.why or "user" in rejection.why:
        return _source_cure(settings, rejection)
    return "correct the calling AE title at the sender"


def _source_cure(settings: Settings, rejection: adapter_pb2.Rejection) -> str:
    if "certificate" in rejection.why:
        return (
            "if it may send, have it call by TLS with the certificate that its source names, or "
            "correct that name under sources"
        )
    if "token" in rejection.why:
        return "have the sender identify itself by a token that dicom.jwt describes"
    if "user" in rejection.why:
        return "correct user and passcode at the sender, or the user's hash in dicom.users"
    title = rejection.calling_ae_title
    # The name of a source is free; one that is there already must not be taken.
    name = next(n for n in _names(title) if n not in settings.sources)
    return (
        f"if it may send, add under sources: "
        f"{_yaml(name)}: {{ae_title: {_yaml(title)}, host: {_yaml(rejection.address)}}}"
    )


def _instance_cure(why: str) -> str:
    if "0xA7" in why:
        return "the sender keeps it: make room, look at the service's log, and send it again"
    return "the sender keeps it: correct it there, and send it again"


def _nothing_cure(rejection: adapter_pb2.Rejection) -> str:
    if "private_sop_classes" in rejection.why:
        return "if they are the sender's own, add their UIDs to dicom.private_sop_classes"
    if "accepted_sop_classes" in rejection.why:
        called = rejection.called_ae_title
        return (
            f"if it may send them, add its SOP classes to ae_titles.{called}.accepted_sop_classes"
        )
    return "have the sender propose a standard transfer syntax, as Explicit VR Little Endian"


def _called_cure(settings: Settings, called: str) -> str:
    known = settings.ae_titles
    if called in known:
        title = known[called]
        port = settings.dicom.port if title.port is None else title.port
        return f"correct the port at the sender: {called} listens on {port}"
    by_letters = {title.upper(): title for title in known}
    near = difflib.get_close_matches(called.upper(), by_letters, n=1)
    meant = f"to {by_letters[near[0]]}" if near else f"(there is {', '.join(known)})"
    return (
        f"correct the called AE title at the sender {meant}; upper and lower case differ; or add "
        f"ae_titles.{called or '<title>'}"
    )


def _names(title: str) -> Iterator[str]:
    yield title
    number = 2
    while True:
        yield f"{title}-{number}"
        number += 1


def _yaml(text: str) -> str:
    """Return a text as YAML reads it back: quoted where a plain one would mean something else."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{2,}", text) and text.lower() not in {
        "yes", "true", "off", "false", "null",
    }  # fmt: skip
    return text if plain else json.dumps(text)


def addresses(settings: Settings, status: adapter_pb2.Status | None) -> Iterator[Finding]:
    """Say what senders are to be told, or that none but this machine's own can get through."""
    if not settings.ae_titles:
        return
    host = ipaddress.ip_address(settings.dicom.host)
    if host.is_loopback:
        yield Finding(
            "look",
            "address",
            f"{host} is reached from this machine only",
            "set dicom.host to 0.0.0.0 for senders elsewhere",
        )
        return
    own = list(_own_addresses()) if host.is_unspecified else [str(host)]
    real = [address.rpartition(":")[2] for address in status.dicom] if status else []
    for number, (port, titles) in enumerate(_ports(settings).items()):
        told = real[number] if number < len(real) else port or "any free one"
        names = " or ".join(title.title for title in titles)
        how = " by TLS" if _is_tls(settings, port) else ""
        yield Finding(
            "good",
            "address",
            f"senders use AE title {names}, host {' or '.join(own) or 'unknown'}, port {told}{how}",
        )


def _own_addresses() -> Iterator[str]:
    for found in psutil.net_if_addrs().values():
        for address in found:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                yield address.address
