"""The options that commands share, and how they reach the service."""

from pathlib import Path
from typing import Annotated

import typer

from dicom_adapter.config import Settings, load
from dicom_adapter.errors import UnavailableError
from dicom_adapter.processor.catalogue import Catalogue
from dicom_adapter.rpc.client import Client
from dicom_adapter.service import socket_address

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="The configuration file; without it DICOM_ADAPTER_CONFIG, ./dicom-adapter.yaml, or "
        "the built-in default.",
    ),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="The data folder, instead of storage.path.")
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server", help="HOST:PORT or unix:PATH of a service, instead of the configured one."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="[ID]...")]
AllOption = Annotated[bool, typer.Option("--all", help="All that the list shows.")]

UNIX = "unix:"


def read_settings(config: Path | None, data: Path | None = None) -> Settings:
    """Return the settings; ConfigError tells every mistake."""
    return load(config, Catalogue(), data=data)


def connect(config: Path | None, server: str | None, data: Path | None = None) -> Client:
    """Return a connection to the service that a command is for.

    Raises:
        UnavailableError: no service runs for this configuration.
    """
    address = server or socket_address(read_settings(config, data))
    if address.startswith(UNIX) and not Path(address.removeprefix(UNIX)).exists():
        raise UnavailableError(
            f"no service answers at {address}: start it with `dicom-adapter serve`, or name it "
            "with --server"
        )
    return Client(address)
