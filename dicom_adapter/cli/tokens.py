"""`tokens`: who is let in over TCP, as what, and until when."""

from datetime import timedelta
from typing import Annotated

import typer

from dicom_adapter.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    ServerOption,
    connect,
    group,
)
from dicom_adapter.cli.output import plain, print_rows
from dicom_adapter.config.units import parse_duration
from dicom_adapter.lifecycle import Role
from dicom_adapter.rpc.client import CALL_SECONDS
from dicom_adapter.rpc.tokens import to_role
from dicom_adapter.v1 import tokens_pb2


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    tokens = group("The tokens that callers over TCP are known by.")
    tokens.command("create")(create)
    tokens.command("list")(list_tokens)
    tokens.command("revoke")(revoke)
    app.add_typer(tokens, name="tokens")


def _duration(text: str) -> timedelta:
    try:
        return timedelta(seconds=parse_duration(text))
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from error


def create(
    role: Annotated[
        Role,
        typer.Option("--role", metavar="ROLE", help=f"What it may do: {', '.join(Role)}."),
    ],
    project: Annotated[
        str, typer.Option("--project", metavar="NAME", help="In this project alone.")
    ] = "",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Whom the audit trail is to name.")
    ] = "",
    lasts: Annotated[
        timedelta | None,
        typer.Option("--lasts", metavar="TIME", parser=_duration, help="So long alone, as 90d."),
    ] = None,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Make a token, and print it.

    It is printed this once, and kept nowhere. Commands take it from DICOM_ADAPTER_TOKEN.
    """
    request = tokens_pb2.CreateTokenRequest(name=name, role=to_role(role), project=project)
    if lasts is not None:
        request.lasts.FromTimedelta(lasts)
    with connect(config, server, data) as client, client.errors():
        found = client.tokens.CreateToken(request, timeout=CALL_SECONDS)
    typer.echo(f"{found.token.name}: this token is not shown again", err=True)
    typer.echo(found.secret)


def list_tokens(
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """List tokens, the oldest first, also those that let nobody in any more."""
    with connect(config, server, data) as client, client.errors():
        found = client.tokens.ListTokens(tokens_pb2.ListTokensRequest(), timeout=CALL_SECONDS)
    print_rows(
        map(plain, found.tokens),
        ("name", "role", "project", "created_at", "expires_at", "revoked_at"),
        as_json=as_json,
        empty="There are no tokens.",
    )


def revoke(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Tokens, by their names.")],
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Let the callers of tokens in no more."""
    with connect(config, server, data) as client:
        for name in names:
            with client.errors():
                request = tokens_pb2.RevokeTokenRequest(name=name)
                found = client.tokens.RevokeToken(request, timeout=CALL_SECONDS)
            typer.echo(f"{found.name} is revoked")
