"""`serve` and `check`: run the service, and say beforehand whether it would."""

import os
import resource
import signal
import threading
from types import FrameType

import structlog
import typer

from dicom_adapter import logs
from dicom_adapter.cli.common import (
    ConfigOption,
    DataOption,
    IdleServerOption,
    origin,
    read_settings,
)
from dicom_adapter.cli.output import counted
from dicom_adapter.service import Ready, Service

# For the service's owner alone, whatever the shell's own mask is.
UMASK = 0o077

log = structlog.get_logger()


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(serve)
    app.command()(check)


def serve(
    config: ConfigOption = None,
    data: DataOption = None,
    server: IdleServerOption = None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C. The first one lets it drain, a second ends it.

    The end of its terminal lets it drain, too.
    """
    del server
    settings = read_settings(config, data)
    os.umask(UMASK)
    logs.configure(settings.log)
    _raise_descriptor_limit()
    stop = _stop_signal()
    service = Service(settings)
    ready = service.start()
    try:
        _tell_how_to_send(service, ready)
        typer.echo(str(ready))
        stop.wait()
        log.info("stopping: associations and calls are let end", action="stopping")
    finally:
        # Also when nobody reads the line: what has started is stopped in its order.
        service.stop()
    log.info("stopped", action="stopped")


def check(
    config: ConfigOption = None,
    data: DataOption = None,
    server: IdleServerOption = None,
) -> None:
    """Say every mistake of the configuration. A line each; exit 2 if there is one."""
    del server
    settings = read_settings(config, data)
    parts = (
        counted(len(settings.ae_titles), "AE title"),
        counted(len(settings.pipelines), "pipeline"),
        counted(len(settings.sources), "source"),
    )
    typer.echo(f"{origin(settings)}: good: {', '.join(parts)}")


def _stop_signal() -> threading.Event:
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        # A terminal that goes away may say so twice, and nobody is there to be impatient.
        if stop.is_set() and number != signal.SIGHUP:
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # What was told to outlive its terminal, by nohup, goes on to do so.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handle)
    return stop


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tell_how_to_send(service: Service, ready: Ready) -> None:
    ports = [address.rpartition(":")[2] for address in ready.dicom]
    configured = list(dict.fromkeys(map(service.port_of, service.settings.ae_titles.values())))
    for title in service.settings.ae_titles.values():
        port = ports[configured.index(service.port_of(title))]
        log.info(
            "listening: send studies to it",
            action="listening",
            ae_title=title.title,
            example=f"dicom-adapter send FOLDER --to {title.title}@localhost:{port}",
        )
