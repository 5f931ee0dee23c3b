"""Serves what the platform can run."""

from dicom_adapter.platform.pipelines import PipelineOperations
from dicom_adapter.rpc import convert
from dicom_adapter.rpc.context import Call
from dicom_adapter.v1 import pipelines_pb2, pipelines_pb2_grpc


class PipelineServicer(pipelines_pb2_grpc.PipelineServiceServicer):
    """Serves PipelineService."""

    def __init__(self, operations: PipelineOperations) -> None:
        self._operations = operations

    def ListPipelines(  # noqa: N802 - the API's name
        self, request: pipelines_pb2.ListPipelinesRequest, call: Call
    ) -> pipelines_pb2.ListPipelinesResponse:
        """Return every pipeline."""
        del request, call
        return pipelines_pb2.ListPipelinesResponse(
            pipelines=[
                convert.to_pipeline(found.pipeline, found.version)
                for found in self._operations.listed()
            ]
        )

    def GetPipeline(  # noqa: N802 - the API's name
        self, request: pipelines_pb2.GetPipelineRequest, call: Call
    ) -> pipelines_pb2.Pipeline:
        """Return one pipeline."""
        del call
        found = self._operations.definition(request.name)
        return convert.to_pipeline(found.pipeline, found.version)
