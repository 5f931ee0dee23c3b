"""Whether the platform starts jobs: it is paused and resumed by people."""

from collections.abc import Callable

import structlog

from dicom_adapter.clock import Clock
from dicom_adapter.ledger import Ledger, pauses, turns
from dicom_adapter.lifecycle import Role
from dicom_adapter.model import Caller, PlatformState
from dicom_adapter.platform.control import check_reason

log = structlog.get_logger()


class PlatformControl:
    """Lets the platform stand still, and go on."""

    def __init__(self, ledger: Ledger, clock: Clock, *, resumed: Callable[[], None]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._resumed = resumed

    def state(self, caller: Caller) -> PlatformState:
        """Return whether jobs are started, and how many run and wait."""
        caller.check(Role.VIEWER)
        with self._ledger.read() as tx:
            return PlatformState(
                paused=pauses.current(tx),
                running=turns.running(tx).count,
                waiting=turns.waiting(tx),
            )

    def pause(self, caller: Caller, *, why: str = "") -> PlatformState:
        """Start no more jobs until `resume`, also after a restart; those that run are let run.

        One that stands still already stays as it is.

        Raises:
            InvalidArgumentError: the reason is too long.
            PermissionDeniedError: the caller may not.
        """
        caller.check_everywhere(Role.MANAGER)
        check_reason(why)
        with self._ledger.write() as tx:
            pauses.pause(tx, at=self._clock.now(), actor=caller.name, why=why)
        log.info("no more jobs are started", action="platform.paused", by=caller.name)
        return self.state(caller)

    def resume(self, caller: Caller, *, why: str = "") -> PlatformState:
        """Start jobs again; one that starts them already stays as it is.

        Raises:
            InvalidArgumentError: the reason is too long.
            PermissionDeniedError: the caller may not.
        """
        caller.check_everywhere(Role.MANAGER)
        check_reason(why)
        with self._ledger.write() as tx:
            pauses.resume(tx, at=self._clock.now(), actor=caller.name, why=why)
        log.info("jobs are started again", action="platform.resumed", by=caller.name)
        self._resumed()
        return self.state(caller)
