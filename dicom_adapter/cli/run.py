"""`serve`, `check` and `reload`: run the service, say whether it would, and change it."""

import os
import resource

import structlog
import typer

from dicom_adapter import logs
from dicom_adapter.addresses import Ready
from dicom_adapter.cli.common import (
    ConfigOption,
    DataOption,
    IdleServerOption,
    JsonOption,
    ServerOption,
    connect,
    origin,
    read_settings,
)
from dicom_adapter.cli.output import counted, plain, print_rows
from dicom_adapter.cli.signals import Asked, handled
from dicom_adapter.errors import ConfigError, DicomAdapterError, fingerprint
from dicom_adapter.rpc import convert_adapter
from dicom_adapter.rpc.client import CALL_SECONDS
from dicom_adapter.service import Service
from dicom_adapter.v1 import adapter_pb2

# For the service's owner alone, whatever the shell's own mask is.
UMASK = 0o077

log = structlog.get_logger()


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(serve)
    app.command()(check)
    app.command()(reload)


def serve(
    config: ConfigOption = None,
    data: DataOption = None,
    server: IdleServerOption = None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C. The first one lets it drain, a second ends it.

    SIGHUP reloads the configuration, as `reload` does. On a terminal it says that the terminal is
    gone, and lets it drain.
    """
    del server
    settings = read_settings(config, data)
    os.umask(UMASK)
    logs.configure(settings.log)
    _raise_descriptor_limit()
    with handled() as signals:
        service = Service(settings, lambda running: read_settings(config, data, running))
        ready = service.start()
        try:
            _tell_how_to_send(service, ready)
            typer.echo(str(ready))
            while signals.wait() is Asked.RELOAD:
                _reload(service)
            log.info("stopping: associations and calls are let end", action="stopping")
        finally:
            # Also when nobody reads the line: what has started is stopped in its order.
            service.stop()
    log.info("stopped", action="stopped")


def _reload(service: Service) -> None:
    """Reload on behalf of nobody who could be told: whatever happens, the service goes on."""
    try:
        service.reload()
    except DicomAdapterError:
        # It is in the log already, in its own words.
        return
    except Exception as error:  # noqa: BLE001 - a fault of ours must not end what is received
        log.error(  # noqa: TRY400 - a traceback's message may hold patient data
            "not reloaded: internal error", action="reload.failed", **fingerprint(error)
        )


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


def reload(
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Have the service go by its changed configuration.

    What has changed is shown. Associations and groups stay as they are. A configuration with
    mistakes changes nothing: a line for each, exit 2.
    """
    with connect(config, server, data) as client, client.errors():
        answer = client.adapter.Reload(adapter_pb2.ReloadRequest(), timeout=CALL_SECONDS)
    if answer.mistakes:
        raise ConfigError(tuple(map(convert_adapter.from_mistake, answer.mistakes)))
    print_rows(
        map(plain, answer.changes),
        ("key", "change"),
        as_json=as_json,
        empty="The service goes by this configuration already.",
    )


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
