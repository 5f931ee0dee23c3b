"""The status names what nobody would find otherwise."""

from pathlib import Path

import pytest

from dicom_adapter.receive.spool import Spool
from tests.support import CONFIG, SUCCESS, ManualClock, make_instance, running, send


def test_instances_of_an_ae_title_that_is_gone_are_named(tmp_path: Path) -> None:
    """Who takes an AE title out of the configuration is told of what still waits for it."""
    clock = ManualClock()
    with running(tmp_path, clock=clock) as adapter:
        assert send(adapter.port, [make_instance()]) == [SUCCESS]
        adapter.grouped(1)
        assert adapter.service.status().attention == ()
    with running(tmp_path, CONFIG.replace("TEST:", "OTHER:"), clock) as adapter:
        (line,) = adapter.service.status().attention
    assert "AE title TEST is not configured any more, but 1 of its instances" in line


def test_failed_jobs_are_named_for_a_day(tmp_path: Path) -> None:
    """Who looks once a day learns of every failed job, and not for ever."""
    clock = ManualClock()
    text = CONFIG.replace("[sh, -c, 'cp", "[sh, -c, 'exit 3; cp")
    with running(tmp_path, text, clock) as adapter:
        for number in (1, 2):
            assert send(adapter.port, [make_instance(study=f"1.2.{number}")]) == [SUCCESS]
            adapter.grouped(1)
            clock.advance(100)
            adapter.ended_jobs(number)
            (line,) = adapter.service.status().attention
            jobs_have = "1 job has" if number == 1 else "2 jobs have"
            assert line == f"{jobs_have} failed since yesterday: see `jobs list --state failed`"
        clock.advance(86_401)
        assert adapter.service.status().attention == ()


def test_no_room_is_told_in_gib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has to make room is told how much there is and how much it takes, in one unit."""
    monkeypatch.setattr(Spool, "free", lambda _: 3 * 1024**3 // 2)
    with running(tmp_path, CONFIG.replace("reserve: 0", "reserve: 2GiB")) as adapter:
        assert adapter.service.status().attention == (
            "C-STORE is answered 0xA700: 1.5 GiB are free, less than storage.reserve, 2.0 GiB",
        )
