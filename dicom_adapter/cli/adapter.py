"""`status`, `groups`, `submissions` and `quarantine`: what the adapter does, and what it asks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from google.protobuf.message import Message

from dicom_adapter.cli.common import (
    AllOption,
    ConfigOption,
    DataOption,
    IdsArgument,
    JsonOption,
    ServerOption,
    YesOption,
    connect,
)
from dicom_adapter.cli.output import plain, print_rows, print_values
from dicom_adapter.errors import InvalidArgumentError, NotFoundError
from dicom_adapter.rpc.client import CALL_SECONDS, Client
from dicom_adapter.v1 import adapter_pb2

Decide = Callable[..., adapter_pb2.ChosenResponse]


@dataclass(frozen=True)
class Kind:
    """One kind of thing that people look at and decide: how it is listed, how it is told."""

    name: str
    one: str
    columns: Sequence[str]
    listed: Callable[[Client], Sequence[Message]]


GROUPS = Kind(
    "groups",
    "group",
    ("id", "ae_title", "state", "instances", "size", "last_instance_at", "ready_at", "key"),
    lambda client: (
        client.adapter.ListGroups(adapter_pb2.ListGroupsRequest(), timeout=CALL_SECONDS).groups
    ),
)
SUBMISSIONS = Kind(
    "submissions",
    "submission",
    ("id", "name", "pipeline", "state", "instances", "attempts", "ready_at", "error"),
    lambda client: (
        client.adapter.ListSubmissions(
            adapter_pb2.ListSubmissionsRequest(), timeout=CALL_SECONDS
        ).submissions
    ),
)
QUARANTINE = Kind(
    "quarantine",
    "instance",
    ("id", "ae_title", "calling_ae_title", "received_at", "size", "reason"),
    lambda client: (
        client.adapter.ListQuarantine(
            adapter_pb2.ListQuarantineRequest(), timeout=CALL_SECONDS
        ).instances
    ),
)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(status)
    groups = typer.Typer(help="What is being received and grouped.", no_args_is_help=True)
    _add_list(groups, GROUPS, "List the groups that are open or parked.")
    _add_decision(
        groups, GROUPS, "complete", "Make groups due now.", lambda c: c.adapter.CompleteGroups
    )
    _add_discard(
        groups, GROUPS, "Drop groups with their instances.", lambda c: c.adapter.DiscardGroups
    )
    app.add_typer(groups, name="groups")
    submissions = typer.Typer(
        help="Jobs that the platform has not accepted yet.", no_args_is_help=True
    )
    _add_list(submissions, SUBMISSIONS, "List what is not accepted yet, and why.")
    _add_decision(
        submissions,
        SUBMISSIONS,
        "retry",
        "Try submissions again now.",
        lambda c: c.adapter.RetrySubmissions,
    )
    _add_discard(
        submissions,
        SUBMISSIONS,
        "Give submissions up, with the instances that only they need.",
        lambda c: c.adapter.DiscardSubmissions,
    )
    app.add_typer(submissions, name="submissions")
    quarantine = typer.Typer(help="Instances that no group could take.", no_args_is_help=True)
    _add_list(quarantine, QUARANTINE, "List what was set aside, and why.")
    quarantine.command("show")(show_quarantined)
    _add_decision(
        quarantine,
        QUARANTINE,
        "retry",
        "Hand instances to their job processors again.",
        lambda c: c.adapter.RetryQuarantine,
    )
    _add_discard(quarantine, QUARANTINE, "Drop instances.", lambda c: c.adapter.DiscardQuarantine)
    app.add_typer(quarantine, name="quarantine")


def status(
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Show what runs, what is kept and why, and what needs a person."""
    with connect(config, server, data) as client, client.errors():
        found = client.adapter.GetStatus(adapter_pb2.GetStatusRequest(), timeout=CALL_SECONDS)
    print_values(plain(found), as_json=as_json)


def show_quarantined(
    instance: Annotated[str, typer.Argument(metavar="ID")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Show an instance in quarantine."""
    with connect(config, server, data) as client:
        rows = _rows(client, QUARANTINE)
    for row in rows:
        if row["id"] == instance:
            print_values(row, as_json=as_json)
            return
    raise NotFoundError(f"no instance in quarantine has the id '{instance}'")


def _rows(client: Client, kind: Kind) -> list[dict[str, Any]]:
    with client.errors():
        return list(map(plain, kind.listed(client)))


def _add_list(app: typer.Typer, kind: Kind, text: str) -> None:
    def command(
        as_json: JsonOption = False,
        config: ConfigOption = None,
        server: ServerOption = None,
        data: DataOption = None,
    ) -> None:
        with connect(config, server, data) as client:
            rows = _rows(client, kind)
        print_rows(rows, kind.columns, as_json=as_json, empty=f"There are no {kind.one}s here.")

    app.command("list", help=text)(command)


def _add_decision(
    app: typer.Typer, kind: Kind, word: str, text: str, method: Callable[[Client], Decide]
) -> None:
    def command(
        ids: IdsArgument = None,
        every: AllOption = False,
        config: ConfigOption = None,
        server: ServerOption = None,
        data: DataOption = None,
    ) -> None:
        with connect(config, server, data) as client:
            _decide(client, method(client), _chosen(client, kind, ids or [], every=every), kind)

    app.command(word, help=text)(command)


def _add_discard(
    app: typer.Typer, kind: Kind, text: str, method: Callable[[Client], Decide]
) -> None:
    def command(
        ids: IdsArgument = None,
        every: AllOption = False,
        yes: YesOption = False,
        config: ConfigOption = None,
        server: ServerOption = None,
        data: DataOption = None,
    ) -> None:
        with connect(config, server, data) as client:
            chosen = _chosen(client, kind, ids or [], every=every)
            if chosen and not yes:
                typer.confirm(f"Discard {len(chosen)} {kind.one}(s) for good?", abort=True)
            _decide(client, method(client), chosen, kind)

    app.command("discard", help=f"{text} Asks first; it is audited.")(command)


def _chosen(client: Client, kind: Kind, ids: list[str], *, every: bool) -> list[str]:
    if every == bool(ids):
        raise InvalidArgumentError("ID", f"name {kind.one}s by their ids, or all of them by --all")
    return ids or [row["id"] for row in _rows(client, kind)]


def _decide(client: Client, decide: Decide, ids: list[str], kind: Kind) -> None:
    if ids:
        with client.errors():
            decide(adapter_pb2.ChosenRequest(ids=ids), timeout=CALL_SECONDS)
    typer.echo(f"{len(ids)} {kind.one}{'' if len(ids) == 1 else 's'}")
