"""`groups`, `submissions`, `quarantine` and `webhooks`: what is held, and decided by people."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
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
    ask_first,
    connect,
    group,
    paged,
)
from dicom_adapter.cli.output import counted, plain, print_rows, print_values
from dicom_adapter.errors import NotFoundError
from dicom_adapter.ledger.deliveries import SETTLED, UNSETTLED
from dicom_adapter.model import DeliveryState
from dicom_adapter.rpc.client import CALL_SECONDS, Client
from dicom_adapter.v1 import adapter_pb2, webhooks_pb2

Decide = Callable[..., adapter_pb2.ChosenResponse]

PAGE = 500

#: What has become of the things that a command has decided: of one, and of several.
DONE = {
    "complete": ("is due now", "are due now"),
    "retry": ("is tried again", "are tried again"),
    "discard": ("is discarded", "are discarded"),
}


@dataclass(frozen=True)
class Kind:
    """One kind of thing that people look at and decide: how it is listed, how it is told."""

    name: str
    one: str
    none: str
    #: What an id must be of that a person names.
    wanted: str
    columns: Sequence[str]
    listed: Callable[[Client], Sequence[Message]]


GROUPS = Kind(
    "groups",
    "group",
    "No group is open or parked.",
    "open or parked group",
    ("id", "ae_title", "state", "instances", "ready_at", "key", "error"),
    lambda client: (
        client.adapter.ListGroups(adapter_pb2.ListGroupsRequest(), timeout=CALL_SECONDS).groups
    ),
)
SUBMISSIONS = Kind(
    "submissions",
    "submission",
    "The platform has accepted every submission.",
    "pending or parked submission",
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
    "instance in quarantine",
    ("id", "ae_title", "calling_ae_title", "received_at", "reason"),
    lambda client: (
        client.adapter.ListQuarantine(
            adapter_pb2.ListQuarantineRequest(), timeout=CALL_SECONDS
        ).instances
    ),
)
WEBHOOKS = Kind(
    "webhooks",
    "message",
    "No message waits for a webhook.",
    "pending or parked message",
    ("id", "webhook", "type", "job", "state", "attempts", "ready_at", "error"),
    lambda client: list(deliveries(client, UNSETTLED)),
)


def deliveries(
    client: Client, states: Sequence[DeliveryState], webhook: str = ""
) -> Iterator[webhooks_pb2.Delivery]:
    """Yield the deliveries in these states, page by page, the newest first."""
    request = webhooks_pb2.ListDeliveriesRequest(page_size=PAGE, states=states, webhook=webhook)
    for page in paged(client.webhooks.ListDeliveries, request):
        yield from page.deliveries


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    groups = group("What is being received and grouped right now.")
    _add_list(groups, GROUPS, "List the groups that are open or parked, oldest first.")
    _add_decision(
        groups, GROUPS, "complete", "Make groups due now.", lambda c: c.adapter.CompleteGroups
    )
    _add_discard(
        groups, GROUPS, "Drop groups with their instances.", lambda c: c.adapter.DiscardGroups
    )
    app.add_typer(groups, name="groups")
    submissions = group("Jobs that the platform has not accepted yet.")
    _add_list(submissions, SUBMISSIONS, "List what is not accepted yet, and why.")
    _add_decision(
        submissions, SUBMISSIONS, "retry", "Submit again now.", lambda c: c.adapter.RetrySubmissions
    )
    _add_discard(
        submissions,
        SUBMISSIONS,
        "Give submissions up, with the instances that only they need.",
        lambda c: c.adapter.DiscardSubmissions,
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
        lambda c: c.adapter.RetryQuarantine,
    )
    _add_discard(quarantine, QUARANTINE, "Drop instances.", lambda c: c.adapter.DiscardQuarantine)
    app.add_typer(quarantine, name="quarantine")
    webhooks = group("Messages to webhooks, about jobs.")
    webhooks.command("list")(list_deliveries)
    _add_decision(
        webhooks, WEBHOOKS, "retry", "Send again now.", lambda c: c.webhooks.RetryDeliveries
    )
    _add_discard(webhooks, WEBHOOKS, "Give messages up.", lambda c: c.webhooks.DiscardDeliveries)
    app.add_typer(webhooks, name="webhooks")


def list_deliveries(
    state: Annotated[
        list[DeliveryState] | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="Only in this state; may be given again. "
            f"One of {', '.join(DeliveryState)}; without it, pending and parked.",
        ),
    ] = None,
    webhook: Annotated[
        str, typer.Option("--webhook", metavar="NAME", help="Only to this webhook.")
    ] = "",
    limit: LimitOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """List what is still to be sent and why, the newest first. What is settled stays for a week."""
    with connect(config, server, data) as client, client.errors():
        rows = map(plain, islice(deliveries(client, state or UNSETTLED, webhook), limit))
        print_rows(
            rows if as_json else map(_without_idle_time, rows),
            (*WEBHOOKS.columns[:-1], "settled_at", "error"),
            as_json=as_json,
            empty="No message matches." if state or webhook else WEBHOOKS.none,
        )


def show_quarantined(
    instance: Annotated[str, typer.Argument(metavar="ID", help="An instance's id, as listed.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Show an instance in quarantine."""
    with connect(config, server, data) as client:
        (found,) = _named(QUARANTINE, _rows(client, QUARANTINE), [instance])
    print_values(found, as_json=as_json)


