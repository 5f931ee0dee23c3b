"""Why instances that came were not taken, until somebody asks."""

from collections.abc import Iterator

import structlog

from dicom_adapter.errors import RefusedInstanceError, fingerprint
from dicom_adapter.receive.status import comment_of

log = structlog.get_logger()


class Problems:
    """What went wrong with instances, one text for each."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def note(self, error: Exception) -> None:
        """Take in why an instance was not taken; a fault of ours is for the log alone."""
        if not isinstance(error, RefusedInstanceError):
            log.error("instance not fetched", action="fetch.failed", **fingerprint(error))
        self._texts.append(comment_of(error))

    def told(self) -> Iterator[str]:
        """Yield what was not told before."""
        while self._texts:
            yield self._texts.pop()
