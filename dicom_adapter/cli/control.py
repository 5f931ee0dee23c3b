"""`jobs cancel`, `retry`, `rerun`, `invalidate` and `delete`: what people decide about jobs."""

from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from dicom_adapter.cli.choice import (
    AETitleOption,
    Choice,
    ItemsOption,
    JobsArgument,
    PipelineOption,
    ProjectOption,
    StateOption,
    chosen,
)
from dicom_adapter.cli.common import (
    FAILED,
    ConfigOption,
    DataOption,
    ReasonOption,
    ServerOption,
    YesOption,
    ask_first,
    connect_platform,
)
from dicom_adapter.cli.output import counted
from dicom_adapter.errors import DicomAdapterError, UnavailableError
from dicom_adapter.lifecycle import Action, ItemState, JobState
from dicom_adapter.rpc.client import CALL_SECONDS, Client
from dicom_adapter.rpc.convert import from_states
from dicom_adapter.v1 import jobs_pb2


def add_to(jobs: typer.Typer) -> None:
    """Add the commands to those of `jobs`."""
    jobs.command("cancel")(cancel_jobs)
    jobs.command("retry")(retry_jobs)
    jobs.command("rerun")(rerun_job)
    jobs.command("invalidate")(invalidate_jobs)
    jobs.command("delete")(delete_jobs)


def cancel_jobs(
    jobs: JobsArgument = None,
    reason: ReasonOption = "",
    only_if_queued: Annotated[
        bool, typer.Option("--only-if-queued", help="Refuse a job that has started.")
    ] = False,
    item: ItemsOption = None,
    state: StateOption = None,
    pipeline: PipelineOption = "",
    ae_title: AETitleOption = "",
    project: ProjectOption = "",
    yes: YesOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Cancel jobs that wait or run.

    Those of a filter are shown first, and asked about.
    """
    choice = Choice(jobs or (), state or (), pipeline, ae_title, project)
    with connect_platform(config, server, data) as client:

        def cancel(job: str) -> str:
            request = jobs_pb2.CancelJobRequest(
                job=job,
                reason=reason,
                only_if_queued=only_if_queued,
                items=choice.items(item),
            )
            found = client.jobs.CancelJob(request, timeout=CALL_SECONDS)
            return f"{found.name} is {from_states([found.state])[0]}{_items(found)}"

        _each(client, chosen(client, choice, Action.CANCEL, "cancelled", yes=yes), cancel)


def retry_jobs(
    jobs: JobsArgument = None,
    reason: ReasonOption = "",
    confirm: Annotated[
        bool,
        typer.Option(
            "--confirm",
            help="Also repeat finished work, and run on inputs that the pipeline does not take.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would run again.")
    ] = False,
    item: ItemsOption = None,
    item_state: Annotated[
        list[ItemState] | None,
        typer.Option(
            "--item-state", metavar="STATE", help="Only items in this state; may be given again."
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Every item, whatever its state.")] = False,
    state: StateOption = None,
    pipeline: PipelineOption = "",
    ae_title: AETitleOption = "",
    project: ProjectOption = "",
    yes: YesOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Run jobs that have ended again.

    They keep their ids and names. What they have put out before is kept as superseded. Of a job of
    several items those that failed run again, or else those that were cancelled. Jobs of a filter,
    failed ones without a --state, are shown first, and asked about.
    """
    choice = Choice(jobs or (), state or (), pipeline, ae_title, project)
    with connect_platform(config, server, data) as client:

        def retry(job: str) -> str:
            request = jobs_pb2.RetryJobRequest(
                job=job,
                reason=reason,
                confirm=confirm,
                dry_run=dry_run,
                items=choice.items(item),
                item_states=item_state or (),
                full=full,
            )
            found = client.jobs.RetryJob(request, timeout=CALL_SECONDS)
            again = "would run again" if dry_run else "is in the queue again"
            return f"{found.name} {again}{_items(found)}"

        wanted = chosen(
            client,
            choice,
            Action.RETRY,
            "run again",
            default=(JobState.FAILED,),
            yes=yes or dry_run,
        )
        _each(client, wanted, retry)


def rerun_job(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job's id or name.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the new job.")] = "",
    latest: Annotated[
        bool, typer.Option("--latest", help="Run the pipeline as it is now, not as it was.")
    ] = False,
    reresolve: Annotated[
        bool, typer.Option("--reresolve", help="Add what has come of its series since.")
    ] = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Make a new job of a job's inputs.

    The first one stays as it is, in whatever state.
    """
    with connect_platform(config, server, data) as client, client.errors():
        request = jobs_pb2.RerunJobRequest(job=job, name=name, latest=latest, reresolve=reresolve)
        typer.echo(f"{client.jobs.RerunJob(request, timeout=CALL_SECONDS).name} is made")


def invalidate_jobs(
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why the outputs are wrong.")
    ],
    jobs: JobsArgument = None,
    state: StateOption = None,
    pipeline: PipelineOption = "",
    ae_title: AETitleOption = "",
    project: ProjectOption = "",
    yes: YesOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Declare outputs wrong. They stay.

    Jobs of a filter are shown first, and asked about.
    """
    choice = Choice(jobs or (), state or (), pipeline, ae_title, project)
    with connect_platform(config, server, data) as client:

        def invalidate(job: str) -> str:
            request = jobs_pb2.InvalidateJobRequest(job=job, reason=reason)
            return f"{client.jobs.InvalidateJob(request, timeout=CALL_SECONDS).name} is invalidated"

        wanted = chosen(client, choice, Action.INVALIDATE, "invalidated", yes=yes)
        _each(client, wanted, invalidate)


def delete_jobs(
    jobs: JobsArgument = None,
    reason: ReasonOption = "",
    state: StateOption = None,
    pipeline: PipelineOption = "",
    ae_title: AETitleOption = "",
    project: ProjectOption = "",
    yes: YesOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Delete jobs that have ended.

    Their outputs and logs go with them. What was received and the audit trail stay. Asks first.
    """
    choice = Choice(jobs or (), state or (), pipeline, ae_title, project)
    if choice.names and not yes:
        ask_first(
            f"{counted(len(choice.names), 'job')}, with outputs and logs", "delete", "deleted"
        )
    with connect_platform(config, server, data) as client:

        def delete(job: str) -> str:
            request = jobs_pb2.DeleteJobRequest(job=job, reason=reason)
            return f"{client.jobs.DeleteJob(request, timeout=CALL_SECONDS).name} is deleted"

        _each(client, chosen(client, choice, Action.DELETE, "deleted", yes=yes), delete)


def _items(job: jobs_pb2.Job) -> str:
    """Say where the items of a job are that has several."""
    if len(job.items) == 1:
        return ""
    states: dict[str, list[str]] = {}
    for item in job.items:
        states.setdefault(item.state, []).append(str(item.number))
    return "; items " + ", ".join(
        f"{' '.join(numbers)} {state}" for state, numbers in states.items()
    )


def _each(client: Client, jobs: Sequence[str], decide: Callable[[str], str]) -> None:
    """Decide one job after another; what is wrong with one keeps none of the others."""
    failed = False
    for job in jobs:
        try:
            with client.errors():
                typer.echo(decide(job))
        except UnavailableError:
            raise
        except DicomAdapterError as error:
            failed = True
            # Several are refused for the same reason, and few reasons name the job.
            which = "" if len(jobs) == 1 or job in str(error) else f"{job}: "
            typer.echo(f"dicom-adapter: {which}{error}", err=True)
    if failed:
        raise typer.Exit(FAILED)
