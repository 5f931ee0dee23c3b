"""What of this machine can keep senders out: disk, rights, limits, clock, and taken ports."""

import errno
import os
import resource
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from dicom_adapter.cli.findings import Finding
from dicom_adapter.cli.output import human_size
from dicom_adapter.config import Settings
from dicom_adapter.errors import UnavailableError
from dicom_adapter.ledger import Ledger, events
from dicom_adapter.platform.process import search_path

# A clock that is this far behind what the ledger has seen was set back.
CLOCK_TOLERANCE = timedelta(seconds=5)
# An association holds a socket and a file; the rest of the service some hundred descriptors.
DESCRIPTORS_PER_ASSOCIATION = 3
DESCRIPTORS_BESIDE = 200
SQLITE = "sqlite:///"


def storage(settings: Settings) -> Iterator[Finding]:
    """Look at the data folder: may it be written, and is there room?"""
    wanted = settings.storage.path
    folder = _nearest(wanted)
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
    yield _room(settings, folder)


def commands(settings: Settings) -> Iterator[Finding]:
    """Look at the programs of pipelines that run here as commands: are they there?"""
    for name, pipeline in settings.pipelines.items():
        if pipeline.is_remote or pipeline.image is not None:
            continue
        program = pipeline.command[0]
        if shutil.which(program, path=search_path()) is None:
            # It may be installed later, and keeps no sender out: jobs fail until then.
            yield Finding(
                "look",
                f"pipeline {name}",
                f"no program of this machine is {program}, so its jobs will fail",
                f"write its whole path in pipelines.{name}.command, and make it executable",
            )


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    # `os.path.lexists` and not `Path.exists`: that one raises where the folder is not ours to see.
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def _room(settings: Settings, folder: Path) -> Finding:
    limits = settings.storage
    usage = shutil.disk_usage(folder)
    found = f"{limits.path}: {human_size(usage.free)} free of {human_size(usage.total)}"
    if usage.free < limits.reserve:
        return Finding(
            "bad",
            "storage",
            f"{found}, less than storage.reserve: C-STORE is answered 0xA700",
            f"make room, or lower storage.reserve ({human_size(limits.reserve)})",
        )
    if usage.used / (usage.used + usage.free) > limits.watermark:
        return Finding(
            "look",
            "storage",
            f"{found}, above storage.watermark: delivered instances go at once",
            f"make room, or raise storage.watermark ({limits.watermark:.0%})",
        )
    return Finding("good", "storage", found)


def descriptors(settings: Settings) -> Iterator[Finding]:
    """Look at how many files the service may open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    associations = settings.dicom.max_associations
    needed = associations * DESCRIPTORS_PER_ASSOCIATION + DESCRIPTORS_BESIDE
    unlimited = limit == resource.RLIM_INFINITY
    if not unlimited and limit < needed:
        yield Finding(
            "bad",
            "descriptors",
            f"at most {limit} open files, but {associations} associations need {needed}",
            "raise the limit (ulimit -Hn, LimitNOFILE=), or lower dicom.max_associations",
        )
    else:
        allowed = "any number" if unlimited else limit
        yield Finding("good", "descriptors", f"{needed} needed at most, {allowed} allowed")


def clock(settings: Settings) -> Iterator[Finding]:
    """Look whether the clock was set back, or drifts."""
    newest = _newest_event(settings)
    now = datetime.now(UTC)
    if newest is not None and newest > now + CLOCK_TOLERANCE:
        yield Finding(
            "bad",
            "clock",
            f"it says {now:%Y-%m-%d %H:%M:%S} UTC, but the ledger has seen {newest:%H:%M:%S} on "
            f"{newest:%Y-%m-%d}: it was set back; from a restart on groups wait for it",
            "set the clock, and keep it by NTP",
        )
    elif _synchronized() is False:
        yield Finding("look", "clock", "the system says that it is not synchronized", "turn NTP on")
    else:
        yield Finding("good", "clock", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _newest_event(settings: Settings) -> datetime | None:
    url = settings.ledger.url
    # Opening it would make it, where it is not there.
    if url.startswith(SQLITE) and not os.access(url.removeprefix(SQLITE), os.R_OK | os.W_OK):
        return None
    ledger = Ledger(url)
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


def free_ports(settings: Settings) -> Iterator[Finding]:
    """Look whether every port that the service would listen on can be opened."""
    wanted = [
        (settings.dicom.host, settings.dicom.port if title.port is None else title.port, key)
        for title in settings.ae_titles.values()
        for key in ["dicom.port" if title.port is None else f"ae_titles.{title.title}.port"]
    ]
    shared = any(title.port is None for title in settings.ae_titles.values())
    if settings.dicom.tls is not None and shared:
        wanted.append((settings.dicom.host, settings.dicom.tls.port, "dicom.tls.port"))
    if settings.grpc.listen is not None:
        host, _, port = settings.grpc.listen.rpartition(":")
        wanted.append((host.strip("[]"), int(port), "grpc.listen"))
    told = set()
    for at, number, key in wanted:
        if number and (at, number) not in told:
            told.add((at, number))
            yield _port(at, number, key)


def _port(host: str, port: int, key: str) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return _unusable(host, port, key, error)
    return Finding("good", "port", f"{port} ({key}) is free")


def _unusable(host: str, port: int, key: str, error: OSError) -> Finding:
    if error.errno == errno.EACCES:
        found = f"{port} ({key}) may not be opened by uid {os.getuid()}"
        cure = "choose one above 1023, or give the service CAP_NET_BIND_SERVICE"
    elif error.errno == errno.EADDRINUSE:
        return _taken(port, key)
    else:
        found = f"{host} port {port} ({key}) cannot be opened: {error.strerror}"
        cure = "use an address of this machine as dicom.host, or 0.0.0.0"
    return Finding("bad", "port", found, cure)


def _taken(port: int, key: str) -> Finding:
    holder = "another process"
    # The processes of others are theirs to see.
    with suppress(psutil.Error):
        process = _holder(port)
        if process is not None and _is_adapter(process.cmdline()):
            # Stopping that one would stop the very service that this is asked about.
            return Finding(
                "bad",
                "port",
                f"{port} ({key}) is taken: a dicom-adapter (pid {process.pid}) runs with another "
                "configuration or data folder",
                f"give its --config or --data; for a second one choose another {key}",
            )
        if process is not None:
            holder = f"{process.name()} (pid {process.pid})"
    return Finding(
        "bad",
        "port",
        f"{port} ({key}) is taken by {holder}",
        f"stop that, or choose another {key}",
    )


def _holder(port: int) -> psutil.Process | None:
    """Return who listens on a port, as far as this user may know."""
    for connection in psutil.net_connections("inet"):
        at = connection.laddr
        listens = connection.status == psutil.CONN_LISTEN and at and at.port == port
        if listens and connection.pid is not None:
            return psutil.Process(connection.pid)
    return None


def _is_adapter(words: Sequence[str]) -> bool:
    """Tell whether a command line is that of `dicom-adapter serve` or `python -m dicom_adapter`.

    Names alone, not folders: whatever runs out of a folder of this name is not this program.
    """
    names = {Path(word).name for word in words}
    return "serve" in words and ("dicom-adapter" in names or "dicom_adapter" in words)
