"""`doctor`: finds what keeps a first sender from getting through, and says the cure."""

from collections.abc import Iterator
from dataclasses import asdict

import typer

from dicom_adapter.addresses import socket_address
from dicom_adapter.cli import elsewhere, machine, senders
from dicom_adapter.cli.common import (
    ANSWER_SECONDS,
    ConfigOption,
    DataOption,
    JsonOption,
    ServerOption,
    from_environment,
    origin,
    reach,
    read_settings,
)
from dicom_adapter.cli.findings import Finding, told
from dicom_adapter.cli.output import counted, print_json
from dicom_adapter.config import Settings
from dicom_adapter.errors import DicomAdapterError, UnavailableError
from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.credentials import Credentials
from dicom_adapter.v1 import adapter_pb2


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Find what keeps senders out, and say the cure. Exit 1 if something does.

    A rejected association counts as long as it is less than an hour old; an older one is only
    something to look at.
    """
    settings = read_settings(config, data)
    findings = []
    for finding in examine(settings, server):
        findings.append(finding)
        if as_json:
            print_json(asdict(finding))
        else:
            typer.echo("\n".join(told([finding])))
    bad = sum(finding.verdict == "bad" for finding in findings)
    if bad:
        raise DicomAdapterError(
            f"{counted(bad, 'thing keeps', 'things keep')} senders from getting through"
        )


def examine(settings: Settings, server: str | None = None) -> Iterator[Finding]:
    """Look at everything, one finding after the other."""
    yield Finding("good", "configuration", f"{origin(settings)} is valid")
    yield from machine.storage(settings)
    yield from machine.descriptors(settings)
    yield from machine.clock(settings)
    yield from machine.commands(settings)
    address = server or socket_address(settings)
    shown = from_environment() if server else Credentials()
    status: adapter_pb2.Status | None = None
    try:
        status = _status(address, shown)
    except PermissionError:
        yield Finding(
            "look",
            "service",
            f"{address} belongs to another user, so the running service cannot be asked",
            "run this as the user that runs the service",
        )
    except (OSError, UnavailableError):
        # No socket, or one that a killed service left behind.
        yield Finding("look", "service", "is not running", "start it: dicom-adapter serve")
        yield from machine.free_ports(settings)
    if status is not None:
        yield Finding("good", "service", f"runs, version {status.version}")
        yield from senders.open_ports(settings, status)
        yield from senders.rejections(settings, status)
        yield from (Finding("look", "attention", line) for line in status.attention)
    yield from senders.addresses(settings, status)
    yield from elsewhere.platforms(settings)
    if status is not None:
        # The service asks, as it would for studies: from its host, and by its AE title.
        with Client(address, shown) as client:
            yield from elsewhere.sources(settings, client)


def _status(address: str, shown: Credentials) -> adapter_pb2.Status:
    reach(address)
    with Client(address, shown) as client, client.errors():
        return client.adapter.GetStatus(adapter_pb2.GetStatusRequest(), timeout=ANSWER_SECONDS)
