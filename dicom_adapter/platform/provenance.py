"""What a job's outputs were made of, by what, where and when: the record that stays beside them."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from functools import cache
from importlib.metadata import version

from dicom_adapter.ledger.leases import Claim
from dicom_adapter.model import JobInput, JobOutput
from dicom_adapter.platform.executor import Ended
from dicom_adapter.platform.program import RanAt
from dicom_adapter.platform.workspace import described

#: Of the record; docs/jobs.md describes it. A change that could mislead a reader raises it.
FORMAT = 1


def provenance(
    claim: Claim,
    inputs: Sequence[JobInput],
    outputs: Sequence[JobOutput],
    ended: Ended,
    at: datetime,
) -> Mapping[str, object]:
    """Return the record of an item whose pipeline has ended, and that finishes now."""
    job, item = claim.job, claim.item
    return {
        "format": FORMAT,
        "job": {
            "id": job.id,
            "name": job.name,
            "project": job.project,
            "ae_title": job.ae_title,
            "attempt": job.attempts,
            "rerun_of": job.rerun_of,
            "supersedes": job.supersedes,
        },
        "item": {"id": item.id, "number": item.number, "of": len(job.items)},
        "pipeline": {
            "name": job.pipeline,
            "version": job.pipeline_version,
            "command": list(job.command),
            "image": job.image or None,
            "image_id": job.image_id or None,
            "image_digest": ended.ran_as.image_digest or None,
            "steps": [step.name for step in job.steps],
            "timeout": job.timeout,
            "cancel_policy": job.cancel_policy,
        },
        "arguments": dict(job.arguments),
        "inputs": described(inputs),
        "outputs": [asdict(output) for output in outputs],
        "host": {**_host(), "container_runtime": ended.ran_as.runtime or None},
        "remote": _remote(ended.ran_at),
        "resources": {"requested": asdict(job.requested), "used": asdict(ended.used)},
        "created_at": _time(job.created_at),
        "started_at": None if item.started_at is None else _time(item.started_at),
        "finished_at": _time(at),
        "exit_code": ended.exit_code,
    }


def _remote(ran_at: RanAt | None) -> Mapping[str, str | None]:
    names = [field.name for field in fields(RanAt)]
    return dict.fromkeys(names) if ran_at is None else asdict(ran_at)


@cache
def _host() -> Mapping[str, str]:
    # Once: the installed version is read from the disk, and what runs is what was started.
    return {
        "name": platform.node(),
        "dicom_adapter": version("dicom-adapter"),
        "python": platform.python_version(),
    }


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
