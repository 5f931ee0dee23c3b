"""Puts the commands together, and turns what they raise into a line and an exit code."""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.models import CommandInfo

from dicom_adapter.cli import (
    adapter,
    audit,
    compose,
    demo,
    doctor,
    fsck,
    jobs,
    passcode,
    platform,
    run,
    send,
    status,
    studies,
    tokens,
)
from dicom_adapter.cli.common import FAILED, WRONG_WORDS, show_help
from dicom_adapter.errors import ConfigError, DicomAdapterError, fingerprint
from dicom_adapter.logs import printable

DONE = 0
INTERRUPTED = 130

HELP = "Takes studies from scanners and PACS by C-STORE and makes pipeline jobs of them."


def build() -> typer.Typer:
    """Return the command line."""
    app = typer.Typer(
        help=HELP,
        callback=_main_options,
        invoke_without_command=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    first = (run, status, doctor, jobs, studies, compose, platform, adapter)
    for module in (*first, tokens, audit, fsck, send, demo, passcode):
        module.add_to(app)
    for command in _commands(app):
        command.cls = _Command
    return app


class _Command(TyperCommand):
    """A command whose help names its arguments without Python's types: people type words."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - Typer's own, and private
        """Write what a command takes."""
        records: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                name, text = record
                is_argument = param.param_type_name == "argument"
                shown = name.partition(" <")[0] if is_argument else name
                records[param.param_type_name].append((shown, text))
        for kind, lines in records.items():
            if lines:
                with formatter.section(f"{kind.capitalize()}s"):
                    formatter.write_dl(lines)


def _commands(app: typer.Typer) -> Iterator[CommandInfo]:
    yield from app.registered_commands
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from _commands(group.typer_instance)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    # pydicom's warnings quote values, and so patient data.
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    # A processor named as module:Class may lie in the current folder, as with `python -m`.
    sys.path.append(os.getcwd())  # noqa: PTH109 - sys.path holds texts
    _never_fail_on_a_letter()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `| head` has what it wants. Python would flush once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def _run(arguments: list[str] | None) -> int:
    try:
        return _translated(arguments)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as error:  # noqa: BLE001 - a fault of ours; a traceback may quote patient data
        found = fingerprint(error)
        return _fail(f"internal error, please report it: {found['error']} at {found['at']}")


def _translated(arguments: list[str] | None) -> int:
    try:
        code = build()(arguments, prog_name="dicom-adapter", standalone_mode=False)
    except ConfigError as error:
        # Its lines are the contract: no more and no less.
        typer.echo("\n".join(map(printable, str(error).splitlines())), err=True)
        return WRONG_WORDS
    except typer.Abort:
        return _fail("nothing was changed")
    except typer.TyperException as error:
        return _fail(_about_words(error), error.exit_code)
    except DicomAdapterError as error:
        return _fail(str(error))
    except UnicodeEncodeError:
        # No message of a call can carry it; a path may have it.
        return _fail("a word is not in UTF-8: see the terminal's locale", WRONG_WORDS)
    return code if isinstance(code, int) else DONE


def _fail(message: str, code: int = FAILED) -> int:
    typer.echo(f"dicom-adapter: {printable(message)}", err=True)
    return code


def _about_words(error: typer.TyperException) -> str:
    """Return what is wrong with the words of a command, in one line, and where to read on."""
    text = " ".join(error.format_message().replace("Value error, ", "").split())
    context = getattr(error, "ctx", None)
    if context is None:
        return text
    # "Did you mean 'jobs'?" has its end already.
    whole = text if text.endswith("?") else f"{text.rstrip('.')}."
    return f"{whole} See `{context.command_path} --help`."


def _never_fail_on_a_letter() -> None:
    """Have a letter that the terminal's encoding lacks written out, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _main_options(
    context: typer.Context,
    tell_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.")
    ] = False,
) -> None:
    if tell_version:
        typer.echo(f"dicom-adapter {version('dicom-adapter')}")
        raise typer.Exit
    show_help(context)
