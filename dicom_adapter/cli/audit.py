"""`audit export`: the audit trail as DICOM's audit messages, a JSON object a line.

PS3.15 A.5.1 defines the message as XML. Its elements and attributes have the same names here; an
element that may be there more than once is a list. The events are of this product, and so are their
codes: CID 400 and 401 of PS3.16 have none for the life of a job.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from dicom_adapter.cli.common import (
    LAST_EVENT,
    ConfigOption,
    DataOption,
    ServerOption,
    connect,
    group,
)
from dicom_adapter.cli.output import counted
from dicom_adapter.errors import AlreadyExistsError
from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.convert import to_timestamp
from dicom_adapter.v1 import audit_pb2

#: A private coding scheme designator begins with 99 (PS3.16 8.2).
SCHEME = "99DICOMADAPTER"
#: PS3.15 A.5.1.2.1: an application server.
SOURCE_TYPE = "4"

# EventActionCode (PS3.15 A.5.2): create, delete, execute; everything else updates.
_ACTION_CODES = {
    **dict.fromkeys(("create", "variant"), "C"),
    **dict.fromkeys(("delete", "discard", "revoke"), "D"),
    **dict.fromkeys(
        ("claim", "finish", "fail", "stop", "requeue", "dispatch", "accept", "fetch"), "E"
    ),
}
UPDATE = "U"
# EventOutcomeIndicator (PS3.15 A.5.2): a serious failure has ended it, after a minor one it is
# tried again; everything else is a success.
SUCCESS, MINOR_FAILURE, SERIOUS_FAILURE = "0", "4", "8"
_SERIOUS = frozenset({"fail", "expire", "park", "quarantine"})
# ParticipantObjectTypeCode and ParticipantObjectTypeCodeRole (PS3.15 A.5.1.2.2).
SYSTEM_OBJECT = "2"
_ROLES = {
    "job": "20",
    "submission": "20",
    "group": "7",
    "instance": "3",
    "delivery": "3",
    "token": "11",
    "retrieval": "24",
}


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"'{text}' must be a time as 2026-01-31 or 2026-01-31T12:00:00+01:00."
        ) from error
    # As every time is shown.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    audit = group("The audit trail: who did what, when and why.")
    audit.command("export")(export)
    app.add_typer(audit, name="audit")


def export(
    since: Annotated[
        datetime | None,
        typer.Option("--since", metavar="TIME", parser=_moment, help="From then on; UTC."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option("--until", metavar="TIME", parser=_moment, help="Before then; UTC."),
    ] = None,
    after: Annotated[
        int, typer.Option("--after", metavar="N", min=0, help="Only behind the event number N.")
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Into a new file, instead of printing."),
    ] = None,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Print every event, the oldest first, as JSON, one object a line.

    Each is an audit message of DICOM (PS3.15 A.5). Deleted jobs are in it, too.
    """
    request = audit_pb2.ExportEventsRequest(
        after=min(after, LAST_EVENT), since=to_timestamp(since), until=to_timestamp(until)
    )
    with connect(config, server, data) as client, client.errors():
        if output is None:
            _write(client, request, sys.stdout)
            return
        with _new_file(output) as stream:
            count, last = _write(client, request, stream)
    more = f"; what comes next: --after {last}" if count else ""
    typer.echo(f"{output}: {counted(count, 'event')}{more}")


def _write(
    client: Client, request: audit_pb2.ExportEventsRequest, stream: TextIO
) -> tuple[int, int]:
    """Write the events as they come; return how many there were, and the number of the last."""
    count, last = 0, request.after
    for page in client.audit.ExportEvents(request):
        for event in page.events:
            stream.write(f"{json.dumps(message_of(event, page.source))}\n")
            count, last = count + 1, event.number
    return count, last


@contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """Have a file written that is there once it is whole, for its owner alone.

    Raises:
        AlreadyExistsError: there is one of that name.
    """
    if path.exists():
        raise AlreadyExistsError(f"{path} is there already: name another file")
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            part.chmod(0o600)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def message_of(event: audit_pb2.AuditEvent, source: str) -> dict[str, Any]:
    """Return an event as DICOM's audit message (PS3.15 A.5.1), and what that has no place for."""
    return {
        "number": event.number,
        "project": event.project,
        "from": event.from_state,
        "to": event.to_state,
        "why": event.reason,
        "EventIdentification": _identification(event),
        "ActiveParticipant": [_participant(event.actor)],
        "AuditSourceIdentification": {
            "AuditSourceID": source,
            "AuditSourceTypeCode": [{"csd-code": SOURCE_TYPE}],
        },
        "ParticipantObjectIdentification": [_object(event)],
    }


def _identification(event: audit_pb2.AuditEvent) -> dict[str, Any]:
    outcome = _outcome(event)
    found = {
        "EventID": _code(event.kind),
        "EventTypeCode": [_code(event.action)],
        "EventActionCode": _ACTION_CODES.get(event.action, UPDATE),
        "EventDateTime": event.at.ToJsonString(),
        "EventOutcomeIndicator": outcome,
    }
    if outcome != SUCCESS and event.reason:
        found["EventOutcomeDescription"] = event.reason
    return found


def _outcome(event: audit_pb2.AuditEvent) -> str:
    if event.action in _SERIOUS:
        return SERIOUS_FAILURE
    # A stop puts jobs back, too, and on purpose.
    is_lost = event.action == "requeue" and event.reason == "lost"
    return MINOR_FAILURE if is_lost else SUCCESS


def _participant(actor: str) -> dict[str, Any]:
    return {"UserID": actor, "UserIsRequestor": True}


def _object(event: audit_pb2.AuditEvent) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ParticipantObjectID": event.subject,
        "ParticipantObjectTypeCode": SYSTEM_OBJECT,
        "ParticipantObjectIDTypeCode": _code(event.kind),
        # Not its real name: a group's is what its members share, and so may be a patient's.
        "ParticipantObjectName": event.subject,
    }
    if event.kind in _ROLES:
        found["ParticipantObjectTypeCodeRole"] = _ROLES[event.kind]
    return found


def _code(word: str) -> dict[str, str]:
    return {"csd-code": word, "codeSystemName": SCHEME, "originalText": word}
