"""Containers as a user of the whole service meets them: configured, shown, and after a crash."""

import json
from pathlib import Path

import pytest
import yaml
from google.protobuf.json_format import MessageToDict

from dicom_adapter.rpc.client import Client
from tests.platform.harness import wait_for_file
from tests.platform.images import Images
from tests.platform.test_crash import submit
from tests.submit.servers import ended, serving

pytestmark = pytest.mark.podman

#: Waits the first time that it runs, for longer than any test.
SCRIPT = """
echo said; touch "$DICOM_ADAPTER_OUTPUT/up"
until [ -e "$DICOM_ADAPTER_OUTPUT/go" ]; do sleep 0.01; done
"""


def config(images: Images) -> str:
    """Return the configuration of a service with a pipeline that is an image."""
    return yaml.safe_dump(
        {
            "grpc": {"listen": None},
            "platform": {
                "container_runtime": "podman",
                "container_options": list(images.options),
            },
            "pipelines": {
                "slow": {
                    "image": "shell",
                    "command": [SCRIPT],
                    "resources": {"memory": "64MiB"},
                }
            },
        }
    )


def test_a_killed_service_leaves_no_container_behind(tmp_path: Path, images: Images) -> None:
    """After kill -9 the container runs on; the next start removes it before the job runs again.

    Beside it, people are shown the image: of the pipeline, and of the job.
    """
    with serving(tmp_path / "served", config(images)) as first:
        with Client(first.grpc) as client:
            job_id = submit(client, tmp_path)
        staging = first.folder / "data" / "platform" / "jobs" / job_id / "staging"
        wait_for_file(staging / "up")
        first.kill()
    assert images.containers() == [f"dicom-adapter-{job_id}-1"]
    with serving(tmp_path / "served", config(images)) as second, Client(second.grpc) as client:
        wait_for_file(staging / "up")
        assert images.containers() == [f"dicom-adapter-{job_id}-2"]
        (staging / "go").touch()
        job = ended(client, job_id)
        pipeline = json.loads(second.run("pipelines", "show", "slow", "--json").stdout)
    assert images.containers() == []
    assert (MessageToDict(job)["state"], job.attempts) == ("JOB_STATE_FINISHED", 2)
    assert "jobs of an earlier run were put right" in second.log()
    assert pipeline["image"] == job.image == "shell"
    assert pipeline["version"] == job.pipeline_version
