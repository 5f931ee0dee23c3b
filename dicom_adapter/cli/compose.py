"""`compose`: makes a job of what is kept."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from dicom_adapter.cli.common import (
    FAILED,
    ConfigOption,
    DataOption,
    JsonOption,
    ServerOption,
    connect,
)
from dicom_adapter.cli.conditions import part_of
from dicom_adapter.cli.output import counted, plain, plain_job, print_rows, print_values
from dicom_adapter.model import Priority
from dicom_adapter.ranges import Order, spans
from dicom_adapter.rpc import convert
from dicom_adapter.rpc.client import CALL_SECONDS
from dicom_adapter.v1 import composition_pb2 as messages


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compose")(compose)


def compose(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="What the job runs.")],
    series: Annotated[
        list[str] | None,
        typer.Option(
            "--series",
            metavar="UID[:RANGE]",
            help="A series, and what of it: auto (the first consecutive images, as without any), "
            "auto=longest, all, or START:END:DELTA; may be given again.",
        ),
    ] = None,
    study: Annotated[
        list[str] | None,
        typer.Option(
            "--study",
            metavar="UID[:RANGE]",
            help="Every series of a study, all of each without a range; behind those that are "
            "named alone.",
        ),
    ] = None,
    order: Annotated[
        Order,
        typer.Option(
            "--order",
            metavar="number|position",
            help="What a range counts: Instance Numbers, or places from 1 along the stack.",
        ),
    ] = Order.NUMBER,
    each: Annotated[
        bool, typer.Option("--each", help="Run each series, and each study, on its own.")
    ] = False,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What it is called.")] = "",
    priority: Annotated[
        str,
        typer.Option("--priority", metavar="PRIORITY", help="lower, normal, higher or immediate."),
    ] = Priority.NORMAL.label,
    argument: Annotated[
        list[str] | None,
        typer.Option("--argument", metavar="NAME=VALUE", help="One for the pipeline."),
    ] = None,
    project: Annotated[
        str, typer.Option("--project", metavar="NAME", help="The project that it is in.")
    ] = "",
    force: Annotated[
        bool,
        typer.Option("--force", help="Make it also where a job has the same pipeline and images."),
    ] = False,
    release: Annotated[
        bool, typer.Option("--release", help="Let the images go, once the platform has the job.")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Cancel the items behind one that fails.")
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Show what it would get, and make nothing.")
    ] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Make a job of series and studies that are kept."""
    items = _items(_parts(series or (), study or (), order), each=each)
    with connect(config, server, data) as client, client.errors():
        if preview:
            asked = messages.PreviewSelectionRequest(items=items, pipeline=pipeline)
            found = client.composition.PreviewSelection(asked, timeout=CALL_SECONDS)
            _show(found, as_json=json)
            if found.problems:
                raise typer.Exit(FAILED)
            return
        request = messages.ComposeJobRequest(
            pipeline=pipeline,
            items=items,
            name=name,
            priority=convert.to_priority(_priority(priority)),
            arguments=_arguments(argument or ()),
            project=project,
            force=force,
            release=release,
            fail_fast=fail_fast,
        )
        job = client.composition.ComposeJob(request, timeout=2 * CALL_SECONDS)
    if json:
        print_values(plain_job(job), as_json=True)
    else:
        gone = " They are let go, but for those that a group or submission needs." * release
        typer.echo(f"{job.name}: {counted(job.instances, 'instance')}, in the queue.{gone}")


def _parts(series: Sequence[str], studies: Sequence[str], order: Order) -> Iterator[messages.Part]:
    if not series and not studies:
        raise typer.BadParameter("name a series, or a study with --study.")
    for text in series:
        yield part_of(text, order=order)
    for text in studies:
        uid, _, wanted = text.partition(":")
        yield messages.Part(study_instance_uid=uid, range=wanted, order=order)


def _items(parts: Iterator[messages.Part], *, each: bool) -> list[messages.Item]:
    if each:
        return [messages.Item(parts=[part]) for part in parts]
    return [messages.Item(parts=parts)]


def _priority(label: str) -> Priority:
    try:
        return Priority.parse(label)
    except ValueError as error:
        raise typer.BadParameter(f"--priority {error}.") from error


def _arguments(pairs: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"--argument must be NAME=VALUE, not '{pair}'.")
        if found.setdefault(key, value) != value:
            raise typer.BadParameter(f"--argument {key} is given twice, with two values.")
    return found


def _show(preview: messages.Preview, *, as_json: bool) -> None:
    if as_json:
        print_values(plain(preview), as_json=True)
        return
    rows = [
        _row(number, one) for number, item in enumerate(preview.items, 1) for one in item.series
    ]
    print_rows(rows, tuple(rows[0]), as_json=False, empty="")
    for item in preview.items:
        for one in item.series:
            for note in one.notes:
                typer.echo(f"series {one.series.series_instance_uid}: {note}")
    for problem in preview.problems:
        typer.echo(f"cannot: {problem}")


def _row(number: int, one: messages.SelectedSeries) -> dict[str, Any]:
    numbers = [each.instance_number for each in one.instances if each.HasField("instance_number")]
    shown = f"{numbers[0]} ... {numbers[-1]}" if len(numbers) > 1 else spans(numbers)
    return {
        "item": number,
        "Modality": one.series.attributes.get("Modality"),
        "range": one.range,
        "order": one.order,
        "instances": len(one.instances),
        "numbers": shown or None,
        "missing": spans(one.missing) or None,
        "doubled": spans(one.doubled) or None,
        "series_instance_uid": one.series.series_instance_uid,
    }
