"""Who is let in: tokens, made and revoked by administrators, and the callers behind them."""

import re
import secrets
from datetime import timedelta
from hashlib import sha256

import structlog

from dicom_adapter.clock import Clock
from dicom_adapter.errors import InvalidArgumentError, UnauthenticatedError
from dicom_adapter.ledger import Ledger, tokens
from dicom_adapter.lifecycle import Machine, Role
from dicom_adapter.model import LOCAL, Caller, Token
from dicom_adapter.platform.projects import Projects

# Known by its beginning, so that a scanner of repositories finds one that was committed.
PREFIX = "dat_"
# 256 bits: nobody guesses one, so that a plain hash of it is as good as a slow one.
SECRET_BYTES = 32

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9@._-]{0,62}", re.ASCII)
# Who else the audit trail names.
_TAKEN = frozenset({LOCAL.name, *Machine})

log = structlog.get_logger()


class Access:
    """Knows callers by their tokens."""

    def __init__(self, ledger: Ledger, clock: Clock, projects: Projects) -> None:
        self._ledger = ledger
        self._clock = clock
        self._projects = projects

    def caller_of(self, secret: str) -> Caller:
        """Return whose token it is.

        Raises:
            UnauthenticatedError: nobody's, or one that lets nobody in any more.
        """
        with self._ledger.read() as tx:
            found = tokens.of_hash(tx, _hash(secret))
        if found is None:
            raise UnauthenticatedError(
                "the token is unknown here: `dicom-adapter tokens create` makes one"
            )
        if not found.is_valid(self._clock.now()):
            ended = "was revoked" if found.revoked_at is not None else "has expired"
            raise UnauthenticatedError(
                f"the token '{found.name}' {ended}: `dicom-adapter tokens create` makes another"
            )
        return Caller(found.name, found.role, found.project)

    def create(
        self,
        caller: Caller,
        *,
        name: str,
        role: Role,
        project: str | None,
        lasts: timedelta | None,
    ) -> tuple[Token, str]:
        """Make a token, and return it with its secret, which is nowhere kept.

        Args:
            caller: Who wants it.
            name: Whom the audit trail is to name; empty: one is made up.
            role: What its caller may do.
            project: Where; None: everywhere.
            lasts: How long it is valid; None: until it is revoked.

        Raises:
            PermissionDeniedError: the caller may not.
            InvalidArgumentError: the name is none, or it is to last no time.
            NotFoundError: there is no such project.
            AlreadyExistsError: there is, or was, one of that name.
        """
        caller.check_everywhere(Role.ADMIN)
        name = name or f"{role}-{secrets.token_hex(4)}"
        if not _NAME.fullmatch(name):
            raise InvalidArgumentError(
                "name", "has 1 to 63 of a-z, A-Z, 0-9, '@', '.', '_' and '-', no sign first"
            )
        if name in _TAKEN:
            raise InvalidArgumentError("name", f"must not be '{name}', which means another")
        if project is not None:
            self._projects.check(project)
        if lasts is not None and lasts <= timedelta(0):
            raise InvalidArgumentError("lasts", "must be longer than no time")
        now = self._clock.now()
        token = Token(
            name=name,
            role=role,
            project=project,
            created_at=now,
            created_by=caller.name,
            expires_at=None if lasts is None else now + lasts,
            revoked_at=None,
        )
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        with self._ledger.write() as tx:
            tokens.add(tx, token, _hash(secret))
        log.info("token made", action="token.created", token=name, role=role, by=caller.name)
        return token, secret

    def listed(self, caller: Caller) -> list[Token]:
        """Return every token, the oldest first; PermissionDeniedError if the caller may not."""
        caller.check_everywhere(Role.ADMIN)
        with self._ledger.read() as tx:
            return tokens.listed(tx)

    def revoke(self, caller: Caller, name: str) -> Token:
        """Let a token's caller in no more, from the next call on; return it as it is then.

        Raises:
            PermissionDeniedError: the caller may not.
            NotFoundError: there is none of that name.
        """
        caller.check_everywhere(Role.ADMIN)
        with self._ledger.write() as tx:
            found = tokens.revoke(tx, name, self._clock.now(), caller.name)
        log.info("token revoked", action="token.revoked", token=name, by=caller.name)
        return found


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
