"""Puts the commands together, and turns what they raise into a line and an exit code."""

import os
import sys
import warnings

import click
import typer

from dicom_adapter.cli import adapter, demo, doctor, jobs, run, send
from dicom_adapter.errors import ConfigError, DicomAdapterError

DONE = 0
FAILED = 1
WRONG_WORDS = 2
INTERRUPTED = 130

HELP = "Takes studies from scanners and PACS by C-STORE and makes pipeline jobs of them."


def build() -> typer.Typer:
    """Return the command line."""
    app = typer.Typer(
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for module in (run, jobs, adapter, send, doctor, demo):
        module.add_to(app)
    return app


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    # pydicom's warnings quote values, and so patient data.
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    # A processor named as module:Class may lie in the current folder, as with `python -m`.
    sys.path.append(os.getcwd())  # noqa: PTH109 - sys.path holds texts
    try:
        code = build()(arguments, standalone_mode=False)
    except ConfigError as error:
        # Its lines are the contract: no more and no less.
        typer.echo(error, err=True)
        return WRONG_WORDS
    except KeyboardInterrupt:
        return INTERRUPTED
    except (DicomAdapterError, click.exceptions.Abort, click.ClickException) as error:
        typer.echo(f"dicom-adapter: {_message(error)}", err=True)
        return error.exit_code if isinstance(error, click.ClickException) else FAILED
    return code if isinstance(code, int) else DONE


def _message(error: Exception) -> str:
    if isinstance(error, click.exceptions.Abort):
        return "nothing was changed"
    return error.format_message() if isinstance(error, click.ClickException) else str(error)
