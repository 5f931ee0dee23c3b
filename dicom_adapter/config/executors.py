"""The executors: other platforms that run pipelines for this one."""

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Protocol, TypeAlias

from pydantic import Field

from dicom_adapter.config import units
from dicom_adapter.config.dicom import CertificateFile
from dicom_adapter.config.document import KeyPath
from dicom_adapter.config.section import Section
from dicom_adapter.config.tokens import BearerTokenFile
from dicom_adapter.config.values import Kind, OtherPlatform, Text, any_of, check_name, near
from dicom_adapter.model import LOCAL_EXECUTOR

ExecutorName: TypeAlias = Annotated[Text, Kind("`local` or name of an executor")]

#: What the pipeline there has of its own.
_THERE = ("image", "command", "silence_timeout")


class Executor(Section):
    """Another platform that runs pipelines for this one: see [remote executors](remote.md)."""

    address: OtherPlatform = Field(description="Where it is: any server of the gRPC API.")
    token: BearerTokenFile | None = Field(
        default=None, description="A file with the token that it knows us by, of an operator."
    )
    ca: CertificateFile | None = Field(
        default=None, description="Who vouches for it, in PEM form; it is called by TLS then."
    )


class Runs(Protocol):
    """A pipeline, as far as it matters here."""

    @property
    def executor(self) -> str:
        """Where it runs."""

    @property
    def is_remote(self) -> bool:
        """Whether another platform runs it."""

    @property
    def remote_pipeline(self) -> str | None:
        """What it is called there."""


def name_problems(names: Collection[str]) -> Iterator[tuple[KeyPath, str]]:
    """Yield which executors cannot be called as they are."""
    for name in names:
        if name == LOCAL_EXECUTOR:
            yield ("executors", name), "must not be called local, which is this machine"
        try:
            check_name(name, "an executor's name")
        except ValueError as error:
            yield ("executors", name), str(error)


def executor_problems(
    default: str,
    executors: Collection[str],
    pipelines: Mapping[str, Runs],
    written: Mapping[str, Mapping[str, object]],
) -> Iterator[tuple[KeyPath, str]]:
    """Yield what is wrong with where pipelines run; `written` is the file's own `pipelines`."""
    known = {LOCAL_EXECUTOR: None, **dict.fromkeys(executors)}
    if default not in known:
        yield ("platform", "executor"), _unknown(default, known)
    for name, pipeline in pipelines.items():
        path = ("pipelines", name)
        if "executor" in written[name] and pipeline.executor not in known:
            yield (*path, "executor"), _unknown(pipeline.executor, known)
        if pipeline.is_remote:
            yield from _useless_there(path, pipeline, written[name])
        elif pipeline.remote_pipeline is not None:
            told = "is for an executor that is another platform, and this pipeline runs here"
            yield (*path, "remote_pipeline"), told


def _unknown(name: str, known: Collection[str]) -> str:
    choice = any_of([*known]) if len(known) > 1 else "local, or one of executors"
    return f"must be {choice}, not {units.show(name)}{near(name, known)}"


def _useless_there(
    path: KeyPath, pipeline: Runs, written: Mapping[str, object]
) -> Iterator[tuple[KeyPath, str]]:
    for key in _THERE:
        if written.get(key) is not None:
            cure = "take it out here" if "executor" in written else "or say executor: local"
            told = f"the pipeline at the executor {pipeline.executor} has its own"
            yield (*path, key), f"must not be here: {told}; {cure}"