def _rows(client: Client, kind: Kind) -> list[dict[str, Any]]:
    with client.errors():
        return list(map(plain, kind.listed(client)))


def _named(kind: Kind, rows: list[dict[str, Any]], ids: Sequence[str]) -> list[dict[str, Any]]:
    known = {row["id"]: row for row in rows}
    for identifier in ids:
        if identifier not in known:
            raise NotFoundError(f"no {kind.wanted} has the id '{identifier}'")
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
        if not as_json:
            rows = list(map(_without_idle_time, rows))
        print_rows(rows, kind.columns, as_json=as_json, empty=kind.none, limit=limit)

    app.command("list", help=text)(command)


def _add_decision(
    app: typer.Typer, kind: Kind, word: str, text: str, method: Callable[[Client], Decide]
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
            chosen = rows if every else _named(kind, rows, ids or [])
            _decide(client, method, chosen)
        typer.echo(_done(kind, word, len(chosen)))

    app.command(word, help=text)(command)


def _add_discard(
    app: typer.Typer, kind: Kind, text: str, method: Callable[[Client], Decide]
) -> None:
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
            chosen = rows if every else _named(kind, rows, ids or [])
            if chosen and not yes:
                _ask(kind, chosen)
            _decide(client, method, chosen)
        typer.echo(_done(kind, "discard", len(chosen)))

    app.command("discard", help=f"{text} Asks first; it is audited.")(command)


def _without_idle_time(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for people: what is parked becomes ready at no time, but by a person."""
    idle = row.get("state") in {DeliveryState.PARKED, *SETTLED}
    return {**row, "ready_at": None} if idle else row


def _done(kind: Kind, word: str, number: int) -> str:
    one, many = DONE[word]
    return f"{counted(number, kind.one)} {one if number == 1 else many}"


def _check_words(kind: Kind, ids: list[str] | None, *, every: bool) -> None:
    if every == bool(ids):
        raise typer.BadParameter(f"name {kind.one}s by their ids, or all of them by --all.")


def _ask(kind: Kind, chosen: list[dict[str, Any]]) -> None:
    what = counted(len(chosen), kind.one)
    if "instances" in chosen[0]:
        what += f" of {counted(sum(row['instances'] for row in chosen), 'instance')}"
    ask_first(what, "discard", "discarded")


def _decide(
    client: Client, method: Callable[[Client], Decide], chosen: list[dict[str, Any]]
) -> None:
    if chosen:
        with client.errors():
            method(client)(
                adapter_pb2.ChosenRequest(ids=[row["id"] for row in chosen]), timeout=CALL_SECONDS
            )
