"""Queries about tokens: who is let in, as what, and until when."""

from datetime import datetime

from sqlalchemy import Connection, RowMapping, insert, select, update

from dicom_adapter.errors import AlreadyExistsError, NotFoundError
from dicom_adapter.ledger import events
from dicom_adapter.ledger.schema import tokens
from dicom_adapter.lifecycle import Role
from dicom_adapter.model import Token

KIND = "token"
VALID, REVOKED = "valid", "revoked"


def add(tx: Connection, token: Token, sha256: str) -> None:
    """Write a new token, by the hash of its secret.

    Raises:
        AlreadyExistsError: there is, or was, one of that name; the audit trail tells by it.
    """
    if tx.scalar(select(tokens.c.seq).where(tokens.c.name == token.name)) is not None:
        raise AlreadyExistsError(f"there is, or was, a token '{token.name}': choose another name")
    tx.execute(
        insert(tokens).values(
            name=token.name,
            sha256=sha256,
            role=token.role,
            project=token.project,
            created_at=token.created_at,
            created_by=token.created_by,
            expires_at=token.expires_at,
        )
    )
    events.add(
        tx,
        KIND,
        token.name,
        "create",
        source="",
        target=VALID,
        at=token.created_at,
        actor=token.created_by,
        reason=token.role,
        project=token.project or "",
    )


def of_hash(tx: Connection, sha256: str) -> Token | None:
    """Return the token of a secret's hash; None where there is none."""
    row = tx.execute(select(tokens).where(tokens.c.sha256 == sha256)).mappings().one_or_none()
    return None if row is None else _token(row)


def listed(tx: Connection) -> list[Token]:
    """Return every token, the oldest first."""
    return [_token(row) for row in tx.execute(select(tokens).order_by(tokens.c.seq)).mappings()]


def revoke(tx: Connection, name: str, at: datetime, actor: str) -> Token:
    """Let a token's caller in no more; one that was revoked stays so.

    Raises:
        NotFoundError: there is none of that name.
    """
    row = tx.execute(select(tokens).where(tokens.c.name == name)).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"there is no token '{name}'")
    found = _token(row)
    if found.revoked_at is not None:
        return found
    tx.execute(update(tokens).where(tokens.c.name == name).values(revoked_at=at))
    events.add(
        tx,
        KIND,
        name,
        "revoke",
        source=VALID,
        target=REVOKED,
        at=at,
        actor=actor,
        project=found.project or "",
    )
    return _token({**row, "revoked_at": at})


def _token(row: RowMapping | dict[str, object]) -> Token:
    values = {name: row[name] for name in row if name not in ("seq", "sha256")}
    return Token(**{**values, "role": Role(str(row["role"]))})  # type: ignore[arg-type]
