"""What people do to groups and to the quarantine; gRPC, and so the command line, call these."""

from collections.abc import Callable, Sequence

from dicom_adapter.clock import Clock
from dicom_adapter.errors import NotFoundError
from dicom_adapter.ledger import Ledger, groups, instances
from dicom_adapter.ledger.instances import Locate
from dicom_adapter.lifecycle import Role
from dicom_adapter.model import Caller, GroupSummary, QuarantinedInstance


class GroupOperations:
    """Shows and decides what is being grouped."""

    def __init__(self, ledger: Ledger, clock: Clock, changed: Callable[[], None]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._changed = changed

    def listed(self, caller: Caller) -> list[GroupSummary]:
        """Return the groups that are open or parked, oldest first."""
        caller.check_everywhere(Role.VIEWER)
        with self._ledger.read() as tx:
            return groups.summaries(tx)

    def complete(self, caller: Caller, ids: Sequence[str]) -> list[str]:
        """Make groups due now and return their ids.

        Raises:
            PermissionDeniedError: the caller may not.
            NotFoundError: one of them is not open or parked; nothing was changed.
        """
        caller.check_everywhere(Role.OPERATOR)
        chosen = list(dict.fromkeys(ids))
        with self._ledger.write() as tx:
            for group_id in chosen:
                if groups.complete(tx, group_id, self._clock.now(), caller.name) is None:
                    raise _no_group(group_id)
        self._changed()
        return chosen

    def discard(self, caller: Caller, ids: Sequence[str]) -> list[str]:
        """Drop groups with their instances and return their ids; raises as `complete` does."""
        caller.check_everywhere(Role.OPERATOR)
        chosen = list(dict.fromkeys(ids))
        with self._ledger.write() as tx:
            for group_id in chosen:
                if not groups.discard(tx, group_id, self._clock.now(), caller.name):
                    raise _no_group(group_id)
        self._changed()
        return chosen


class QuarantineOperations:
    """Shows and decides what no group could take."""

    def __init__(
        self, ledger: Ledger, clock: Clock, locate: Locate, changed: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._locate = locate
        self._changed = changed

    def listed(self, caller: Caller) -> list[QuarantinedInstance]:
        """Return what is set aside, oldest first."""
        caller.check_everywhere(Role.VIEWER)
        with self._ledger.read() as tx:
            return instances.quarantined(tx, self._locate)

    def retry(self, caller: Caller, ids: Sequence[str]) -> list[str]:
        """Hand instances to their processors again and return their ids.

        Raises:
            PermissionDeniedError: the caller may not.
            NotFoundError: one of them is not in quarantine; nothing was changed.
        """
        caller.check_everywhere(Role.OPERATOR)
        chosen = list(dict.fromkeys(ids))
        with self._ledger.write() as tx:
            for instance_id in chosen:
                if not instances.retry_quarantined(tx, instance_id, self._clock.now(), caller.name):
                    raise _no_instance(instance_id)
        self._changed()
        return chosen

    def discard(self, caller: Caller, ids: Sequence[str]) -> list[str]:
        """Let the reclaimer have instances and return their ids; raises as `retry` does."""
        caller.check_everywhere(Role.OPERATOR)
        chosen = list(dict.fromkeys(ids))
        with self._ledger.write() as tx:
            for instance_id in chosen:
                if not instances.discard_quarantined(
                    tx, instance_id, self._clock.now(), caller.name
                ):
                    raise _no_instance(instance_id)
        self._changed()
        return chosen


def _no_group(group_id: str) -> NotFoundError:
    return NotFoundError(f"no open or parked group has the id '{group_id}'")


def _no_instance(instance_id: str) -> NotFoundError:
    return NotFoundError(f"no instance in quarantine has the id '{instance_id}'")
