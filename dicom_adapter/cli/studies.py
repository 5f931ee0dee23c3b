"""`studies` and `series`: what is kept, for people to make jobs of."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from dicom_adapter.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    LimitOption,
    ServerOption,
    YesOption,
    ask_first,
    connect,
    group,
    paged,
)
from dicom_adapter.cli.conditions import (
    STUDY_KEYWORDS,
    ConditionsArgument,
    attributes_of,
    part_of,
    rows_of,
)
from dicom_adapter.cli.fetch import fetch, find
from dicom_adapter.cli.output import counted, plain, print_rows, print_values
from dicom_adapter.errors import DicomAdapterError, NotFoundError
from dicom_adapter.pictures.drawing import LONGEST
from dicom_adapter.ranges import Order, Whole
from dicom_adapter.rpc.client import CALL_SECONDS, Client
from dicom_adapter.v1 import composition_pb2 as messages

PAGE = 500

StudyArgument = Annotated[str, typer.Argument(metavar="UID", help="A Study Instance UID.")]
SeriesArgument = Annotated[
    str, typer.Argument(metavar="UID", help="A Series Instance UID, or STUDY/SERIES.")
]
_SERIES = ("PatientID", "StudyDate", "Modality", "SeriesNumber", "SeriesDescription")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    studies = group("The studies that are kept, to make jobs of.")
    studies.command("list")(list_studies)
    studies.command("show")(show_study)
    studies.command("find")(find)
    studies.command("fetch")(fetch)
    studies.command("release")(release)
    app.add_typer(studies, name="studies")
    series = group("The series that are kept.")
    series.command("list")(list_series)
    series.command("show")(show_series)
    series.command("instances")(list_instances)
    series.command("preview")(preview_series)
    app.add_typer(series, name="series")


def list_studies(
    conditions: ConditionsArgument = None,
    config: ConfigOption = None,
    data: DataOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
    limit: LimitOption = None,
) -> None:
    """List the studies that match, the newest first."""
    with connect(config, server, data) as client, client.errors():
        print_rows(
            rows_of(_studies(client, attributes_of(conditions)), STUDY_KEYWORDS, as_json=json),
            (*STUDY_KEYWORDS, "modalities", "series", "instances", "study_instance_uid"),
            as_json=json,
            empty="No study is kept that matches." if conditions else "No study is kept.",
            limit=limit,
        )


def show_study(
    study: StudyArgument,
    config: ConfigOption = None,
    data: DataOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Show a study, and its series."""
    with connect(config, server, data) as client, client.errors():
        named = [messages.Attribute(keyword="StudyInstanceUID", value=study)]
        found = next(_studies(client, named), None)
        if found is None:
            raise NotFoundError(f"nothing is kept of the study {study}: have it sent first")
        print_values(plain(found), as_json=json)
        if not json:
            typer.echo()
            rows = rows_of(_series(client, named), _SERIES, as_json=False)
            print_rows(
                rows, (*_SERIES[2:], "instances", "series_instance_uid"), as_json=False, empty=""
            )


def list_series(
    conditions: ConditionsArgument = None,
    config: ConfigOption = None,
    data: DataOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
    limit: LimitOption = None,
) -> None:
    """List the series that match, the newest first."""
    with connect(config, server, data) as client, client.errors():
        print_rows(
            rows_of(_series(client, attributes_of(conditions)), _SERIES, as_json=json),
            (*_SERIES, "instances", "ae_title", "series_instance_uid"),
            as_json=json,
            empty="No series is kept that matches." if conditions else "No series is kept.",
            limit=limit,
        )


