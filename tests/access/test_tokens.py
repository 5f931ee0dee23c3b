"""Tokens: made, used, expired and revoked; and what a name may be."""

from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from dicom_adapter.access import PREFIX, Access
from dicom_adapter.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from dicom_adapter.ledger import Ledger, events
from dicom_adapter.lifecycle import Role
from dicom_adapter.model import LOCAL, Caller
from dicom_adapter.platform.projects import Projects
from tests.support import ManualClock


class Kept:
    """An `Access` over a ledger of its own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "ledger.db"
        self.ledger = Ledger(f"sqlite:///{self.file}")
        self.ledger.open()
        self.clock = ManualClock()
        self.projects = Projects(("trial",))
        self.access = Access(self.ledger, self.clock, self.projects)

    def make(
        self,
        name: str = "ann",
        role: Role = Role.OPERATOR,
        project: str | None = None,
        lasts: timedelta | None = None,
    ) -> str:
        """Return the secret of a new token."""
        return self.access.create(LOCAL, name=name, role=role, project=project, lasts=lasts)[1]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    """Tokens in a ledger."""
    made = Kept(tmp_path)
    yield made
    made.ledger.close()


def test_a_secret_lets_its_caller_in(kept: Kept) -> None:
    """By its name, role and project; no other text does, and none is like another."""
    first, second = kept.make("ann"), kept.make("bob", Role.VIEWER, "trial")
    assert first.startswith(PREFIX)
    assert len(first) == len(PREFIX) + 43
    assert kept.access.caller_of(first) == Caller("ann", Role.OPERATOR)
    assert kept.access.caller_of(second) == Caller("bob", Role.VIEWER, "trial")
    for wrong in ("", first[:-1], first + "x", first.upper(), sha256(first.encode()).hexdigest()):
        with pytest.raises(UnauthenticatedError, match="unknown here: `dicom-adapter tokens"):
            kept.access.caller_of(wrong)


def test_the_secret_is_nowhere_kept(kept: Kept, tmp_path: Path) -> None:
    """The ledger has its hash: who reads the file learns nobody's."""
    secret = kept.make()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in content
    assert secret.removeprefix(PREFIX).encode() not in content
    assert sha256(secret.encode()).hexdigest().encode() in content
    assert secret not in repr(kept.access.listed(LOCAL))


def test_a_token_ends_when_it_is_revoked_or_its_time_is_over(kept: Kept) -> None:
    """From the next call on; the message says which, and a revoked one stays so."""
    short, long = kept.make("short", lasts=timedelta(days=90)), kept.make("long")
    kept.clock.advance(timedelta(days=90).total_seconds() - 1)
    assert kept.access.caller_of(short).name == "short"
    kept.clock.advance(1)
    with pytest.raises(UnauthenticatedError, match="'short' has expired"):
        kept.access.caller_of(short)
    revoked = kept.access.revoke(LOCAL, "long")
    assert revoked.revoked_at == kept.clock.now()
    kept.clock.advance(1)
    assert kept.access.revoke(LOCAL, "long") == revoked
    with pytest.raises(UnauthenticatedError, match="'long' was revoked"):
        kept.access.caller_of(long)
    with pytest.raises(NotFoundError, match="there is no token 'nobody'"):
        kept.access.revoke(LOCAL, "nobody")
    with kept.ledger.read() as tx:
        told = [(e.action, e.actor, e.reason) for e in events.of_subject(tx, "long")]
    assert told == [("create", "local", "operator"), ("revoke", "local", "")]


def test_a_name_is_never_used_again(kept: Kept) -> None:
    """The audit trail tells callers by it; one that is left out is made up."""
    kept.make("ann")
    kept.access.revoke(LOCAL, "ann")
    with pytest.raises(AlreadyExistsError, match="there is, or was, a token 'ann'"):
        kept.make("ann")
    kept.make("", Role.VIEWER)
    kept.make("", Role.VIEWER)
    names = [token.name for token in kept.access.listed(LOCAL)]
    assert names[0] == "ann"
    assert len(set(names)) == 3
    assert all(name.startswith("viewer-") for name in names[1:])


@pytest.mark.parametrize("name", ["local", "system", "worker", "a b", "-a", "ä", "a\n", "x" * 64])
def test_a_name_that_would_mislead_is_refused(kept: Kept, name: str) -> None:
    """Nobody is called as the service's owner is, and no name breaks a line."""
    with pytest.raises(InvalidArgumentError, match="name: "):
        kept.make(name)
    assert kept.access.listed(LOCAL) == []


def test_a_token_is_for_a_project_that_there_is(kept: Kept) -> None:
    """And lasts some time."""
    with pytest.raises(NotFoundError, match="no project 'trail'; there are default, trial"):
        kept.make(project="trail")
    with pytest.raises(InvalidArgumentError, match="lasts: must be longer"):
        kept.make(lasts=timedelta(0))
    assert kept.access.listed(LOCAL) == []


@pytest.mark.parametrize(
    "caller", [Caller("m", Role.MANAGER), Caller("a", Role.ADMIN, "trial")], ids=str
)
def test_administrators_of_everything_alone_make_tokens(kept: Kept, caller: Caller) -> None:
    """Else who may little could let himself do more."""
    access = kept.access
    with pytest.raises(PermissionDeniedError):
        access.create(caller, name="x", role=Role.VIEWER, project="trial", lasts=None)
    with pytest.raises(PermissionDeniedError):
        access.listed(caller)
    kept.make("ann")
    with pytest.raises(PermissionDeniedError):
        access.revoke(caller, "ann")


def test_roles_grow() -> None:
    """Each covers itself and those before it, and none behind it."""
    roles = list(Role)
    for number, role in enumerate(roles):
        assert [role.covers(other) for other in roles] == [n <= number for n in range(len(roles))]
