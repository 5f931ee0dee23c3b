"""`jobs` and `pipelines`: what the platform runs and can run."""

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from dicom_adapter.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    ServerOption,
    connect,
)
from dicom_adapter.cli.output import plain, plain_job, print_rows, print_values
from dicom_adapter.lifecycle import JobState
from dicom_adapter.rpc.client import CALL_SECONDS, Client
from dicom_adapter.rpc.convert import to_state
from dicom_adapter.v1 import jobs_pb2, pipelines_pb2

PAGE = 200

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job's id or name.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    jobs = typer.Typer(help="The jobs of the platform.", no_args_is_help=True)
    jobs.command("list")(list_jobs)
    jobs.command("show")(show_job)
    jobs.command("logs")(print_log)
    app.add_typer(jobs, name="jobs")
    pipelines = typer.Typer(help="The pipelines of the platform.", no_args_is_help=True)
    pipelines.command("list")(list_pipelines)
    pipelines.command("show")(show_pipeline)
    app.add_typer(pipelines, name="pipelines")


def list_jobs(
    state: Annotated[
        list[JobState] | None, typer.Option("--state", help="Only these states.")
    ] = None,
    pipeline: Annotated[str, typer.Option("--pipeline", help="Only this pipeline.")] = "",
    ae_title: Annotated[str, typer.Option("--ae-title", help="Only of this AE title.")] = "",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many, the newest.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """List jobs, the newest first."""
    request = jobs_pb2.ListJobsRequest(
        page_size=min(limit or PAGE, PAGE),
        states=map(to_state, state or ()),
        pipeline=pipeline,
        ae_title=ae_title,
    )
    with connect(config, server, data) as client:
        print_rows(
            map(plain_job, _jobs(client, request, limit)),
            ("name", "state", "reason", "pipeline", "priority", "instances", "created_at"),
            as_json=as_json,
            empty="There are no jobs.",
        )


def _jobs(
    client: Client, request: jobs_pb2.ListJobsRequest, limit: int | None
) -> Iterator[jobs_pb2.Job]:
    given = 0
    while True:
        with client.errors():
            page = client.jobs.ListJobs(request, timeout=CALL_SECONDS)
        for job in page.jobs:
            if given == limit:
                return
            yield job
            given += 1
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def show_job(
    job: JobArgument,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Show all that is known of a job."""
    with connect(config, server, data) as client, client.errors():
        found = client.jobs.GetJob(jobs_pb2.GetJobRequest(job=job), timeout=CALL_SECONDS)
    print_values(plain_job(found), as_json=as_json)


def print_log(
    job: JobArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Print what a job's pipeline has written."""
    request = jobs_pb2.StreamLogsRequest(job=job, follow=follow)
    with connect(config, server, data) as client, client.errors():
        for chunk in client.jobs.StreamLogs(request):
            sys.stdout.buffer.write(chunk.data)
            sys.stdout.buffer.flush()


def list_pipelines(
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """List what the platform can run."""
    with connect(config, server, data) as client, client.errors():
        answer = client.pipelines.ListPipelines(
            pipelines_pb2.ListPipelinesRequest(), timeout=CALL_SECONDS
        )
    print_rows(
        map(plain, answer.pipelines),
        ("name", "version", "description"),
        as_json=as_json,
        empty="The platform has no pipelines.",
    )


def show_pipeline(
    name: Annotated[str, typer.Argument(metavar="PIPELINE")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Show all that is known of a pipeline."""
    with connect(config, server, data) as client, client.errors():
        request = pipelines_pb2.GetPipelineRequest(name=name)
        found = client.pipelines.GetPipeline(request, timeout=CALL_SECONDS)
    print_values(plain(found), as_json=as_json)
