"""As a user runs it: `serve` in a process of its own, the system's clock, the command line."""

import json
from pathlib import Path
from typing import Any

from dicom_adapter.phantom import PhantomSeries, write_series
from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import jobs_pb2
from tests.processors.tools import ROOT, serving, shipped
from tests.support import PATIENCE, command

FINISHED = jobs_pb2.JOB_STATE_FINISHED
SMALL = PhantomSeries(slices=3, rows=32, columns=32, slice_spacing=50.0)


def rows(folder: Path, *words: str) -> list[dict[str, Any]]:
    """Return what a command prints as JSON Lines."""
    answer = command(*words, "--json", folder=folder)
    assert (answer.returncode, answer.stderr) == (0, "")
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_s44_s82_a_study_becomes_a_job_in_five_seconds(tmp_path: Path) -> None:
    """Sent by `send`, a study is a job after the default timeout, and `--json` tells it."""
    file = tmp_path / "dicom-adapter.yaml"
    file.write_text(shipped(ROOT / "config/scenario-2.yaml"), "utf-8")
    write_series(tmp_path / "study", SMALL)
    socket = f"unix:{tmp_path / 'data/run/grpc.sock'}"
    with serving(file) as (process, port), Client(socket) as client:
        changes = client.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(), timeout=PATIENCE * 2)
        sent = command("send", "study", "--to", f"BREAST@127.0.0.1:{port}", folder=tmp_path)
        assert sent.returncode == 0, sent.stderr
        ended = next(change.job for change in changes if change.job.state == FINISHED)
        changes.cancel()
        (job,) = rows(tmp_path, "jobs", "list")
        (shown,) = rows(tmp_path, "jobs", "show", ended.name)
        assert [move["action"] for move in shown.pop("history")] == ["create", "claim", "finish"]
        assert shown.pop("provenance")["job"]["name"] == ended.name
        assert shown == job
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert job["name"] == ended.name
    assert job["name"].startswith("breast-breast-")
    assert (job["state"], job["instances"], job["pipeline"]) == ("finished", 3, "breast")
    assert (job["priority"], job["ae_title"]) == ("normal", "BREAST")
    assert [step["state"] for step in job["steps"]] == ["done"] * 3
    assert "report.json" in {output["path"] for output in job["outputs"]}
