"""The audit trail as the command line exports it: DICOM's audit messages, a line each."""

import json
import re
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dicom_adapter.access import Access
from dicom_adapter.addresses import socket_address
from dicom_adapter.audit import AuditTrail, Period
from dicom_adapter.cli.audit import message_of
from dicom_adapter.errors import UnavailableError
from dicom_adapter.ledger import events
from dicom_adapter.lifecycle import Action
from dicom_adapter.model import Caller, Event
from dicom_adapter.platform.projects import Projects
from dicom_adapter.rpc import convert
from dicom_adapter.rpc.server import Server
from dicom_adapter.v1 import audit_pb2
from tests.cli.conftest import Command
from tests.cli.test_shown import submit
from tests.support import CONFIG, Running, running

DOCUMENT = (Path(__file__).parents[2] / "docs" / "audit.md").read_text("utf-8")
AT = "2026-01-02T03:04:05Z"

#: PS3.15 A.5.1.1: what each element has, all of it that is mandatory and what we write besides.
MANDATORY = {
    "EventIdentification": {"EventID", "EventDateTime", "EventOutcomeIndicator"},
    "ActiveParticipant": {"UserID", "UserIsRequestor"},
    "AuditSourceIdentification": {"AuditSourceID"},
    "ParticipantObjectIdentification": {
        "ParticipantObjectID", "ParticipantObjectIDTypeCode", "ParticipantObjectName",
    },
}  # fmt: skip
OPTIONAL = {
    "EventIdentification": {"EventTypeCode", "EventActionCode", "EventOutcomeDescription"},
    "ActiveParticipant": set(),
    "AuditSourceIdentification": {"AuditSourceTypeCode"},
    "ParticipantObjectIdentification": {
        "ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole",
    },
}  # fmt: skip
CODE = {"csd-code", "codeSystemName", "originalText"}
OWN = ["number", "project", "from", "to", "why"]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Running]:
    """A service with a finished job, which listens at a TCP port besides its socket."""
    text = CONFIG.replace("listen: null", 'listen: "127.0.0.1:0"')
    with running(tmp_path, text) as service:
        submit(socket_address(service.service.settings), tmp_path, 1)
        service.ended_jobs(1)
        yield service


def check(row: Any) -> None:  # noqa: ANN401 - JSON
    """Compare a line with the schema."""
    assert list(row) == [*OWN, *MANDATORY]
    for name, mandatory in MANDATORY.items():
        is_list = name in ("ActiveParticipant", "ParticipantObjectIdentification")
        for element in row[name] if is_list else [row[name]]:
            assert mandatory <= element.keys() <= mandatory | OPTIONAL[name]
    event = row["EventIdentification"]
    (thing,) = row["ParticipantObjectIdentification"]
    for code in (event["EventID"], *event["EventTypeCode"], thing["ParticipantObjectIDTypeCode"]):
        assert code.keys() == CODE
        assert code["codeSystemName"].startswith("99")
    assert event["EventActionCode"] in {*"CRUDE"}
    assert event["EventOutcomeIndicator"] in {"0", "4", "8", "12"}
    assert datetime.fromisoformat(event["EventDateTime"]).utcoffset() is not None
    assert row["ActiveParticipant"][0]["UserIsRequestor"] is True


