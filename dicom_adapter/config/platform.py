"""Whether the settings of the platform agree with one another, and with the pipelines."""

from collections.abc import Iterator, Mapping

from dicom_adapter.config import units
from dicom_adapter.config.document import KeyPath
from dicom_adapter.config.settings import Pipeline, PlatformSettings

Problems = Iterator[tuple[KeyPath, str]]


def embedded_problems(found: PlatformSettings) -> Problems:
    """Yield what is of no use to the platform inside this service."""
    for key in ("token", "ca"):
        if getattr(found, key) is not None:
            yield ("platform", key), "is for another server: name it in platform.address"


def remote_problems(found: PlatformSettings, written: Mapping[str, object]) -> Problems:
    """Yield what makes no sense before a platform that is another server."""
    if written.get("pipelines"):
        where = f"where they run, which is {found.address} (platform.address)"
        yield ("pipelines",), f"must not be here: pipelines are configured {where}"
    if written.get("executors"):
        yield ("executors",), "must not be here: executors are configured where jobs are queued"
    if not written.get("ae_titles"):
        cure = "without ae_titles it must be embedded, which makes this service a platform"
        told = f"leaves nothing to serve: {cure}; not {units.show(found.address)}"
        yield ("platform", "address"), told


def capacity_problems(found: PlatformSettings, pipelines: Mapping[str, Pipeline]) -> Problems:
    """Yield what needs more than there is."""
    for name, pipeline in pipelines.items():
        for key in ("cpus", "memory", "gpus"):
            needed, there = getattr(pipeline.resources, key), getattr(found.capacity, key)
            if needed > there:
                write = units.format_size if key == "memory" else str
                has = f"{write(there)} (platform.capacity.{key})"
                told = f"could never start: it needs {write(needed)}, and the platform has {has}"
                yield ("pipelines", name, "resources", key), told
