"""The process-wide switches of pydicom and pynetdicom, all in this one place."""

import logging
from collections.abc import Iterable

from pydicom import config as pydicom_config
from pynetdicom import _config, dul
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import register_uid, uid_to_service_class

from dicom_adapter.receive.conversation import log_here
from dicom_adapter.receive.pdu import AssociateRequest

_ASSOCIATE_RQ = b"\x01"


def prepare(storage_classes: Iterable[str]) -> None:
    """Set both libraries up for a service that stores these SOP classes beyond the known ones."""
    # The default handlers format every PDU and message for a log that nobody reads.
    _config.LOG_HANDLER_LEVEL = "none"
    # pynetdicom would abort the association for a bad UID; we refuse the one instance instead.
    _config.VALIDATORS["UI"] = lambda _: (True, "")
    _, event = dul._PDU_TYPES[_ASSOCIATE_RQ]  # noqa: SLF001 - there is no public way to it
    dul._PDU_TYPES[_ASSOCIATE_RQ] = (AssociateRequest, event)  # noqa: SLF001
    # Values are stored as they came, never judged; a warning would print them.
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
    for name in ("pynetdicom", "pydicom"):
        _quieten(logging.getLogger(name))
    for uid in storage_classes:
        # Without a service class pynetdicom would negotiate it, and abort at the first instance.
        if uid_to_service_class(uid) is ServiceClass:
            register_uid(uid, f"PrivateStorage_{uid.replace('.', '_')}", StorageServiceClass)


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
        log_here().debug(
            f"{record.name.partition('.')[0]} complains",
            action="library.complains",
            at=f"{record.module}:{record.lineno}",
            error=record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None,
        )
