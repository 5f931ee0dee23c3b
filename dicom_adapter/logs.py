"""Sets up what the service says of its work: readable on a terminal, JSON Lines elsewhere."""

import logging
import sys
from typing import TextIO

import structlog

from dicom_adapter.config import LogSettings


def configure(settings: LogSettings, stream: TextIO = sys.stderr) -> None:
    """Have every log line written to a stream, in the configured format, from a level on."""
    as_text = settings.format == "text" or (settings.format == "auto" and stream.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty())
        if as_text
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
