"""Shows what can be run, and what exactly that is."""

from collections.abc import Iterable
from dataclasses import dataclass

from dicom_adapter.config import Pipeline
from dicom_adapter.errors import NotFoundError
from dicom_adapter.platform.program import CannotStartError
from dicom_adapter.platform.runtime import ContainerRuntime
from dicom_adapter.platform.version import version_of


@dataclass(frozen=True)
class Definition:
    """A pipeline, and the id of what its image is; empty where it has none, or that is not here."""

    pipeline: Pipeline
    image_id: str

    @property
    def version(self) -> str:
        """A hash of what it runs."""
        pipeline = self.pipeline
        return version_of(
            pipeline.command, pipeline.steps, pipeline.image or "", self.image_id, self.remote
        )

    @property
    def remote(self) -> tuple[str, ...]:
        """The executor, and what the pipeline is called there; nothing where it runs here."""
        pipeline = self.pipeline
        there = pipeline.remote_pipeline or pipeline.name
        return (pipeline.executor, there) if pipeline.is_remote else ()


class PipelineOperations:
    """Shows what can be run."""

    def __init__(self, pipelines: Iterable[Pipeline], runtime: ContainerRuntime) -> None:
        self._runtime = runtime
        self.reload(pipelines)

    def reload(self, pipelines: Iterable[Pipeline]) -> None:
        """Have these from now on; a job keeps the definition that it was made of."""
        self._pipelines = {pipeline.name: pipeline for pipeline in pipelines}

    def listed(self) -> list[Definition]:
        """Return every pipeline, by name."""
        return [self.definition(name) for name in sorted(self._pipelines)]

    def definition(self, name: str) -> Definition:
        """Return a pipeline, with the image that its name stands for now.

        Raises:
            NotFoundError: there is none of that name.
        """
        # Once: they may be exchanged meanwhile.
        pipelines = self._pipelines
        if name not in pipelines:
            known = ", ".join(sorted(pipelines)) or "none at all"
            raise NotFoundError(f"the platform has no pipeline '{name}'; it has {known}")
        return Definition(pipelines[name], self._image_id(pipelines[name]))

    def _image_id(self, pipeline: Pipeline) -> str:
        if pipeline.image is None:
            return ""
        try:
            return self._runtime.image(pipeline.image).id
        except CannotStartError:
            # It may be there when a job starts; and what is wrong, a job tells that does not.
            return ""
