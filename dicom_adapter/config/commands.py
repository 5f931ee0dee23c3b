"""Tells whether this machine can run what pipelines name: commands, and container images."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from dicom_adapter.config import units
from dicom_adapter.config.document import KeyPath
from dicom_adapter.config.settings import Pipeline, PlatformSettings

RUNTIMES = ("podman", "docker")
#: With less neither runtime starts anything.
LEAST_MEMORY = 16 * 1024**2


def container_program(choice: str) -> str | None:
    """Gives the container runtime that a setting means, where it is on this machine's PATH."""
    names = RUNTIMES if choice == "auto" else (choice,)
    return next((name for name in names if shutil.which(name) is not None), None)


def problems(
    pipelines: Mapping[str, Pipeline], platform: PlatformSettings, base: Path
) -> Iterator[tuple[KeyPath, str]]:
    """Yields what could never start, with the key that it is about."""
    if platform.container_options and platform.container_runtime == "auto":
        yield (
            ("platform", "container_options"),
            "are of one runtime: say in container_runtime whether it is podman or docker",
        )
    for name, pipeline in pipelines.items():
        path = ("pipelines", name)
        if pipeline.is_remote:
            continue
        if pipeline.image is None:
            yield from _command_problems(path, pipeline, base)
        else:
            yield from _image_problems(path, pipeline, platform)


def _command_problems(
    path: KeyPath, pipeline: Pipeline, base: Path
) -> Iterator[tuple[KeyPath, str]]:
    for argument in pipeline.command:
        beside = base / argument
        # Not `Path.is_file`: it fails for a script in the command that is too long for a name.
        if not Path(argument).is_absolute() and os.path.isfile(beside):  # noqa: PTH113
            wrong = "is relative, and the command runs in an empty folder"
            yield (*path, "command"), f"'{argument}' {wrong}: write {beside}"


def _image_problems(
    path: KeyPath, pipeline: Pipeline, platform: PlatformSettings
) -> Iterator[tuple[KeyPath, str]]:
    choice = platform.container_runtime
    if container_program(choice) is None:
        missing = "neither Podman nor Docker is" if choice == "auto" else f"{choice} is not"
        cure = "install one, for instance with `apt-get install podman`"
        yield (*path, "image"), f"could never start: {missing} on this machine's PATH; {cure}"
    if pipeline.resources.memory < LEAST_MEMORY:
        least = units.format_size(LEAST_MEMORY)
        told = f"must be at least {least} beside an image: it is the limit of its container"
        yield (*path, "resources", "memory"), told
