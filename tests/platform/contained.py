"""Pipelines that are images of a shell, and a platform that runs them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dicom_adapter.config import Pipeline, Resources
from dicom_adapter.model import LOCAL, Job
from tests.platform.harness import MIB, Platform, platform, wait_for_file
from tests.platform.images import Images

#: Waits for a file named `go` among the outputs, so that a test decides when it ends.
GATE = (
    'touch "$DICOM_ADAPTER_OUTPUT/up"; until [ -e "$DICOM_ADAPTER_OUTPUT/go" ]; do sleep 0.01; done'
)


def image(name: str, **values: Any) -> Pipeline:  # noqa: ANN401 - a Pipeline's fields
    """Return a pipeline of an image."""
    resources = {"cpus": 1, "memory": 64 * MIB, **values.pop("resources", {})}
    return Pipeline(name="test", image=name, resources=Resources(**resources), **values)


def shell(script: str, **values: Any) -> Pipeline:  # noqa: ANN401 - a Pipeline's fields
    """Return a pipeline of a shell script in a container; braces in it are literal."""
    return image("shell", command=(script.replace("{", "{{").replace("}", "}}"),), **values)


@contextmanager
def containers(
    folder: Path,
    images: Images,
    *pipelines: Pipeline,
    **values: Any,  # noqa: ANN401
) -> Iterator[Platform]:
    """Run a platform of images until the block ends; no container is left by it."""
    with platform(folder, *pipelines, runtime=images.runtime, **values) as made:
        yield made
    assert images.containers() == []


def up(made: Platform, pipeline: str = "test") -> Job:
    """Return a job whose container runs."""
    job = made.submit(pipeline)
    wait_for_file(made.workspaces.of(job.id).staging / "up")
    return made.views.get(LOCAL, job.id)
