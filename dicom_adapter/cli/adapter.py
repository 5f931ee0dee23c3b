"""`groups`, `submissions` and `quarantine`: what is held, and decided by people."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from google.protobuf.message import Message

from dicom_adapter.cli.common import (
    AllOption,
    ConfigOption,
    DataOption,
    JsonOption,
    LimitOption,
    ServerOption,
    YesOption,
    connect,
    group,
)
from dicom_adapter.cli.output import counted, plain, print_rows, print_values
from dicom_adapter.errors import DicomAdapterError, NotFoundError
from dicom_adapter.rpc.client import CALL_SECONDS, Client
from dicom_adapter.v1 import adapter_pb2

Decide = Callable[..., adapter_pb2.ChosenResponse]


@dataclass(frozen=True)
class Kind:
    """One kind of thing that people look at and decide: how it is listed, how it is told."""

    name: str
    one: str
    none: str
    columns: Sequence[str]
    listed: Callable[[Client], Sequence[Message]]


GROUPS = Kind(
    "groups",
    "group",
    "No group is open or parked.",
    ("id", "ae_title", "state", "instances", "ready_at", "key", "error"),
    lambda client: (
        client.adapter.ListGroups(adapter_pb2.ListGroupsRequest(), timeout=CALL_SECONDS).groups
    ),
)
SUBMISSIONS = Kind(
    "submissions",
    "submission",
    "The platform has accepted every submission.",
    ("id", "name", "state", "attempts", "ready_at", "error"),
    lambda client: (
        client.adapter.ListSubmissions(
            adapter_pb2.ListSubmissionsRequest(), timeout=CALL_SECONDS
        ).submissions
    ),
)
QUARANTINE = Kind(
    "quarantine",
    "instance",
    "No instance is in quarantine.",
    ("id", "ae_title", "calling_ae_title", "received_at", "reason"),
    lambda client: (
        client.adapter.ListQuarantine(
            adapter_pb2.ListQuarantineRequest(), timeout=CALL_SECONDS
        ).instances
    ),
)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    groups = group("What is being received and grouped right now.")
    _add_list(groups, GROUPS, "List the groups that are open or parked, oldest first.")
    _add_decision(groups, GROUPS, "complete", "Make groups due now.", lambda c: c.CompleteGroups)
    _add_discard(groups, GROUPS, "Drop groups with their instances.", lambda c: c.DiscardGroups)
    app.add_typer(groups, name="groups")
    submissions = group("Jobs that the platform has not accepted yet.")
    _add_list(submissions, SUBMISSIONS, "List what is not accepted yet, and why.")
    _add_decision(
        submissions, SUBMISSIONS, "retry", "Submit again now.", lambda c: c.RetrySubmissions
    )
    _add_discard(
        submissions,
        SUBMISSIONS,
        "Give submissions up, with the instances that only they need.",
        lambda c: c.DiscardSubmissions,
    )
    app.add_typer(submissions, name="submissions")
    quarantine = group("Instances that no group could take.")
    _add_list(quarantine, QUARANTINE, "List what was set aside, and why.")
    quarantine.command("show")(show_quarantined)
    _add_decision(
        quarantine,
        QUARANTINE,
        "retry",
        "Hand instances to their job processors again.",
        lambda c: c.RetryQuarantine,
    )
    _add_discard(quarantine, QUARANTINE, "Drop instances.", lambda c: c.DiscardQuarantine)
    app.add_typer(quarantine, name="quarantine")


def show_quarantined(
    instance: Annotated[str, typer.Argument(metavar="ID", help="An instance's id, as listed.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Show an instance in quarantine."""
    with connect(config, server, data) as client:
        print_values(_named(_rows(client, QUARANTINE), [instance])[0], as_json=as_json)


def _rows(client: Client, kind: Kind) -> list[dict[str, Any]]:
    with client.errors():
        return list(map(plain, kind.listed(client)))


def _named(rows: list[dict[str, Any]], ids: Sequence[str]) -> list[dict[str, Any]]:
    known = {row["id"]: row for row in rows}
    for identifier in ids:
        if identifier not in known:
            raise NotFoundError(f"nothing that the list shows has the id '{identifier}'")
    return [known[identifier] for identifier in dict.fromkeys(ids)]


def _ids_argument(kind: Kind) -> Any:  # noqa: ANN401 - Typer reads it
    return typer.Argument(metavar="ID", help=f"Ids of {kind.one}s, as listed; or --all.")


def _add_list(app: typer.Typer, kind: Kind, text: str) -> None:
    def command(
        limit: LimitOption = None,
        as_json: JsonOption = False,
        config: ConfigOption = None,
        server: ServerOption = None,
        data: DataOption = None,
    ) -> None:
        with connect(config, server, data) as client:
            rows = _rows(client, kind)
        print_rows(rows, kind.columns, as_json=as_json, empty=kind.none, limit=limit)

    app.command("list", help=text)(command)


def _add_decision(
    app: typer.Typer, kind: Kind, word: str, text: str, method: Callable[[Any], Decide]
) -> None:
    def command(
        ids: Annotated[list[str] | None, _ids_argument(kind)] = None,
        every: AllOption = False,
        config: ConfigOption = None,
        server: ServerOption = None,
        data: DataOption = None,
    ) -> None:
        _check_words(kind, ids, every=every)
        with connect(config, server, data) as client:
            rows = _rows(client, kind)
            _decide(client, method, rows if every else _named(rows, ids or []))
        typer.echo(f"{counted(len(rows if every else set(ids or [])), kind.one)}: {word}")

    app.command(word, help=text)(command)


def _add_discard(app: typer.Typer, kind: Kind, text: str, method: Callable[[Any], Decide]) -> None:
    def command(
        ids: Annotated[list[str] | None, _ids_argument(kind)] = None,
        every: AllOption = False,
        yes: YesOption = False,
        config: ConfigOption = None,
        server: ServerOption = None,
        data: DataOption = None,
    ) -> None:
        _check_words(kind, ids, every=every)
        with connect(config, server, data) as client:
            rows = _rows(client, kind)
            chosen = rows if every else _named(rows, ids or [])
            if chosen and not yes:
                _ask(kind, chosen)
            _decide(client, method, chosen)
        typer.echo(f"{counted(len(chosen), kind.one)}: discard")

    app.command("discard", help=f"{text} Asks first; it is audited.")(command)


def _check_words(kind: Kind, ids: list[str] | None, *, every: bool) -> None:
    if every == bool(ids):
        raise typer.BadParameter(f"name {kind.one}s by their ids, or all of them by --all.")


def _ask(kind: Kind, chosen: list[dict[str, Any]]) -> None:
    what = counted(len(chosen), kind.one)
    if kind is not QUARANTINE:
        what += f" of {counted(sum(row['instances'] for row in chosen), 'instance')}"
    # What is piped in was not meant as an answer.
    if not sys.stdin.isatty():
        raise DicomAdapterError(
            f"{what} would be discarded for good, and nobody is there to ask: nothing was "
            "changed; --yes says that it is meant"
        )
    typer.confirm(f"Discard {what} for good?", abort=True)


def _decide(client: Client, method: Callable[[Any], Decide], chosen: list[dict[str, Any]]) -> None:
    if chosen:
        with client.errors():
            method(client.adapter)(
                adapter_pb2.ChosenRequest(ids=[row["id"] for row in chosen]), timeout=CALL_SECONDS
            )
