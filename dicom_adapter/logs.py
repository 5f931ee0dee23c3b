"""Sets up what the service says of its work: readable on a terminal, JSON Lines elsewhere."""

import logging
import os
import sys
import threading
import unicodedata
import warnings
from contextlib import suppress
from typing import TextIO

import structlog

from dicom_adapter.config import LogSettings
from dicom_adapter.errors import fingerprint

log = structlog.get_logger()


def configure(settings: LogSettings, stream: TextIO = sys.stderr) -> None:
    """Have every log line written to a stream, in the configured format, from a level on."""
    as_text = settings.format == "text" or (settings.format == "auto" and stream.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(_text_renderers(stream) if as_text else [structlog.processors.JSONRenderer()]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(_Lasting(stream)),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    _take_over()


def printable(text: str) -> str:
    """Return a text with its control characters written out: none of them reaches a terminal."""
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else _written_out(c) for c in text
    )


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _text_renderers(stream: TextIO) -> list[structlog.typing.Processor]:
    colours = stream.isatty() and not os.environ.get("NO_COLOR")
    return [_without_action, _all_printable, structlog.dev.ConsoleRenderer(colors=colours)]


def _without_action(
    _logger: structlog.typing.WrappedLogger, _name: str, values: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    # It is for programs, which read JSON; people have the event's own words.
    values.pop("action", None)
    return values


def _all_printable(
    _logger: structlog.typing.WrappedLogger, _name: str, values: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {
        key: printable(value) if isinstance(value, str) else value for key, value in values.items()
    }


class _Lasting:
    """A stream that never fails: a reader that went away, or a full disk, stops no work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def _take_over() -> None:
    """Have what a thread died of logged, without its words, and no warnings printed.

    Python would print both beside the log; they quote values, and so patient data.
    """

    def thread_died(details: threading.ExceptHookArgs) -> None:
        if details.exc_value is not None and not isinstance(details.exc_value, SystemExit):
            log.error(
                "a thread has died",
                action="thread.died",
                thread=details.thread.name if details.thread else "",
                **fingerprint(details.exc_value),
            )

    def unraisable(details: "sys.UnraisableHookArgs") -> None:
        if details.exc_value is not None:
            log.error("an error was lost", action="error.lost", **fingerprint(details.exc_value))

    threading.excepthook = thread_died
    sys.unraisablehook = unraisable
    warnings.simplefilter("ignore")
