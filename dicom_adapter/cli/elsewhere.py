"""The other platforms, and the sources of studies, as `doctor` finds them."""

from collections.abc import Iterator

from dicom_adapter.addresses import EMBEDDED
from dicom_adapter.cli.common import ANSWER_SECONDS, UNIX, reach
from dicom_adapter.cli.findings import Finding, Verdict
from dicom_adapter.config import Executor, PlatformSettings, Settings
from dicom_adapter.errors import DicomAdapterError, NotFoundError, PermissionDeniedError
from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.credentials import Credentials
from dicom_adapter.v1 import composition_pb2, pipelines_pb2

# The nil UUID's (PS3.5 section B.2): a question that matches nobody's study.
_NO_STUDY = "2.25.0"
# Longer than the service waits for a connection.
_SOURCE_SECONDS = 15.0


def platforms(settings: Settings) -> Iterator[Finding]:
    """Yield whether the platform, where it is not ours, and each executor answer."""
    if settings.platform.address != EMBEDDED:
        waits = "correct platform.address; submissions wait meanwhile"
        yield _asked("platform", settings.platform, "bad", waits)[0]
    for name, executor in settings.executors.items():
        # Studies come in all the same: it keeps no sender out.
        waits = f"correct executors.{name}; jobs that it is to run wait meanwhile"
        found, names = _asked(f"executor {name}", executor, "look", waits)
        yield found
        if names is not None:
            yield from _missing(settings, name, names)


def sources(settings: Settings, client: Client) -> Iterator[Finding]:
    """Yield whether each source that is asked for studies answers the service."""
    nothing = composition_pb2.Attribute(keyword="StudyInstanceUID", value=_NO_STUDY)
    for name, source in settings.sources.items():
        if not source.is_asked:
            continue
        request = composition_pb2.FindStudiesRequest(source=name, attributes=[nothing])
        try:
            with client.errors():
                client.composition.FindStudies(request, timeout=_SOURCE_SECONDS)
        except PermissionDeniedError:
            # Who asks may not have the service ask.
            return
        except DicomAdapterError as error:
            cure = f"start it, or correct sources.{name}; nothing is fetched from it meanwhile"
            if isinstance(error, NotFoundError):
                cure = "have the service read its configuration: dicom-adapter reload"
            yield Finding("look", f"source {name}", str(error), cure)
        else:
            yield Finding("good", f"source {name}", "answers when it is asked for studies")


def _asked(
    subject: str, other: PlatformSettings | Executor, verdict: Verdict, waits: str
) -> tuple[Finding, list[str] | None]:
    """Return whether it answers, and its pipelines if it does."""
    address = other.address.removeprefix(UNIX)
    try:
        names = _pipelines(other)
    except (OSError, DicomAdapterError) as error:
        why = error.strerror or error if isinstance(error, OSError) else error
        return Finding(
            verdict, subject, f"{address} does not answer: {why}", f"start it, or {waits}"
        ), None
    told = f"{address} answers; its pipelines: {', '.join(names) or 'none'}"
    return Finding("good", subject, told), names


def _missing(settings: Settings, name: str, names: list[str]) -> Iterator[Finding]:
    """Yield the pipelines that an executor is to run, and does not have."""
    address = settings.executors[name].address.removeprefix(UNIX)
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
