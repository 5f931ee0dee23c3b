"""User identity (PS3.7 annex D.3.3.7): who a peer says it is, and whether that is so."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pynetdicom.pdu_primitives import A_ASSOCIATE, UserIdentityNegotiation

from dicom_adapter.config.passcodes import Passcode, unmatched

_USERNAME_AND_PASSCODE = 2
# Guesses wait for each other, senders of instances for none of them.
_THREADS = 2


@dataclass(frozen=True)
class Identity:
    """A user identity that is proposed, as it was sent: never for a log."""

    has_passcode: bool
    name: str = field(repr=False)
    passcode: bytes = field(repr=False)
    wants_answer: bool


#: Takes an identity that was checked: None if it is not right.
Checked = Callable[[Identity | None], None]


def proposed(primitive: A_ASSOCIATE) -> Identity | None:
    """Return the user identity that an A-ASSOCIATE-RQ proposes, if it does."""
    for item in primitive.user_information:
        if isinstance(item, UserIdentityNegotiation):
            return Identity(
                item.user_identity_type == _USERNAME_AND_PASSCODE,
                (item.primary_field or b"").decode("utf-8", "replace"),
                item.secondary_field or b"",
                bool(item.positive_response_requested),
            )
    return None


class Users:
    """Checks passcodes in threads of its own: it takes long, so that guessing does."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "passcodes")
        # Who is unknown must not be told apart by the time that the answer takes.
        self._nobody = unmatched()

    def check(self, users: Mapping[str, Passcode], identity: Identity, done: Checked) -> None:
        """Have an identity checked; `done` is then called from another thread, with it if right."""
        known = users.get(identity.name)

        def check() -> None:
            matches = (known or self._nobody).matches(identity.passcode)
            done(identity if matches and known is not None else None)

        self._threads.submit(check)

    def stop(self) -> None:
        """End the threads after what they check now; nobody waits for the rest any more."""
        self._threads.shutdown(cancel_futures=True)
