"""Who is inside: associations are counted here, and let in by policy and by these counts."""

import threading
from collections import Counter
from typing import Protocol

from dicom_adapter.receive.policy import Caller, Policy, Refusal, Rules, Title
from dicom_adapter.receive.rejections import Rejections


class Gate(Protocol):
    """Where associations are let in and counted, also where several processes receive."""

    def admit(self, caller: Caller) -> Title | Refusal:
        """Return the AE title that a caller reaches, and count it as inside; or the refusal."""

    def leave(self, caller: Caller) -> None:
        """Count a caller that was admitted as outside again."""

    def remember(self, caller: Caller, why: str) -> None:
        """Keep why a caller does not get through, with what it sends, for people who ask."""


class Admissions:
    """The gate itself."""

    def __init__(self, rules: Rules, rejections: Rejections) -> None:
        self._rejections = rejections
        self._lock = threading.Lock()
        self._inside = 0
        self._of_title: Counter[str] = Counter()
        self._of_address: Counter[str] = Counter()
        self._closed = False
        self.reload(rules)

    def reload(self, rules: Rules) -> None:
        """Let in by these rules from now on; who is inside stays."""
        with self._lock:
            self._policy = Policy(rules)
            self._dicom = rules.dicom

    @property
    def inside(self) -> int:
        """How many associations there are."""
        return self._inside

    def close(self) -> None:
        """Let nobody in any more."""
        with self._lock:
            self._closed = True

    def admit(self, caller: Caller) -> Title | Refusal:
        """Return the AE title that a caller reaches, and count it as inside; or the refusal."""
        with self._lock:
            decision = self._policy.admit(caller)
            if not isinstance(decision, Refusal):
                decision = self._refuse_for_room(caller) or decision
            if isinstance(decision, Refusal):
                self.remember(caller, decision.why)
            else:
                self._inside += 1
                self._of_title[caller.calling] += 1
                self._of_address[caller.address] += 1
            return decision

    def _refuse_for_room(self, caller: Caller) -> Refusal | None:
        if self._closed:
            return Refusal(2, 3, 1, "the service stops")
        for key, inside, limit in (
            ("max_associations", self._inside, self._dicom.max_associations),
            ("max_per_calling_ae", self._of_title[caller.calling], self._dicom.max_per_calling_ae),
            ("max_per_address", self._of_address[caller.address], self._dicom.max_per_address),
        ):
            if limit is not None and inside >= limit:
                return Refusal(2, 3, 2, f"more than dicom.{key}={limit} at once")
        return None

    def leave(self, caller: Caller) -> None:
        """Count a caller that was admitted as outside again."""
        with self._lock:
            self._inside -= 1
            _decrease(self._of_title, caller.calling)
            _decrease(self._of_address, caller.address)

    def remember(self, caller: Caller, why: str) -> None:
        """Keep why a caller does not get through, with what it sends, for people who ask."""
        self._rejections.remember(caller, why)


def _decrease(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    # Whoever called once must not be remembered for ever.
    if not counts[key]:
        del counts[key]
