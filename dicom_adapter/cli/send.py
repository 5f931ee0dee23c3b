"""`send` and `echo`: a small Storage and Verification SCU."""

import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dicom_adapter import scu
from dicom_adapter.cli.common import IdleConfigOption, IdleServerOption
from dicom_adapter.cli.output import counted
from dicom_adapter.config.values import check_ae_title
from dicom_adapter.errors import (
    DicomAdapterError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from dicom_adapter.logs import printable

CALLING = "DICOM_ADAPTER"


def _ae_title(text: str) -> str:
    try:
        return check_ae_title(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from error


def _peer(text: str) -> scu.Peer:
    try:
        return scu.Peer.parse(text)
    except InvalidArgumentError as error:
        raise typer.BadParameter(f"{error.problem}.") from error


CallingOption = Annotated[
    str,
    typer.Option("--calling", metavar="AET", parser=_ae_title, help="The AE title to call as."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(send)
    app.command()(echo)


def send(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="Files and folders.", exists=True)
    ],
    to: Annotated[
        scu.Peer,
        typer.Option("--to", metavar="AET@HOST:PORT", parser=_peer, help="The receiver."),
    ],
    calling: CallingOption = CALLING,
    config: IdleConfigOption = None,
    server: IdleServerOption = None,
) -> None:
    """Send DICOM files by C-STORE, as they are."""
    del config, server
    instances, others = scu.find(paths)
    for path in others:
        typer.echo(f"{printable(str(path))}: not a DICOM file, left out", err=True)
    if not instances:
        raise NotFoundError("none of the files is a DICOM file (PS3.10)")
    _check_host(to)
    taken, refused = 0, 0
    try:
        with progress_bar() as progress:
            task = progress.add_task(f"to {to}", total=len(instances))
            for sent in scu.send(to, calling, instances):
                progress.advance(task)
                taken, refused = taken + (not sent.problem), refused + bool(sent.problem)
                if sent.problem:
                    told = printable(f"{sent.path}: {sent.problem}")
                    progress.console.print(told, soft_wrap=True, markup=False, highlight=False)
    finally:
        # Also when the association broke: what was taken before is the receiver's.
        typer.echo(f"{taken} of {counted(len(instances), 'instance')} sent to {to}")
    if refused:
        raise DicomAdapterError(f"{to} did not take {counted(refused, 'instance')}")


def echo(
    to: Annotated[
        scu.Peer, typer.Argument(metavar="AET@HOST:PORT", parser=_peer, help="The peer.")
    ],
    calling: CallingOption = CALLING,
    config: IdleConfigOption = None,
    server: IdleServerOption = None,
) -> None:
    """Send a C-ECHO: does the peer answer, to both AE titles?"""
    del config, server
    _check_host(to)
    scu.echo(to, calling)
    typer.echo(f"{to} answers")


def progress_bar() -> Progress:
    """Return a progress bar on standard error, where that is a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr, width=None if sys.stderr.isatty() else 10_000),
        disable=not sys.stderr.isatty(),
    )


def _check_host(peer: scu.Peer) -> None:
    try:
        socket.getaddrinfo(peer.host, peer.port)
    except OSError as error:
        raise UnavailableError(f"{peer}: the host is not known: {error.strerror}") from error
