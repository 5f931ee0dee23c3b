"""`doctor`: finds what keeps a first sender from getting through, and says the cure."""

import errno
import ipaddress
import os
import resource
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import psutil
import typer

from dicom_adapter import scu
from dicom_adapter.cli.common import UNIX, ConfigOption, DataOption, JsonOption, read_settings
from dicom_adapter.cli.output import human_size, print_rows
from dicom_adapter.config import AETitle, Settings
from dicom_adapter.errors import DicomAdapterError, UnavailableError
from dicom_adapter.ledger import Ledger, events
from dicom_adapter.rpc.client import CALL_SECONDS, Client
from dicom_adapter.service import EMBEDDED, socket_address
from dicom_adapter.v1 import adapter_pb2, pipelines_pb2

CALLING = "DOCTOR"
CONNECT_SECONDS = 3.0
# A clock that is this far behind what the ledger has seen was set back.
CLOCK_TOLERANCE = timedelta(seconds=5)
# An association holds a socket and a file; the rest of the service some hundred descriptors.
DESCRIPTORS_PER_ASSOCIATION = 3
DESCRIPTORS_BESIDE = 200

Verdict = Literal["good", "look", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and the cure where it is not good."""

    verdict: Verdict
    subject: str
    found: str
    cure: str = ""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Find what keeps a first sender from getting through, and say the cure; exit 1 if any."""
    settings = read_settings(config, data)
    findings = list(examine(settings))
    print_rows(
        map(asdict, findings), ("verdict", "subject", "found", "cure"), as_json=as_json, empty=""
    )
    bad = [finding for finding in findings if finding.verdict == "bad"]
    if bad:
        raise DicomAdapterError(f"{len(bad)} things keep senders from getting through")


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, one finding after the other."""
    yield Finding("good", "configuration", f"{settings.file or 'the built-in default'} is valid")
    yield from _storage(settings)
    yield from _descriptors(settings)
    yield from _clock(settings)
    status = _running(settings)
    if status is None:
        yield Finding("look", "service", "is not running", "start it: dicom-adapter serve")
        yield from _free_ports(settings)
    else:
        yield Finding("good", "service", f"runs, version {status.version}")
        yield from _open_ports(settings, status)
        yield from _rejections(status)
        yield from (
            Finding("look", "attention", line, "see the command that it names")
            for line in status.attention
        )
    yield from _addresses(settings)
    yield from _platform(settings)


def _running(settings: Settings) -> adapter_pb2.Status | None:
    address = socket_address(settings)
    if not Path(address.removeprefix(UNIX)).exists():
        return None
    try:
        with Client(address) as client, client.errors():
            return client.adapter.GetStatus(adapter_pb2.GetStatusRequest(), timeout=CONNECT_SECONDS)
    except UnavailableError:
        # A socket that a killed service left behind.
        return None


def _storage(settings: Settings) -> Iterator[Finding]:
    storage = settings.storage
    folder = storage.path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield Finding(
            "bad",
            "storage",
            f"{folder} cannot be written: {error.strerror}",
            f"give the folder to the user that runs the service (uid {os.getuid()}), or change "
            "storage.path",
        )
        return
    usage = shutil.disk_usage(folder)
    found = f"{storage.path}: {human_size(usage.free)} free of {human_size(usage.total)}"
    if usage.free < storage.reserve:
        yield Finding(
            "bad",
            "storage",
            f"{found}, less than storage.reserve: C-STORE is answered 0xA700",
            f"make room, or lower storage.reserve ({human_size(storage.reserve)})",
        )
    elif 1 - usage.free / usage.total > storage.watermark:
        yield Finding(
            "look",
            "storage",
            f"{found}, above storage.watermark: delivered instances go at once",
            "make room, or raise storage.watermark",
        )
    else:
        yield Finding("good", "storage", found)


def _descriptors(settings: Settings) -> Iterator[Finding]:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    associations = settings.dicom.max_associations
    needed = associations * DESCRIPTORS_PER_ASSOCIATION + DESCRIPTORS_BESIDE
    if limit != resource.RLIM_INFINITY and limit < needed:
        yield Finding(
            "bad",
            "descriptors",
            f"at most {limit} open files, but {associations} associations need {needed}",
            "raise the limit (ulimit -Hn, LimitNOFILE=), or lower dicom.max_associations",
        )
    else:
        yield Finding("good", "descriptors", f"{needed} needed at most, {limit} allowed")


def _clock(settings: Settings) -> Iterator[Finding]:
    newest = _newest_event(settings)
    now = datetime.now(UTC)
    if newest is not None and newest > now + CLOCK_TOLERANCE:
        yield Finding(
            "bad",
            "clock",
            f"it says {now:%Y-%m-%d %H:%M:%S} UTC, but the ledger has seen {newest:%H:%M:%S} on "
            f"{newest:%Y-%m-%d}: it was set back, and groups wait until it has caught up",
            "set the clock, and keep it by NTP",
        )
    elif _synchronized() is False:
        yield Finding("look", "clock", "the system says that it is not synchronized", "turn NTP on")
    else:
        yield Finding("good", "clock", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _newest_event(settings: Settings) -> datetime | None:
    path = Path(settings.ledger.url.removeprefix("sqlite:///"))
    if not path.exists():
        return None
    ledger = Ledger(settings.ledger.url)
    try:
        with ledger.read() as tx:
            return events.newest_time(tx)
    except UnavailableError:
        # No ledger of ours yet; `serve` says so if it is none.
        return None
    finally:
        ledger.close()


def _synchronized() -> bool | None:
    command = shutil.which("timedatectl")
    if command is None:
        return None
    answer = subprocess.run(  # noqa: S603 - a fixed command
        [command, "show", "--property=NTPSynchronized", "--value"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {"yes": True, "no": False}.get(answer.stdout.strip())


def _ports(settings: Settings) -> dict[int, list[AETitle]]:
    found: dict[int, list[AETitle]] = {}
    for title in settings.ae_titles.values():
        port = settings.dicom.port if title.port is None else title.port
        found.setdefault(port, []).append(title)
    return found


def _free_ports(settings: Settings) -> Iterator[Finding]:
    host = settings.dicom.host
    for port in _ports(settings):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                yield _unusable(host, port, error)
            else:
                yield Finding("good", "port", f"{port} is free")


def _unusable(host: str, port: int, error: OSError) -> Finding:
    if error.errno == errno.EACCES:
        return Finding(
            "bad",
            "port",
            f"{port} may not be opened by uid {os.getuid()}",
            "choose one above 1023, or give the service CAP_NET_BIND_SERVICE",
        )
    if error.errno == errno.EADDRINUSE:
        return Finding(
            "bad",
            "port",
            f"{port} is taken by {_holder(port)}",
            "stop that, or choose another dicom.port",
        )
    return Finding(
        "bad",
        "port",
        f"{host} port {port} cannot be opened: {error.strerror}",
        "use an address of this machine as dicom.host, or 0.0.0.0",
    )


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("inet"):
            at = connection.laddr
            if connection.status == psutil.CONN_LISTEN and at and at.port == port:
                if connection.pid is None:
                    break
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        # The processes of others are theirs to see.
        return "another process"
    return "another process"


def _open_ports(settings: Settings, status: adapter_pb2.Status) -> Iterator[Finding]:
    for address, (port, titles) in zip(status.dicom, _ports(settings).items(), strict=False):
        host, _, real = address.rpartition(":")
        reached = "localhost" if ipaddress.ip_address(host.strip("[]")).is_unspecified else host
        peer = scu.Peer(titles[0].title, reached.strip("[]"), int(real))
        try:
            _reach(peer, settings)
        except (DicomAdapterError, OSError) as error:
            yield Finding(
                "bad", "port", f"{real} (dicom.port {port}) does not answer: {error}",
                "look at the service's log",
            )  # fmt: skip
        else:
            yield Finding("good", "port", f"{real} answers")


def _reach(peer: scu.Peer, settings: Settings) -> None:
    if settings.dicom.reject_unknown_sources:
        # A C-ECHO of ours would be rejected, and be shown as a sender that does not get through.
        socket.create_connection((peer.host, peer.port), CONNECT_SECONDS).close()
    else:
        scu.echo(peer, CALLING)


def _rejections(status: adapter_pb2.Status) -> Iterator[Finding]:
    for rejection in status.rejections:
        yield Finding(
            "bad",
            "sender",
            f"'{rejection.calling_ae_title}' at {rejection.address} called "
            f"'{rejection.called_ae_title}' and was rejected {rejection.count} times: "
            f"{rejection.why}",
            _cure(rejection),
        )


def _cure(rejection: adapter_pb2.Rejection) -> str:
    if "called AE title" in rejection.why:
        return (
            f"correct the called AE title at the sender, or add ae_titles."
            f"{rejection.called_ae_title or '<title>'}"
        )
    if "max_associations" in rejection.why:
        return "raise dicom.max_associations, or have the sender open fewer"
    if "source" in rejection.why:
        return (
            f"if it may send, add to sources: {{ae_title: {rejection.calling_ae_title}, "
            f"host: {rejection.address}}}"
        )
    return "correct the calling AE title at the sender"


def _addresses(settings: Settings) -> Iterator[Finding]:
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
    addresses = [str(host)] if not host.is_unspecified else list(_own_addresses())
    for port, titles in _ports(settings).items():
        names = ", ".join(title.title for title in titles)
        yield Finding(
            "good",
            "address",
            f"senders use AE title {names}, host {' or '.join(addresses)}, port {port}",
        )


def _own_addresses() -> Iterator[str]:
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                yield address.address


def _platform(settings: Settings) -> Iterator[Finding]:
    address = settings.platform.address
    if address == EMBEDDED:
        return
    try:
        with Client(address) as client, client.errors():
            answer = client.pipelines.ListPipelines(
                pipelines_pb2.ListPipelinesRequest(), timeout=min(CALL_SECONDS, CONNECT_SECONDS)
            )
    except DicomAdapterError as error:
        yield Finding(
            "bad", "platform", f"does not answer: {error}",
            "start it, or correct platform.address; submissions wait meanwhile",
        )  # fmt: skip
        return
    names = ", ".join(sorted(pipeline.name for pipeline in answer.pipelines)) or "none"
    yield Finding("good", "platform", f"{address} answers; its pipelines: {names}")
