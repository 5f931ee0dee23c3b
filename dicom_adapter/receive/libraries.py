"""The process-wide switches of pydicom and pynetdicom, all in this one place."""

import logging

import structlog
from pydicom import config as pydicom_config
from pynetdicom import _config

log = structlog.get_logger()


def prepare() -> None:
    """Set both libraries up for a service."""
    # The default handlers format every PDU and message for a log that nobody reads.
    _config.LOG_HANDLER_LEVEL = "none"
    # What a peer proposes is judged by us, whether it is a UID or not.
    _config.VALIDATORS["UI"] = lambda _: (True, "")
    # Values are stored as they came, never judged; a warning would print them.
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
    for name in ("pynetdicom", "pydicom"):
        _quieten(logging.getLogger(name))


def _quieten(logger: logging.Logger) -> None:
    if not any(isinstance(handler, _WithoutContent) for handler in logger.handlers):
        logger.addHandler(_WithoutContent(logging.WARNING))
    logger.propagate = False


class _WithoutContent(logging.Handler):
    """Says that a library complained, and where in its code, but not what it printed.

    Its messages quote PDUs and exceptions, and so patient data.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on without its message."""
        log.debug(
            "a library complains",
            library=record.name.partition(".")[0],
            action="library.complains",
            at=f"{record.module}:{record.lineno}",
            error=record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None,
        )
