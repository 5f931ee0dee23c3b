"""The other platforms of the configuration, as `doctor` finds them."""

from collections.abc import Iterator

from dicom_adapter.cli.common import ANSWER_SECONDS, UNIX, reach
from dicom_adapter.cli.findings import Finding
from dicom_adapter.config import Executor, PlatformSettings, Settings
from dicom_adapter.errors import DicomAdapterError
from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.credentials import Credentials
from dicom_adapter.service import EMBEDDED
from dicom_adapter.v1 import pipelines_pb2


def platforms(settings: Settings) -> Iterator[Finding]:
    """Yield whether the platform, where it is not ours, and each executor answer."""
    if settings.platform.address != EMBEDDED:
        yield _platform(settings.platform)
    for name, executor in settings.executors.items():
        yield from _executor(settings, name, executor)


def _platform(platform: PlatformSettings) -> Finding:
    address = platform.address.removeprefix(UNIX)
    try:
        names = _pipelines(platform)
    except (OSError, DicomAdapterError) as error:
        return Finding(
            "bad",
            "platform",
            f"{address} does not answer: {_why(error)}",
            "start it, or correct platform.address; submissions wait meanwhile",
        )
    return Finding("good", "platform", _answers(address, names))


def _executor(settings: Settings, name: str, executor: Executor) -> Iterator[Finding]:
    address = executor.address.removeprefix(UNIX)
    try:
        names = _pipelines(executor)
    except (OSError, DicomAdapterError) as error:
        # Studies come in all the same: it keeps no sender out.
        yield Finding(
            "look",
            f"executor {name}",
            f"{address} does not answer: {_why(error)}",
            f"start it, or correct executors.{name}; jobs that it is to run wait meanwhile",
        )
        return
    yield Finding("good", f"executor {name}", _answers(address, names))
    for pipeline in settings.pipelines.values():
        wanted = pipeline.remote_pipeline or pipeline.name
        if pipeline.executor == name and wanted not in names:
            yield Finding(
                "look",
                f"executor {name}",
                f"{address} has no pipeline {wanted}, which the pipeline {pipeline.name} runs",
                f"correct pipelines.{pipeline.name}.remote_pipeline, or configure it there",
            )


def _pipelines(other: PlatformSettings | Executor) -> list[str]:
    reach(other.address)
    with Client(other.address, Credentials.of(other)) as client, client.errors():
        answer = client.pipelines.ListPipelines(
            pipelines_pb2.ListPipelinesRequest(), timeout=ANSWER_SECONDS
        )
    return sorted(pipeline.name for pipeline in answer.pipelines)


def _answers(address: str, names: list[str]) -> str:
    return f"{address} answers; its pipelines: {', '.join(names) or 'none'}"


def _why(error: OSError | DicomAdapterError) -> str:
    return str(error.strerror or error if isinstance(error, OSError) else error)
