"""The benchmarks work, with what little they are given here; nothing is timed."""

import re
from pathlib import Path

import pytest

from benchmarks import durability, fetch, index, jobs, ledger

# What was measured, in the last column.
ROW = re.compile(r"\| -?[0-9.]+( ms| s|% of a core)? \|$")
NUMBER = re.compile(r"\| +(-?[0-9]+\.?[0-9]*)")


def test_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each filter and each claim, and for what the service does and costs."""
    monkeypatch.chdir(tmp_path)
    few = {"JOBS": 300, "WAITING": 30, "BATCH": 100, "SHORT": 5, "ROUNDS": 2, "IDLE_SECONDS": 0.1}
    for name, value in few.items():
        monkeypatch.setattr(jobs, name, value)
    jobs.main()
    told = capsys.readouterr().out
    rows = [line for line in told.splitlines() if ROW.search(line)]
    # Each filter, and two of the queue; and seven of the service.
    assert len(rows) == len(jobs.filters()) + 2 + 7, told
    assert not list(tmp_path.iterdir())


def test_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each size of a commit and each durability, and for each number of studies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ledger, "INSTANCES", 200)
    ledger.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(ledger.BATCHES) + len(ledger.STUDIES)
    assert all(line.endswith(" ms") for line in lines)


def test_durability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each size, with four numbers."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"INSTANCES": 10, "ROUNDS": 1}.items():
        monkeypatch.setattr(durability, name, value)
    durability.main()
    lines = capsys.readouterr().out.splitlines()
    assert [len(NUMBER.findall(line)) for line in lines[2:]] == [4] * len(durability.SIZES)


def test_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each search, one for what is chosen, and one for each load that is sent."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"STUDIES": 8, "ROUNDS": 1, "SENT": 0.02}.items():
        monkeypatch.setattr(index, name, value)
    index.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1600 instances in 32 series"
    assert sum(" ms |" in line for line in lines) == len(index.SEARCHES) + 1
    assert sum("/s |" in line for line in lines) == len(index.SENT_OF)


@pytest.mark.dcmtk
@pytest.mark.orthanc
def test_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each kind of series, with a rate for each way and each peer."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"ROUNDS": 1, "PART": 0}.items():
        monkeypatch.setattr(fetch, name, value)
    fetch.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("/s") for line in lines[2:]] == [5] * len(fetch.OF)
