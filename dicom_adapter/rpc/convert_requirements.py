"""What a pipeline requires, as a message and back."""

from dicom_adapter.errors import DicomAdapterError
from dicom_adapter.model import Bounds, Plane, Requirements
from dicom_adapter.model.expressions import parse
from dicom_adapter.v1 import pipelines_pb2


def to_requirements(requires: Requirements) -> pipelines_pb2.Requirements:
    """Return what a pipeline requires as the API's."""
    return pipelines_pb2.Requirements(
        modality=requires.modality,
        body_part=requires.body_part,
        sop_class=requires.sop_class,
        transfer_syntax=requires.transfer_syntax,
        instances=_to_counts(requires.instances),
        series=_to_counts(requires.series),
        several_patients=requires.several_patients,
        slice_thickness=_to_lengths(requires.slice_thickness),
        slice_spacing=_to_lengths(requires.slice_spacing),
        orientation=requires.orientation,
        contrast=requires.contrast,
        tags=map(str, requires.tags),
    )


def from_requirements(message: pipelines_pb2.Requirements) -> Requirements:
    """Return the API's as a value.

    Raises:
        DicomAdapterError: it has what we do not know, and so could not check.
    """
    try:
        return Requirements(
            modality=tuple(message.modality),
            body_part=tuple(message.body_part),
            sop_class=tuple(message.sop_class),
            transfer_syntax=tuple(message.transfer_syntax),
            instances=_from_span(message.instances),
            series=_from_span(message.series),
            several_patients=message.several_patients,
            slice_thickness=_from_span(message.slice_thickness),
            slice_spacing=_from_span(message.slice_spacing),
            orientation=tuple(map(Plane, message.orientation)),
            contrast=message.contrast if message.HasField("contrast") else None,
            tags=tuple(map(parse, message.tags)),
        )
    except ValueError as error:
        raise DicomAdapterError(f"the pipeline requires what is not known here: {error}") from error


def _to_lengths(span: Bounds) -> pipelines_pb2.LengthSpan | None:
    return pipelines_pb2.LengthSpan(min=span.min, max=span.max) if span.is_limited else None


def _to_counts(span: Bounds) -> pipelines_pb2.CountSpan | None:
    if not span.is_limited:
        return None
    least, most = (None if limit is None else int(limit) for limit in (span.min, span.max))
    return pipelines_pb2.CountSpan(min=least, max=most)


def _from_span(message: pipelines_pb2.LengthSpan | pipelines_pb2.CountSpan) -> Bounds:
    return Bounds(
        message.min if message.HasField("min") else None,
        message.max if message.HasField("max") else None,
    )
