"""`platform`: have it start no more jobs, wait until none runs, and have it go on."""

import time
from typing import Annotated

import typer

from dicom_adapter.cli.common import (
    FAILED,
    ConfigOption,
    DataOption,
    JsonOption,
    ReasonOption,
    ServerOption,
    connect_platform,
    group,
)
from dicom_adapter.cli.output import counted, plain, print_values
from dicom_adapter.rpc.client import CALL_SECONDS, Client
from dicom_adapter.v1 import platform_pb2

# So often it is asked whether the last job has ended.
LOOK_SECONDS = 0.5


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    platform = group("The platform as a whole: whether it starts jobs.")
    platform.command("show")(show)
    platform.command("pause")(pause)
    platform.command("drain")(drain)
    platform.command("resume")(resume)
    app.add_typer(platform, name="platform")


def show(
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Show whether jobs are started, and how many run and wait."""
    with connect_platform(config, server, data) as client, client.errors():
        found = client.platform.GetPlatform(platform_pb2.GetPlatformRequest(), timeout=CALL_SECONDS)
    print_values(plain(found), as_json=as_json)


def pause(
    reason: ReasonOption = "",
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Start no more jobs, also after a restart.

    Those that run are let run. New ones are taken into the queue.
    """
    with connect_platform(config, server, data) as client, client.errors():
        found = _paused(client, reason)
    typer.echo(f"no more jobs are started; {_told(found)}")


def drain(
    reason: ReasonOption = "",
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", min=0, help="Wait so long at most."),
    ] = None,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Pause, and wait until no job runs. With exit code 1 when some still do at the timeout."""
    with connect_platform(config, server, data) as client, client.errors():
        found = _paused(client, reason)
        began, running = time.monotonic(), -1
        while found.running:
            if found.running != running:
                typer.echo(_told(found), err=True)
            running = found.running
            if timeout is not None and time.monotonic() - began > timeout:
                raise typer.Exit(FAILED)
            time.sleep(LOOK_SECONDS)
            found = client.platform.GetPlatform(
                platform_pb2.GetPlatformRequest(), timeout=CALL_SECONDS
            )
    typer.echo(f"no more jobs are started; {_told(found)}")


def resume(
    reason: ReasonOption = "",
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Start jobs again."""
    with connect_platform(config, server, data) as client, client.errors():
        request = platform_pb2.ResumePlatformRequest(reason=reason)
        found = client.platform.ResumePlatform(request, timeout=CALL_SECONDS)
    typer.echo(f"jobs are started; {_told(found)}")


def _paused(client: Client, reason: str) -> platform_pb2.Platform:
    request = platform_pb2.PausePlatformRequest(reason=reason)
    return client.platform.PausePlatform(request, timeout=CALL_SECONDS)


def _told(found: platform_pb2.Platform) -> str:
    waiting = counted(found.waiting, "job")
    verb = "waits" if found.waiting == 1 else "wait"
    runs = f"{counted(found.running, 'job')} {'runs' if found.running == 1 else 'run'}"
    return f"{runs}, {waiting} {verb}"
