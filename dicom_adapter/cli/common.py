"""The options that commands share, and how they reach the service."""

import importlib.resources
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from dicom_adapter import config as config_room
from dicom_adapter.addresses import EMBEDDED, socket_address
from dicom_adapter.config import Settings, load
from dicom_adapter.errors import DicomAdapterError, UnavailableError
from dicom_adapter.processor.catalogue import Catalogue
from dicom_adapter.rpc.client import CALL_SECONDS, Client
from dicom_adapter.rpc.credentials import Credentials

FAILED = 1
WRONG_WORDS = 2
#: No event has a higher number: it is an int64 of the API.
LAST_EVENT = 2**63 - 1
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 5.0
UNIX = "unix:"
TOKEN_VARIABLE = "DICOM_ADAPTER_TOKEN"  # noqa: S105 - its name, not its value
CA_VARIABLE = "DICOM_ADAPTER_CA"
BUILT_IN = "the built-in default"
_DEFAULT_FILE = str(importlib.resources.files(config_room).joinpath("default.yaml"))


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if text.startswith(UNIX) or (host and colon and port.isascii() and port.isdigit()):
        return text
    raise typer.BadParameter(f"'{text}' must have the form HOST:PORT or unix:PATH.")


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration; without it the file that DICOM_ADAPTER_CONFIG names, else "
        "./dicom-adapter.yaml, else the built-in default.",
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The data folder, instead of storage.path."),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="ADDRESS",
        parser=_address,
        help="HOST:PORT or unix:PATH of a service, instead of the configured one; by TCP with the "
        "token in DICOM_ADAPTER_TOKEN, and by TLS where DICOM_ADAPTER_CA names who vouches for it.",
    ),
]
# A script may put the same words behind every command, also where they change nothing.
IdleConfigOption = Annotated[Path | None, typer.Option("--config", hidden=True)]
IdleServerOption = Annotated[str | None, typer.Option("--server", hidden=True)]

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job's id or name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first so many.")
]
ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why, for the history.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
AllOption = Annotated[bool, typer.Option("--all", help="All that the list shows.")]


def paged(method: Callable[..., Any], request: Any) -> Iterator[Any]:  # noqa: ANN401 - of every list
    """Yield the pages of a list, each asked for when the one before is used up."""
    while True:
        page = method(request, timeout=CALL_SECONDS)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def ask_first(what: str, verb: str, past: str) -> None:
    """Ask before something is done that cannot be undone; it is not done where nobody answers.

    Raises:
        DicomAdapterError: nobody is there to ask.
        typer.Abort: the answer is no.
    """
    ask(f"{verb.capitalize()} {what} for good?", f"{what} would be {past} for good")


def ask(question: str, would: str) -> None:
    """Ask before something is done, which `would` tells as what would be; raises as `ask_first`."""
    # What is piped in was not meant as an answer.
    if not sys.stdin.isatty():
        raise DicomAdapterError(
            f"{would}, and nobody is there to ask: nothing was changed; --yes says that it is meant"
        )
    typer.confirm(question, abort=True)


def group(text: str) -> typer.Typer:
    """Return a command that has commands of its own; alone it shows its help."""
    return typer.Typer(help=text, callback=show_help, invoke_without_command=True)


def show_help(context: typer.Context) -> None:
    """Show the help where a command is missing: the words are not complete."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(WRONG_WORDS)


def read_settings(
    config: Path | None, data: Path | None = None, running: Settings | None = None
) -> Settings:
    """Return the settings, to which a service that is running shall change if one is given.

    Raises:
        ConfigError: tells every mistake.
    """
    if running is not None and origin(running) != BUILT_IN:
        # The file that it has, even where another one would be found by now.
        config = Path(running.file)
    return load(config, Catalogue(), data=data, running=running)


def connect(config: Path | None, server: str | None, data: Path | None = None) -> Client:
    """Return a connection to the service that a command is for.

    Raises:
        UnavailableError: no service runs for this configuration.
    """
    if server is not None:
        return _open(server, from_environment())
    settings = read_settings(config, data)
    return _open(socket_address(settings), Credentials(), settings)


def connect_platform(config: Path | None, server: str | None, data: Path | None = None) -> Client:
    """Return a connection to the platform of the service, which may be another server.

    Raises:
        UnavailableError: it does not answer.
    """
    if server is not None:
        return _open(server, from_environment())
    settings = read_settings(config, data)
    address = settings.platform.address
    if address == EMBEDDED:
        return _open(socket_address(settings), Credentials(), settings)
    return _open(address, Credentials.of(settings.platform), settings)


def from_environment() -> Credentials:
    """Return what is shown to a server that is named on the command line."""
    ca = os.environ.get(CA_VARIABLE)
    return Credentials(os.environ.get(TOKEN_VARIABLE, ""), Path(ca) if ca else None)


def _open(address: str, credentials: Credentials, settings: Settings | None = None) -> Client:
    """Connect to an address, which the settings have named if they are given."""
    # gRPC would try for long, and then tell of file descriptors: look first, and say it plainly.
    try:
        reach(address)
    except PermissionError as error:
        raise UnavailableError(
            f"{address}: {error.strerror}: run this as the user that runs the service"
        ) from error
    except OSError as error:
        # Which one, because in the wrong folder it is not the one that was meant.
        told = f"; configuration: {origin(settings)}" if settings else ""
        told += ": no --config, no ./dicom-adapter.yaml" if told.endswith(BUILT_IN) else ""
        raise UnavailableError(
            f"no service answers at {address} ({error.strerror or error}{told}): start it with "
            "`dicom-adapter serve`, or name another with --config, --data or --server"
        ) from error
    try:
        return Client(address, credentials)
    except OSError as error:
        raise UnavailableError(f"{credentials.ca}: {error.strerror} ({CA_VARIABLE})") from error


def origin(settings: Settings) -> str:
    """Return the file that settings come from, or that they are the built-in default."""
    return BUILT_IN if settings.file == _DEFAULT_FILE else settings.file


def reach(address: str) -> None:
    """Connect to a Unix socket or TCP port, and close it again; OSError says why it fails."""
    if not address.startswith(UNIX):
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_SECONDS)
        probe.connect(address.removeprefix(UNIX))