def test_every_event_is_a_line_also_of_a_deleted_job(
    cli: Command, kept: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All moves are there in their order, each a whole message, with who, from where and why."""
    (job,) = kept.jobs()
    address = kept.ready.grpc[0]
    words = ["jobs", "delete", "job-0", "--yes", "--reason", "sent twice"]
    cli("tokens", "create", "--role", "manager", "--name", "other")
    made = cli("tokens", "create", "--role", "operator", "--name", "ann")
    monkeypatch.setenv("DICOM_ADAPTER_TOKEN", made.out.strip())
    assert cli(*words, "--server", address).code == 0
    rows = cli("audit", "export").rows
    for row in rows:
        check(row)
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    mine = [
        row
        for row in rows
        if row["ParticipantObjectIdentification"][0]["ParticipantObjectID"] == job.id
    ]
    told = [
        (row["EventIdentification"]["EventTypeCode"][0]["csd-code"], row["from"]) for row in mine
    ]
    assert told == [
        ("create", ""), ("claim", "in_queue"), ("finish", "processing"), ("delete", "finished"),
    ]  # fmt: skip
    actions = [row["EventIdentification"]["EventActionCode"] for row in mine]
    assert actions == ["C", "E", "E", "D"]
    assert (mine[-1]["to"], mine[-1]["why"]) == ("", "sent twice")
    (who,) = mine[-1]["ActiveParticipant"]
    assert who["UserID"] == "ann"
    (made_token,) = [row for row in rows if row["why"] == "operator"]
    assert made_token["ParticipantObjectIdentification"][0]["ParticipantObjectID"] == "ann"


def test_an_export_goes_on_where_another_has_ended(
    cli: Command, kept: Running, tmp_path: Path
) -> None:
    """A file is whole or not there, is its owner's, and is never written over."""
    rows = cli("audit", "export").rows
    answer = cli("audit", "export", "--output", "trail.jsonl")
    last = rows[-1]["number"]
    assert answer.out == f"trail.jsonl: {len(rows)} events; what comes next: --after {last}\n"
    file = tmp_path / "trail.jsonl"
    assert [json.loads(line) for line in file.read_text("utf-8").splitlines()] == rows
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = cli("audit", "export", "--output", "trail.jsonl")
    assert (again.code, again.out) == (1, "")
    assert "trail.jsonl is there already: name another file" in again.err
    with kept.service.ledger.write() as tx:
        events.add(tx, "job", "x", "cancel", source="", target="", at=kept.service.clock.now())
    words = ["audit", "export", "--after", str(last)]
    assert [row["number"] for row in cli(*words).rows] == [last + 1]
    assert cli(*words, "--output", "next.jsonl").out.startswith("next.jsonl: 1 event; ")
    assert cli("audit", "export", "--until", "2020-01-01").out == ""
    assert (
        cli("audit", "export", "--since", rows[0]["EventIdentification"]["EventDateTime"]).rows[:-1]
        == rows
    )
    assert not list(tmp_path.glob("*.part"))


class BrokenTrail(AuditTrail):
    """A trail that can be read to its first page."""

    def pages(self, caller: Caller, after: int, period: Period) -> Iterator[list[Event]]:
        """Yield what can be read."""
        yield next(super().pages(caller, after, period))
        raise UnavailableError("ledger: disk I/O error")


def test_an_export_that_breaks_off_leaves_no_file(
    cli: Command, kept: Running, tmp_path: Path
) -> None:
    """It fails, and what was printed can be gone on with; nothing is left that looks whole."""
    ledger, clock = kept.service.ledger, kept.service.clock
    access = Access(ledger, clock, Projects(()))
    server = Server(None, None, access, audit=BrokenTrail(ledger))
    address = f"unix:{tmp_path / 'broken.sock'}"
    server.listen(address)
    words = ["audit", "export", "--server", address]
    server.start()
    printed, written = cli(*words), cli(*words, "--output", "trail.jsonl")
    server.stop(0)
    assert (printed.code, written.code, written.out) == (1, 1, "")
    assert [row["number"] for row in printed.rows][:2] == [1, 2]
    assert "disk I/O error" in printed.err
    assert not list(tmp_path.glob("trail*"))


def event(**values: Any) -> audit_pb2.AuditEvent:  # noqa: ANN401 - its fields
    """Return an event; what is not said is a move of a job."""
    stamp = convert.to_timestamp(datetime.fromisoformat(AT))
    fields = {"number": 1, "actor": "local", "kind": "job", "subject": "5f0c", "action": "cancel"}
    return audit_pb2.AuditEvent(at=stamp, **{**fields, **values})


@pytest.mark.parametrize(
    ("action", "reason", "outcome"),
    [
        ("finish", "", "0"),
        ("requeue", "drain", "0"),
        ("requeue", "lost", "4"),
        ("fail", "run_timeout", "8"),
        ("expire", "", "8"),
        ("park", "", "8"),
    ],
)
def test_how_an_event_came_out(action: str, reason: str, outcome: str) -> None:
    """A failure that ends a job is a serious one, a job that is tried again a minor one."""
    found = message_of(event(action=action, reason=reason), "here")["EventIdentification"]
    assert found["EventOutcomeIndicator"] == outcome
    assert found.get("EventOutcomeDescription", "") == ("" if outcome == "0" else reason)


def test_the_page_says_what_is_exported() -> None:
    """The example of docs/audit.md is what the program prints, and its table has every action."""
    (text,) = re.findall(r"```json\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    shown = json.loads(text)
    values = {"from_state": "processing", "to_state": "cancelling", "reason": "wrong pipeline"}
    made = message_of(
        event(number=17, actor="ann", project="default", **values), "dicom-adapter@station-1"
    )
    assert shown == made
    table = re.findall(r"^\| ([a-z]+) \|", DOCUMENT, flags=re.MULTILINE)
    assert {*Action} <= {*re.findall(r"`([a-z]+)`", DOCUMENT)}
    assert table == [
        *("job", "group", "submission", "platform", "token", "instance", "retrieval", "delivery")
    ]
