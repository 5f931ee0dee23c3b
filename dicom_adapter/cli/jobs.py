"""`jobs` and `pipelines`: what the platform runs and can run."""

import codecs
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from dicom_adapter.cli import control, outputs
from dicom_adapter.cli.choice import (
    PAGE,
    AETitleOption,
    PipelineOption,
    ProjectOption,
    StateOption,
    pages,
)
from dicom_adapter.cli.common import (
    LAST_EVENT,
    ConfigOption,
    DataOption,
    JobArgument,
    JsonOption,
    LimitOption,
    ServerOption,
    connect_platform,
    group,
)
from dicom_adapter.cli.output import cell, plain, plain_job, print_json, print_rows, print_values
from dicom_adapter.lifecycle import ItemState
from dicom_adapter.logs import printable
from dicom_adapter.rpc.client import CALL_SECONDS, Client
from dicom_adapter.rpc.convert import to_state
from dicom_adapter.v1 import jobs_pb2, pipelines_pb2


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    jobs = group("The jobs of the platform.")
    jobs.command("list")(list_jobs)
    jobs.command("show")(show_job)
    jobs.command("logs")(print_log)
    jobs.command("watch")(watch_jobs)
    outputs.add_to(jobs)
    control.add_to(jobs)
    app.add_typer(jobs, name="jobs")
    pipelines = group("The pipelines that the platform can run.")
    pipelines.command("list")(list_pipelines)
    pipelines.command("show")(show_pipeline)
    app.add_typer(pipelines, name="pipelines")


def list_jobs(
    state: StateOption = None,
    pipeline: PipelineOption = "",
    ae_title: AETitleOption = "",
    project: ProjectOption = "",
    limit: LimitOption = None,
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
        project=project,
    )
    with connect_platform(config, server, data) as client:
        print_rows(
            map(plain_job, pages(client, request, limit)),
            ("name", "state", "reason", "priority", "instances", "created_at"),
            as_json=as_json,
            empty="No job matches."
            if state or pipeline or ae_title or project
            else "There are no jobs.",
        )


def show_job(
    job: JobArgument,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Show all that is known of a job, and all that became of it."""
    with connect_platform(config, server, data) as client, client.errors():
        request = jobs_pb2.GetJobRequest(job=job)
        found = client.jobs.GetJob(request, timeout=CALL_SECONDS)
        history = client.jobs.GetJobHistory(request, timeout=CALL_SECONDS)
        values = {**plain_job(found), "history": [plain(event) for event in history.events]}
        if as_json:
            # Of very many inputs: a person finds it by its path.
            values["provenance"] = _provenance(client, found)
    print_values(values, as_json=as_json)


def _provenance(client: Client, job: jobs_pb2.Job) -> Any:  # noqa: ANN401 - JSON of any kind
    """Return how a job's outputs were made; of several items, in a list of those that finished."""
    if len(job.items) > 1:
        done = [item.id for item in job.items if item.state == ItemState.FINISHED]
        return [_record(client, job, item) for item in done]
    return _record(client, job, "") if job.provenance_file else None


def _record(client: Client, job: jobs_pb2.Job, item: str) -> Any:  # noqa: ANN401 - JSON of any kind
    request = jobs_pb2.StreamProvenanceRequest(job=job.id, item=item)
    chunks = client.jobs.StreamProvenance(request, timeout=CALL_SECONDS)
    return json.loads(b"".join(chunk.data for chunk in chunks))


def watch_jobs(
    after: Annotated[
        int,
        typer.Option(
            "--after",
            metavar="N",
            min=0,
            help="Begin behind event N; 0: from now on.",
        ),
    ] = 0,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Print every move of every job as it happens.

    Each line begins with the number of its event: behind it, `--after` goes on.
    """
    with connect_platform(config, server, data) as client, client.errors():
        for change in client.jobs.WatchJobs(
            jobs_pb2.WatchJobsRequest(after_event=min(after, LAST_EVENT))
        ):
            if as_json:
                job = plain_job(change.job) if change.HasField("job") else None
                print_json({**plain(change.move), "job_id": change.job_id, "job": job})
            else:
                typer.echo(_told(change))
            sys.stdout.flush()


def _told(change: jobs_pb2.JobChange) -> str:
    move = change.move
    name = change.job.name if change.HasField("job") else change.job_id
    states = " -> ".join(state for state in (move.from_state, move.to_state) if state)
    why = f": {move.reason}" if move.reason else ""
    at = cell("at", move.at.ToJsonString())
    return printable(f"{move.number}  {at}  {name}  {move.action}  {states}  by {move.actor}{why}")


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
    shown = _for_terminal() if sys.stdout.isatty() else _as_written
    with connect_platform(config, server, data) as client, client.errors():
        for chunk in client.jobs.StreamLogs(request):
            sys.stdout.buffer.write(shown(chunk.data))
            sys.stdout.buffer.flush()


def _as_written(data: bytes) -> bytes:
    return data


def _for_terminal() -> Callable[[bytes], bytes]:
    """Return what makes a log fit for a terminal, which must not obey what a pipeline prints."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def shown(data: bytes) -> bytes:
        lines = decoder.decode(data).expandtabs().split("\n")
        return "\n".join(map(printable, lines)).encode()

    return shown


def list_pipelines(
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """List what the platform can run."""
    with connect_platform(config, server, data) as client, client.errors():
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
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="Its name, as listed.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Show all that is known of a pipeline."""
    with connect_platform(config, server, data) as client, client.errors():
        request = pipelines_pb2.GetPipelineRequest(name=name)
        found = client.pipelines.GetPipeline(request, timeout=CALL_SECONDS)
    print_values(plain(found), as_json=as_json)
