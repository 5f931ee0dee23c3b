"""What is written down of a finished job: what it was made of, by what, where and when."""

import errno
import json
import platform as machine
import re
import threading
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dicom_adapter import files
from dicom_adapter.errors import NotFoundError, WrongStateError
from dicom_adapter.ledger import control
from dicom_adapter.model import LOCAL, InputFile, Job, JobInput
from dicom_adapter.platform.workspace import Workspace
from tests.platform.harness import (
    MIB,
    SOMEBODY,
    Platform,
    leave_half_retried,
    part10,
    platform,
    sh,
)
from tests.platform.test_cancel import actions
from tests.support import PATIENCE

DOCUMENT = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text("utf-8")

#: Two outputs, one of them called like the record; a step, an argument, a timeout.
SCRIPT = """
mkdir "$DICOM_ADAPTER_OUTPUT/sub"
printf mine > "$DICOM_ADAPTER_OUTPUT/provenance.json"
date +%s.%N > "$DICOM_ADAPTER_OUTPUT/sub/out"
sleep 0.1
"""


def record_of(made: Platform, job: Job) -> Any:  # noqa: ANN401 - JSON
    """Return the record of a job as the API reads it."""
    return json.loads(b"".join(made.views.provenance(LOCAL, job.id)))


def retried(made: Platform, job: Job) -> Job:
    """Have a finished job run again to its end."""
    return made.until(made.control.retry(SOMEBODY, job.id, why="", confirm=True))


def test_a_finished_job_s_record_is_what_was_sent_and_put_out(tmp_path: Path) -> None:
    """Every field has its value, every file its hash, in the request's order; no field more."""
    data = [part10(text) for text in ("one", "two", "three")]
    definition = sh(SCRIPT, steps=("look",), timeout=60.0)
    with platform(tmp_path, definition) as made:
        stored = [made.store(each) for each in data]
        files = [InputFile(f.instance_id, f.sha256, f"1.2.{n}") for n, f in enumerate(stored)]
        inputs = (
            JobInput("1.5", "1.5.1", "all", (files[2], files[0])),
            JobInput("1.5", "1.5.2", "part", (files[1],)),
        )
        job = made.until(made.submit(inputs=inputs, arguments={"threshold": "3"}))
        made_by = made.workspaces.of(job.id)
        record = json.loads(made_by.provenance.read_text("utf-8"))
        out = (made_by.output / "sub" / "out").read_bytes()
        assert record_of(made, job) == record
    hashes = [sha256(each).hexdigest() for each in data]
    command = list(definition.command)
    runs = json.dumps([command, ["look"]], separators=(",", ":"))
    used = record["resources"].pop("used")
    assert used["wall_seconds"] >= used["cpu_seconds"] >= 0
    assert used["max_rss_bytes"] > 0
    assert used.keys() == {"cpu_seconds", "max_rss_bytes", "wall_seconds"}
    assert record == {
        "format": 1,
        "job": {
            "id": job.id,
            "name": "test-test",
            "project": "default",
            "ae_title": "TEST",
            "attempt": 1,
            "rerun_of": None,
            "supersedes": None,
        },
        "item": {"id": job.items[0].id, "number": 1, "of": 1},
        "pipeline": {
            "name": "test",
            "version": sha256(runs.encode()).hexdigest()[:12],
            "command": command,
            "image": None,
            "image_id": None,
            "image_digest": None,
            "steps": ["look"],
            "timeout": 60.0,
            "cancel_policy": "kill",
        },
        "arguments": {"threshold": "3"},
        "inputs": [
            {
                "study": "1.5",
                "series": "1.5.1",
                "range": "all",
                "files": [
                    {"file": "001/000001.dcm", "sop_instance_uid": "1.2.2", "sha256": hashes[2]},
                    {"file": "001/000002.dcm", "sop_instance_uid": "1.2.0", "sha256": hashes[0]},
                ],
            },
            {
                "study": "1.5",
                "series": "1.5.2",
                "range": "part",
                "files": [
                    {"file": "002/000001.dcm", "sop_instance_uid": "1.2.1", "sha256": hashes[1]}
                ],
            },
        ],
        "outputs": [
            {"path": "provenance.json", "size": 4, "sha256": sha256(b"mine").hexdigest()},
            {"path": "sub/out", "size": len(out), "sha256": sha256(out).hexdigest()},
        ],
        "host": {
            "name": machine.node(),
            "dicom_adapter": version("dicom-adapter"),
            "python": machine.python_version(),
            "container_runtime": None,
        },
        "remote": dict.fromkeys(
            ("executor", "address", "pipeline", "pipeline_version", "job_id", "job_name")
        ),
        "resources": {"requested": {"cpus": 1, "memory": MIB, "gpus": 0}},
        "created_at": "2026-01-02T03:04:05Z",
        "started_at": "2026-01-02T03:04:05Z",
        "finished_at": "2026-01-02T03:04:05Z",
        "exit_code": 0,
    }


