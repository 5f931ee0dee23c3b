"""What people decide of groups, submissions and the quarantine, and that nothing goes unasked."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from dicom_adapter.ledger import events
from tests.cli.conftest import Command, quarantined
from tests.cli.shell import on_terminal
from tests.support import Running, make_instance, running, send

# Port 1 is a platform that never answers: submissions stay.
ADAPTER = """
dicom: {host: 127.0.0.1, port: 0}
grpc: {listen: null}
storage: {reserve: 0, watermark: 100%}
platform: {address: "127.0.0.1:1"}
ae_titles:
  TEST: {settings: {pipeline-copy: copy, timeout: 1h}}
  NAMES: {settings: {pipeline-copy: copy, group_by: PatientName, timeout: 1h}}
"""


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Running]:
    """An adapter without a platform, that has received two studies."""
    with running(tmp_path, ADAPTER) as service:
        assert send(service.port, [make_instance(study="1.2.1"), make_instance()]) == [0, 0]
        service.grouped(2)
        yield service


def discarded(adapter: Running, subject: str) -> bool:
    """Tell whether the audit trail of a thing ends with a discarding by this machine's user."""
    with adapter.service.ledger.read() as tx:
        last = events.of_subject(tx, subject)[-1]
    return last.action.startswith("discard") and last.actor == "local"


def test_nobody_to_ask(cli: Command, adapter: Running) -> None:
    """Without a terminal and without --yes nothing is discarded, and the command says so."""
    before = adapter.groups()
    answer = cli("groups", "discard", "--all")
    assert (answer.code, answer.out) == (1, "")
    assert "2 groups of 2 instances would be discarded for good" in answer.err
    assert "nothing was changed; --yes says that it is meant" in answer.err
    assert adapter.groups() == before


@pytest.mark.parametrize("typed", ["n\n", "\x04"])
def test_no_is_the_answer(adapter: Running, tmp_path: Path, typed: str) -> None:
    """Asked on a terminal, anything but yes changes nothing and exits 1."""
    before = adapter.groups()
    code, shown = on_terminal("groups", "discard", "--all", folder=tmp_path, typed=typed)
    assert code == 1
    assert "Discard 2 groups of 2 instances for good?" in shown
    assert "nothing was changed" in shown
    assert adapter.groups() == before


def test_yes_is_the_answer(adapter: Running, tmp_path: Path) -> None:
    """Asked on a terminal, yes discards what was named and nothing else; it is audited."""
    first, second = adapter.groups()
    code, shown = on_terminal("groups", "discard", first.id, folder=tmp_path, typed="y\n")
    assert code == 0
    assert "Discard 1 group of 1 instance for good?" in shown
    assert "1 group is discarded" in shown
    assert [group.id for group in adapter.groups()] == [second.id]
    assert discarded(adapter, first.id)


def test_yes_beforehand(cli: Command, adapter: Running) -> None:
    """--yes discards without a question."""
    assert cli("groups", "discard", "--all", "--yes").out == "2 groups are discarded\n"
    assert adapter.groups() == []


def test_nothing_there(cli: Command, adapter: Running) -> None:
    """--all where there is nothing does nothing, asks nothing and succeeds."""
    assert adapter.groups()
    for kind in ("quarantine", "submissions"):
        for word in ("retry", "discard"):
            answer = cli(kind, word, "--all")
            assert (answer.code, answer.err) == (0, "")
            assert answer.out.startswith("0 ")


def test_unknown_id(cli: Command, adapter: Running) -> None:
    """One unknown id among several changes nothing at all."""
    before = adapter.groups()
    for word in (["complete"], ["discard", "--yes"]):
        answer = cli("groups", *word, before[0].id, "nonsense")
        assert (answer.code, answer.out) == (1, "")
        assert answer.err == "dicom-adapter: no open or parked group has the id 'nonsense'\n"
    assert adapter.groups() == before


def test_parked_is_not_ready(cli: Command, adapter: Running) -> None:
    """What is parked becomes ready by a person alone: its row tells people no time for it."""
    first, second = adapter.groups()
    with adapter.service.ledger.write() as tx:
        tx.execute(text("UPDATE groups SET state = 'parked' WHERE id = :id"), {"id": first.id})
    parked, waiting = (
        next(line for line in cli("groups", "list").out.splitlines() if group.id in line)
        for group in (first, second)
    )
    assert "parked  1          -" in parked
    assert re.search(r"open    1          in \d+ min", waiting)
    assert all(row["ready_at"] for row in cli("groups", "list", "--json").rows)


def test_complete_and_submissions(cli: Command, adapter: Running) -> None:
    """A completed group becomes a submission, listed with its cause and open to a decision."""
    first, second = adapter.groups()
    assert cli("groups", "complete", first.id, first.id).out == "1 group is due now\n"
    adapter.wait_for(lambda: [group.id for group in adapter.groups()] == [second.id])
    adapter.wait_for(lambda: any(row["error"] for row in listed(cli)))
    (row,) = listed(cli)
    assert row["state"] == "pending"
    assert row["attempts"] >= 1
    assert "127.0.0.1:1" in row["error"]
    assert "127.0.0.1:1" in cli("submissions", "list").out
    assert cli("submissions", "retry", row["id"]).out == "1 submission is tried again\n"
    assert cli("submissions", "discard", "--all").code == 1
    assert cli("submissions", "discard", "--all", "--yes").out == "1 submission is discarded\n"
    assert listed(cli) == []


def listed(cli: Command) -> list[dict[str, Any]]:
    """Return the submissions."""
    return cli("submissions", "list", "--json").rows


def test_quarantine(cli: Command, adapter: Running) -> None:
    """An instance in quarantine is shown with its cause, tried again, and dropped when told to."""
    assert send(adapter.port, [make_instance(PatientName="")], called="NAMES") == [0]
    adapter.wait_for(lambda: quarantined(adapter))
    (row,) = cli("quarantine", "list", "--json").rows
    assert "PatientName" in row["reason"]
    assert row["calling_ae_title"] == "SCU"
    assert row["id"] in cli("quarantine", "list").out
    assert cli("quarantine", "show", "nonsense").code == 1
    assert cli("quarantine", "retry", "--all").out == "1 instance is tried again\n"
    # It is as it was: it comes back.
    adapter.wait_for(lambda: quarantined(adapter))
    assert cli("quarantine", "discard", row["id"], "--yes").out == "1 instance is discarded\n"
    assert cli("quarantine", "list", "--json").rows == []
    assert discarded(adapter, row["id"])


def test_answers_soon(cli: Command, adapter: Running) -> None:
    """A command that asks a running service answers within moments."""
    assert adapter.groups()
    begun = time.monotonic()
    assert cli("status").code == 0
    assert time.monotonic() - begun < 2
