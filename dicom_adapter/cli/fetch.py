"""`studies find` and `studies fetch`: what a source has, and having it come."""

from collections.abc import Sequence
from typing import Annotated

import typer

from dicom_adapter.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    ServerOption,
    YesOption,
    ask,
    connect,
)
from dicom_adapter.cli.conditions import (
    STUDY_KEYWORDS,
    ConditionsArgument,
    attributes_of,
    rows_of,
)
from dicom_adapter.cli.output import counted, plain, print_json, print_rows
from dicom_adapter.cli.send import progress_bar
from dicom_adapter.errors import DicomAdapterError, NotFoundError
from dicom_adapter.logs import printable
from dicom_adapter.rpc.client import CALL_SECONDS, Client
from dicom_adapter.v1 import composition_pb2 as messages

# Of more, it may be that too little was asked.
MOST_UNASKED = 10
# A source may look for long.
_FIND_SECONDS = 5 * CALL_SECONDS

FromOption = Annotated[
    str, typer.Option("--from", metavar="SOURCE", help="The source, as the configuration has it.")
]


def find(
    source: FromOption,
    conditions: ConditionsArgument = None,
    config: ConfigOption = None,
    data: DataOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """List the studies that a source has and that match."""
    attributes = _named(conditions)
    with connect(config, server, data) as client, client.errors():
        found = _found(client, source, attributes)
    print_rows(
        rows_of(found, STUDY_KEYWORDS, as_json=json),
        (*STUDY_KEYWORDS, "modalities", "series", "instances", "kept", "study_instance_uid"),
        as_json=json,
        empty=f"{printable(source)} has no study that matches.",
    )


def fetch(
    source: FromOption,
    conditions: ConditionsArgument = None,
    into: Annotated[
        str,
        typer.Option(
            "--into",
            metavar="AET",
            help="The AE title that they come into; by default the only one that keeps.",
        ),
    ] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    server: ServerOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Fetch studies from a source; what is here is left out.

    After a break, the same command goes on where it stopped.
    """
    attributes = _named(conditions)
    with connect(config, server, data) as client:
        with client.errors():
            found = _found(client, source, attributes)
        if not found:
            raise NotFoundError(f"{printable(source)} has no study that matches")
        if len(found) > MOST_UNASKED and not yes:
            what = counted(len(found), "study", "studies")
            ask(f"Fetch {what}?", f"{what} would be fetched")
        failed = 0
        for study in found:
            request = messages.FetchStudyRequest(
                source=source,
                study_instance_uid=study.study_instance_uid,
                attributes=attributes,
                ae_title=into,
            )
            try:
                _fetch(client, request, as_json=json)
            except DicomAdapterError as error:
                if len(found) == 1:
                    raise
                failed += 1
                typer.echo(printable(f"{study.study_instance_uid}: {error}"), err=True)
    if failed:
        raise DicomAdapterError(f"{failed} of {len(found)} studies were not fetched whole")


def _named(conditions: Sequence[str] | None) -> list[messages.Attribute]:
    if not conditions:
        raise typer.BadParameter("name what is looked for, as 'PatientID=123*'.")
    return attributes_of(conditions)


def _found(
    client: Client, source: str, attributes: list[messages.Attribute]
) -> list[messages.FoundStudy]:
    request = messages.FindStudiesRequest(source=source, attributes=attributes)
    return list(client.composition.FindStudies(request, timeout=_FIND_SECONDS).studies)


def _fetch(client: Client, request: messages.FetchStudyRequest, *, as_json: bool) -> None:
    uid = printable(request.study_instance_uid)
    last = messages.FetchProgress()
    with client.errors(), progress_bar() as progress:
        task = progress.add_task(uid, total=None)
        try:
            for last in client.composition.FetchStudy(request):
                progress.update(task, total=last.wanted, completed=last.before + last.fetched)
                if last.note:
                    told = printable(last.note)
                    progress.console.print(told, soft_wrap=True, markup=False, highlight=False)
        except KeyboardInterrupt:
            here = f"{last.before + last.fetched} of {last.wanted} instances are here"
            typer.echo(f"{uid}: {here}; the same command goes on", err=True)
            raise
    if as_json:
        told_of = {key: value for key, value in plain(last).items() if key != "note"}
        print_json({"study_instance_uid": uid, **told_of})
        return
    typer.echo(f"{uid}: {_told(last)}")


def _told(last: messages.FetchProgress) -> str:
    """Say what has come of a study, and what was here before."""
    series = counted(last.series, "series", "series")
    left = f"; {last.left_out} are of SOP classes that are not taken" if last.left_out else ""
    if last.before and not last.fetched:
        here = f"{counted(last.before, 'instance')} of {series}"
        return f"nothing fetched: all of it ({here}) was here before{left}"
    before = f"; {last.before} were here before" if last.before else ""
    return f"{counted(last.fetched, 'instance')} of {series} fetched{before}{left}"
