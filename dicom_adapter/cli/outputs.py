"""`jobs outputs`: what a job has put out, listed or brought here."""

from pathlib import Path
from typing import Annotated

import typer

from dicom_adapter.cli.common import (
    ConfigOption,
    DataOption,
    JobArgument,
    JsonOption,
    ServerOption,
    connect_platform,
)
from dicom_adapter.cli.output import counted, plain, print_rows
from dicom_adapter.errors import DicomAdapterError, WrongStateError
from dicom_adapter.files import make_folder
from dicom_adapter.rpc import convert
from dicom_adapter.rpc.client import CALL_SECONDS, Client
from dicom_adapter.rpc.fetch import fetch_output
from dicom_adapter.v1 import jobs_pb2


def add_to(jobs: typer.Typer) -> None:
    """Add the command."""
    jobs.command("outputs")(list_outputs)


def list_outputs(
    job: JobArgument,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Bring them here; nothing is replaced."),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """List what a job has put out, or bring it into a folder."""
    with connect_platform(config, server, data) as client:
        with client.errors():
            found = client.jobs.GetJob(jobs_pb2.GetJobRequest(job=job), timeout=CALL_SECONDS)
        if to is not None:
            _bring(client, found, to)
    print_rows(
        map(plain, found.outputs),
        ("path", "size", "sha256"),
        as_json=as_json,
        empty=f"{found.name} has no outputs.",
    )
    if to is not None:
        typer.echo(f"{counted(len(found.outputs), 'output')} fetched to {to}", err=True)


def _bring(client: Client, job: jobs_pb2.Job, to: Path) -> None:
    if "outputs" in job.reclaimed:
        at = job.reclaimed["outputs"].ToJsonString()[:16].replace("T", " ")
        raise WrongStateError(f"the outputs of {job.name} were reclaimed at {at} UTC")
    for output in map(convert.from_output, job.outputs):
        try:
            make_folder(to)
            fetch_output(client, job.id, output, to)
        except OSError as error:
            cure = "name an empty folder" if isinstance(error, FileExistsError) else "look there"
            raise DicomAdapterError(f"{to}: {output.path}: {error.strerror}: {cure}") from error
