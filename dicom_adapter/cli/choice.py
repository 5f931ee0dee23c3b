"""Which jobs a decision is about: those that are named, or those that pass a filter."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import typer

from dicom_adapter.cli.common import ask, paged
from dicom_adapter.cli.output import counted
from dicom_adapter.lifecycle import MOVES, Action, JobState
from dicom_adapter.logs import printable
from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.convert import from_states, to_state
from dicom_adapter.v1 import jobs_pb2

PAGE = 200

StateOption = Annotated[
    list[JobState] | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help=f"Only in this state; may be given again. One of {', '.join(JobState)}.",
    ),
]
PipelineOption = Annotated[
    str, typer.Option("--pipeline", metavar="NAME", help="Only of this pipeline.")
]
ItemsOption = Annotated[
    list[str] | None,
    typer.Option("--item", metavar="ITEM", help="Only this item, by number; may be given again."),
]
ProjectOption = Annotated[
    str, typer.Option("--project", metavar="NAME", help="Only of this project.")
]
AETitleOption = Annotated[
    str, typer.Option("--ae-title", metavar="AET", help="Only of this AE title.")
]
JobsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="JOB", help="Jobs, by their ids or names; or a filter instead."),
]


@dataclass(frozen=True)
class Choice:
    """What was typed: names, or a filter."""

    names: Sequence[str]
    states: Sequence[JobState]
    pipeline: str
    ae_title: str
    project: str

    @property
    def is_filter(self) -> bool:
        """True where jobs are chosen by what they are."""
        return bool(self.states or self.pipeline or self.ae_title or self.project)

    def items(self, given: Sequence[str] | None) -> Sequence[str]:
        """Return the items that are meant; they are those of one job."""
        if given and len(self.names) != 1:
            raise typer.BadParameter("--item is of one job: name it.")
        return given or ()

    def __post_init__(self) -> None:
        """Make sure that there is one of the two."""
        if bool(self.names) == self.is_filter:
            raise typer.BadParameter(
                "name jobs, or choose them by --state, --pipeline, --ae-title and --project: one "
                "of the two."
            )


def pages(
    client: Client, request: jobs_pb2.ListJobsRequest, limit: int | None = None
) -> Iterator[jobs_pb2.Job]:
    """Yield the jobs of a list, page by page, at most `limit` of them."""
    with client.errors():
        found = (job for page in paged(client.jobs.ListJobs, request) for job in page.jobs)
        yield from islice(found, limit)


def chosen(
    client: Client,
    choice: Choice,
    action: Action,
    past: str,
    *,
    default: Sequence[JobState] = (),
    yes: bool,
) -> list[str]:
    """Return the jobs that a decision is about; those of a filter are shown, and asked about.

    Args:
        client: Where the jobs are.
        choice: What was typed.
        action: What is to be done; jobs that are in no state for it are left out.
        past: What they would be then.
        default: The states without a `--state`; empty: all in which it is legal.
        yes: Nobody is asked.

    Raises:
        DicomAdapterError: nobody is there to ask.
        typer.Abort: the answer is no.
    """
    if not choice.is_filter:
        return list(choice.names)
    found = _matching(client, choice, action, default)
    if not found:
        typer.echo("No job matches.")
        return []
    if not yes:
        for job in found:
            state = from_states([job.state])[0]
            typer.echo(printable(f"{job.name}, {state}, would be {past}"))
        many = counted(len(found), "job")
        ask(f"{action.capitalize()} {many}?", f"{many} would be {past}")
    return [job.id for job in found]


def _matching(
    client: Client, choice: Choice, action: Action, default: Sequence[JobState]
) -> list[jobs_pb2.Job]:
    """Return the jobs that pass and are in a state for an action, the oldest first."""
    legal = [move.source for move in MOVES if move.action == action and move.source is not None]
    states = [state for state in choice.states or default or legal if state in legal]
    if not states:
        raise typer.BadParameter(
            f"cannot {action} jobs that are {' or '.join(choice.states)}: they must be "
            f"{' or '.join(legal)}."
        )
    request = jobs_pb2.ListJobsRequest(
        page_size=PAGE,
        states=map(to_state, states),
        pipeline=choice.pipeline,
        ae_title=choice.ae_title,
        project=choice.project,
    )
    return list(pages(client, request))[::-1]
