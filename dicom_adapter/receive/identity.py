"""User identity (PS3.7 annex D.3.3.7): who a peer says it is, and whether that is so."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import jwt
from pynetdicom.pdu_primitives import A_ASSOCIATE, UserIdentityNegotiation

from dicom_adapter.config import DicomSettings, JwtSettings
from dicom_adapter.config.passcodes import Passcode, unmatched

# User-Identity-Type (PS3.7 table D.3-14); a name alone proves nothing, and so does not count.
_PASSCODE, _TOKEN = 2, 5
# Guesses wait for each other, senders of instances for none of them.
_THREADS = 2
#: So far may the clock of who issues tokens be from ours, in seconds.
CLOCK_TOLERANCE = 30.0

#: In words of ours: PyJWT's own quote what was sent.
_WRONG_TOKEN: Mapping[type[Exception], str] = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token is not valid yet",
    jwt.InvalidAudienceError: "the token is not for dicom.jwt.audience",
    jwt.InvalidIssuerError: "the token is not of dicom.jwt.issuer",
    jwt.InvalidSignatureError: "the token is not signed with dicom.jwt.key",
    jwt.MissingRequiredClaimError: "the token lacks one of sub, exp, iss and aud",
}


@dataclass(frozen=True)
class Identity:
    """A user identity that is proposed, as it was sent: never for a log."""

    kind: int
    primary: bytes = field(repr=False)
    passcode: bytes = field(repr=False)
    wants_answer: bool

    def is_checked(self, dicom: DicomSettings) -> bool:
        """Tell whether it is of a kind that is configured; others are passed over."""
        return bool(
            (self.kind == _PASSCODE and dicom.users)
            or (self.kind == _TOKEN and dicom.jwt is not None)
        )


@dataclass(frozen=True)
class User:
    """Who an identity that is right stands for."""

    name: str


@dataclass(frozen=True)
class Unproven:
    """Why an identity is not right, for the log."""

    why: str


#: Takes what an identity has proved to be.
Checked = Callable[[User | Unproven], None]


def proposed(primitive: A_ASSOCIATE) -> Identity | None:
    """Return the user identity that an A-ASSOCIATE-RQ proposes, if it does."""
    for item in primitive.user_information:
        if isinstance(item, UserIdentityNegotiation):
            return Identity(
                item.user_identity_type or 0,
                item.primary_field or b"",
                item.secondary_field or b"",
                bool(item.positive_response_requested),
            )
    return None


class Users:
    """Checks identities in threads of its own: a passcode takes long, so that guessing does."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "users")
        # Who is unknown must not be told apart by the time that the answer takes.
        self._nobody = unmatched()

    def check(self, dicom: DicomSettings, identity: Identity, done: Checked) -> None:
        """Have an identity checked; `done` is then called from another thread."""

        def check() -> None:
            if identity.kind == _TOKEN and dicom.jwt is not None:
                done(_by_token(dicom.jwt, identity.primary))
            else:
                done(self._by_passcode(dicom.users, identity))

        self._threads.submit(check)

    def stop(self) -> None:
        """End the threads after what they check now; nobody waits for the rest any more."""
        self._threads.shutdown(cancel_futures=True)

    def _by_passcode(self, users: Mapping[str, Passcode], identity: Identity) -> User | Unproven:
        name = identity.primary.decode("utf-8", "replace")
        known = users.get(name)
        if (known or self._nobody).matches(identity.passcode) and known is not None:
            return User(name)
        return Unproven("unknown user or wrong passcode")


def _by_token(settings: JwtSettings, token: bytes) -> User | Unproven:
    """Check a JSON Web Token (RFC 7519), whose subject is the user."""
    try:
        claims = jwt.decode(
            token,
            settings.key.content,
            algorithms=list(settings.key.algorithms),
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=CLOCK_TOLERANCE,
            options={"require": ["sub", "exp", "iss", "aud"]},
        )
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        return Unproven(_WRONG_TOKEN.get(type(error), "the token is not valid"))
    return User(str(claims["sub"]))