def show_series(
    series: SeriesArgument,
    config: ConfigOption = None,
    data: DataOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Show a series."""
    with connect(config, server, data) as client, client.errors():
        named = part_of(series)
        request = messages.GetSeriesRequest(
            series_instance_uid=named.series_instance_uid,
            study_instance_uid=named.study_instance_uid,
        )
        found = client.composition.GetSeries(request, timeout=CALL_SECONDS)
    print_values(plain(found), as_json=json)


def list_instances(
    series: SeriesArgument,
    config: ConfigOption = None,
    data: DataOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
    limit: LimitOption = None,
) -> None:
    """List the instances that are kept of a series, by their numbers."""
    with connect(config, server, data) as client, client.errors():
        named = part_of(series)
        request = messages.ListInstancesRequest(
            series_instance_uid=named.series_instance_uid,
            study_instance_uid=named.study_instance_uid,
        )
        found = client.composition.ListInstances(request, timeout=CALL_SECONDS)
    print_rows(
        map(plain, found.instances),
        ("instance_number", "frames", "size", "received_at", "id", "sop_instance_uid"),
        as_json=json,
        empty="",
        limit=limit,
    )


def preview_series(
    series: Annotated[
        str, typer.Argument(metavar="UID[:RANGE]", help="A Series Instance UID, and what of it.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The PNG file to write.")
    ],
    instance: Annotated[
        str, typer.Option("--instance", metavar="ID", help="This one alone, by its id.")
    ] = "",
    frame: Annotated[
        int, typer.Option("--frame", metavar="N", help="Its nth frame, from 1; else the middle.")
    ] = 0,
    order: Annotated[
        Order, typer.Option("--order", metavar="number|position", help="What a range counts.")
    ] = Order.NUMBER,
    longest: Annotated[
        int, typer.Option("--longest", metavar="PIXELS", help="The longer side, at most.")
    ] = LONGEST,
    config: ConfigOption = None,
    data: DataOption = None,
    server: ServerOption = None,
) -> None:
    """Draw a series, or one of its instances, as a PNG file."""
    with connect(config, server, data) as client, client.errors():
        if instance:
            one = messages.RenderInstanceRequest(instance_id=instance, frame=frame, longest=longest)
            drawn = client.composition.RenderInstance(one, timeout=2 * CALL_SECONDS)
        else:
            part = part_of(series, Whole.ALL, order)
            chosen = messages.RenderSelectionRequest(parts=[part], longest=longest)
            drawn = client.composition.RenderSelection(chosen, timeout=2 * CALL_SECONDS)
    try:
        output.write_bytes(drawn.png)
    except OSError as error:
        raise DicomAdapterError(f"{output}: {error.strerror}: name another file") from error
    typer.echo(f"{output}")


def release(
    studies: Annotated[
        list[str] | None,
        typer.Argument(metavar="UID", help="Study Instance UIDs.", show_default=False),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option("--series", metavar="UID", help="A series alone; may be given again."),
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    server: ServerOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Let studies go; what a group or submission needs stays."""
    wanted = [*(studies or ()), *(series or ())]
    if not wanted:
        raise typer.BadParameter("name a study, or a series with --series.")
    if not yes:
        ask_first(counted(len(wanted), "study or series", "studies or series"), "let go", "gone")
    with connect(config, server, data) as client, client.errors():
        request = messages.ReleaseStudiesRequest(
            study_instance_uids=studies or (), series_instance_uids=series or ()
        )
        answer = client.composition.ReleaseStudies(request, timeout=CALL_SECONDS)
    if json:
        print_values(plain(answer), as_json=True)
        return
    typer.echo(f"{counted(answer.released, 'instance')} let go.")
    if answer.needed:
        typer.echo(f"{counted(answer.needed, 'instance')} stay: an open or parked group has them.")


def _studies(client: Client, attributes: Sequence[messages.Attribute]) -> Iterator[messages.Study]:
    request = messages.SearchRequest(attributes=attributes, page_size=PAGE)
    for page in paged(client.composition.SearchStudies, request):
        yield from page.studies


def _series(client: Client, attributes: Sequence[messages.Attribute]) -> Iterator[messages.Series]:
    request = messages.SearchRequest(attributes=attributes, page_size=PAGE)
    for page in paged(client.composition.SearchSeries, request):
        yield from page.series
