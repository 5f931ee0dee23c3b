"""`hash-passcode`: makes what stands under `dicom.users`, so that no passcode stands anywhere."""

import sys

import typer

from dicom_adapter.cli.common import IdleConfigOption, IdleServerOption
from dicom_adapter.config.passcodes import hashed
from dicom_adapter.errors import InvalidArgumentError


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(hash_passcode)


def hash_passcode(config: IdleConfigOption = None, server: IdleServerOption = None) -> None:
    """Print a passcode's hash for dicom.users. It is asked for, or the first line of input."""
    del config, server
    if sys.stdin.isatty():
        passcode = typer.prompt("Passcode", hide_input=True, confirmation_prompt=True, err=True)
    else:
        passcode = sys.stdin.readline().rstrip("\r\n")
    if not passcode:
        raise InvalidArgumentError("passcode", "must not be empty")
    typer.echo(str(hashed(passcode.encode())))
