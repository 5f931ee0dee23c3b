"""`send` and `echo`: a small Storage and Verification SCU."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dicom_adapter import scu
from dicom_adapter.errors import DicomAdapterError, NotFoundError

CALLING = "DICOM_ADAPTER"

CallingOption = Annotated[str, typer.Option("--calling", help="The AE title to call as.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(send)
    app.command()(echo)


def send(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders.")],
    to: Annotated[str, typer.Option("--to", metavar="AET@HOST:PORT", help="The receiver.")],
    calling: CallingOption = CALLING,
) -> None:
    """Send DICOM files by C-STORE, as they are."""
    peer = scu.Peer.parse(to)
    instances, others = scu.find(paths)
    if not instances:
        raise NotFoundError("none of the files is a DICOM file (PS3.10)")
    problems = []
    with progress_bar() as progress:
        task = progress.add_task(f"to {peer}", total=len(instances))
        for sent in scu.send(peer, calling, instances):
            progress.advance(task)
            if sent.problem:
                problems.append(sent)
    for sent in problems:
        typer.echo(f"{sent.path}: {sent.problem}", err=True)
    for path in others:
        typer.echo(f"{path}: not a DICOM file, left out", err=True)
    typer.echo(f"{len(instances) - len(problems)} of {len(instances)} instances sent to {peer}")
    if problems:
        raise DicomAdapterError(f"{peer} did not take {len(problems)} instances")


def echo(
    to: Annotated[str, typer.Argument(metavar="AET@HOST:PORT", help="The peer.")],
    calling: CallingOption = CALLING,
) -> None:
    """Send a C-ECHO: does the peer answer, and does it know these AE titles?"""
    peer = scu.Peer.parse(to)
    scu.echo(peer, calling)
    typer.echo(f"{peer} answers")


def progress_bar() -> Progress:
    """Return a progress bar on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
    )