def test_every_field_is_described(tmp_path: Path) -> None:
    """The table in docs/jobs.md has each field of a record, and none that no record has."""
    with platform(tmp_path, sh(SCRIPT)) as made:
        record = record_of(made, made.until(made.submit(arguments={})))
    section = DOCUMENT.partition("## Provenance")[2].partition("\n## ")[0]
    described = re.findall(
        r"`([a-z0-9_.\[\]]+)`", "".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))
    )
    assert sorted(described) == sorted(fields(record))


def fields(value: Any, name: str = "") -> set[str]:  # noqa: ANN401 - JSON
    """Return the names of what has no fields of its own, as a.b, and a[].b in a list."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {found for entry in value for found in fields(entry, f"{name}[]")}
    if isinstance(value, dict) and value:
        dot = "." if name else ""
        return {found for key in value for found in fields(value[key], f"{name}{dot}{key}")}
    return {name}


def test_the_record_of_a_superseded_attempt_is_kept(tmp_path: Path) -> None:
    """It lies beside the outputs of that attempt, also where it had none, and outlives them."""
    with platform(tmp_path, sh(SCRIPT), sh("true", "empty")) as made:
        for pipeline in ("test", "empty"):
            job = made.until(made.submit(pipeline))
            first = record_of(made, job)
            job = retried(made, job)
            place = made.workspaces.of(job.id)
            aside = place.superseded / "1.provenance.json"
            assert json.loads(aside.read_text("utf-8")) == first
            assert record_of(made, job)["job"]["attempt"] == 2
            place.reclaim("outputs")
            assert [path.name for path in place.superseded.iterdir()] == [aside.name]
            assert place.provenance.exists()
            assert not place.output.exists()


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_record_lies_where_the_ledger_says_after_a_retry_that_a_crash_cut_off(
    tmp_path: Path, *, is_committed: bool
) -> None:
    """It is with the outputs that it tells of, of whichever attempt."""
    with platform(tmp_path, sh(SCRIPT)) as made:
        job = made.until(made.submit())
        first = record_of(made, job)
        made.scheduler.stop(PATIENCE)
        if is_committed:
            with made.ledger.write() as tx:
                control.retry(tx, job, job.items, at=made.clock.now(), actor="somebody", why="")
        else:
            leave_half_retried(made, job)
    with platform(tmp_path, sh(SCRIPT)) as again:
        found = again.until(job)
        aside = again.workspaces.of(job.id).superseded / "1.provenance.json"
        assert aside.exists() == is_committed
        record = json.loads(aside.read_text("utf-8")) if is_committed else record_of(again, found)
    assert record == first


def test_only_what_has_finished_has_a_record(tmp_path: Path) -> None:
    """Where there is none, it is said why; what a pipeline puts in its place never is one."""
    forge = 'cd ..; echo "{}" > provenance.json; mkdir provenance.json.part; '
    with platform(tmp_path, sh(forge + "exit 1"), sh(forge, "forging")) as made:
        failed = made.until(made.submit())
        assert made.views.provenance_of(failed) is None
        assert not made.workspaces.of(failed.id).provenance.exists()
        with pytest.raises(WrongStateError, match="is failed: only what has finished has"):
            made.views.provenance(LOCAL, failed.name)
        forged = made.until(made.submit("forging"))
        assert record_of(made, forged)["job"]["id"] == forged.id
        made.workspaces.of(forged.id).provenance.unlink()
        assert made.views.provenance_of(forged) is None
        with pytest.raises(NotFoundError, match="has no provenance: it finished before there was"):
            made.views.provenance(LOCAL, forged.name)


def test_a_deleted_job_takes_its_record_along_and_its_history_stays(tmp_path: Path) -> None:
    """Nothing of it is left on the disk; the audit trail has all of its moves."""
    with platform(tmp_path, sh(SCRIPT)) as made:
        job = made.until(made.submit())
        made.control.delete(SOMEBODY, job.id)
        assert list(made.workspaces.folder.iterdir()) == []
        assert actions(made, job) == ["create", "claim", "finish", "delete"]
        with pytest.raises(NotFoundError):
            made.views.provenance(LOCAL, job.id)


@pytest.mark.parametrize("stopped", [False, True], ids=["room", "stop"])
def test_a_job_waits_with_its_end_for_room_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stopped: bool
) -> None:
    """A disk that is full when a record is written does not fail the job that has done its work."""
    full = threading.Event()
    stage = Workspace.stage_provenance

    def refuse(*_: object) -> NoReturn:
        full.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Workspace, "stage_provenance", refuse)
    if not stopped:
        monkeypatch.setattr(files, "NO_ROOM_PAUSE_SECONDS", 0.01)
    with platform(tmp_path, sh(SCRIPT)) as made:
        job = made.submit()
        assert full.wait(PATIENCE)
        if stopped:
            made.scheduler.stop(PATIENCE)
            assert made.views.get(LOCAL, job.id).state == "in_queue"
        monkeypatch.setattr(Workspace, "stage_provenance", stage)
        if stopped:
            made.restart()
        ended = made.until(job)
        assert (ended.state, ended.attempts) == ("finished", 2 if stopped else 1)
        assert record_of(made, ended)["job"]["attempt"] == ended.attempts
