"""Serves what is kept: it is searched, fetched, chosen of, composed into jobs and let go."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict

from dicom_adapter.compose.choosing import Preview, Selected
from dicom_adapter.compose.composing import Composing, Composition
from dicom_adapter.model import IndexedInstance, Part, SeriesSummary, StudySummary
from dicom_adapter.retrieve.fetching import Fetch, Fetching
from dicom_adapter.retrieve.queries import ElsewhereStudy
from dicom_adapter.rpc import convert
from dicom_adapter.rpc.context import Call
from dicom_adapter.v1 import composition_pb2 as messages
from dicom_adapter.v1 import composition_pb2_grpc, jobs_pb2


class CompositionServicer(composition_pb2_grpc.CompositionServiceServicer):
    """Serves CompositionService."""

    def __init__(self, composing: Composing, fetching: Fetching) -> None:
        self._composing = composing
        self._fetching = fetching

    def SearchStudies(  # noqa: N802 - the API's name
        self, request: messages.SearchRequest, call: Call
    ) -> messages.SearchStudiesResponse:
        """Return a page of studies."""
        found, token = self._composing.studies(
            call.caller, _pairs(request.attributes), request.page_size, request.page_token
        )
        return messages.SearchStudiesResponse(studies=map(_study, found), next_page_token=token)

    def SearchSeries(  # noqa: N802 - the API's name
        self, request: messages.SearchRequest, call: Call
    ) -> messages.SearchSeriesResponse:
        """Return a page of series."""
        found, token = self._composing.series(
            call.caller, _pairs(request.attributes), request.page_size, request.page_token
        )
        return messages.SearchSeriesResponse(series=map(_series, found), next_page_token=token)

    def GetSeries(self, request: messages.GetSeriesRequest, call: Call) -> messages.Series:  # noqa: N802 - the API's name
        """Return one series."""
        found = self._composing.one_series(
            call.caller, request.series_instance_uid, request.study_instance_uid
        )
        return _series(found)

    def ListInstances(  # noqa: N802 - the API's name
        self, request: messages.ListInstancesRequest, call: Call
    ) -> messages.ListInstancesResponse:
        """Return what is kept of a series."""
        found = self._composing.instances(
            call.caller, request.series_instance_uid, request.study_instance_uid
        )
        return messages.ListInstancesResponse(instances=map(_instance, found))

    def PreviewSelection(  # noqa: N802 - the API's name
        self, request: messages.PreviewSelectionRequest, call: Call
    ) -> messages.Preview:
        """Return what a job would get."""
        found = self._composing.preview(call.caller, _items(request.items), request.pipeline)
        return _preview(found)

    def RenderInstance(  # noqa: N802 - the API's name
        self, request: messages.RenderInstanceRequest, call: Call
    ) -> messages.Picture:
        """Draw one instance."""
        drawn = self._composing.picture(
            call.caller, request.instance_id, request.frame, request.longest
        )
        return messages.Picture(png=drawn)

    def RenderSelection(  # noqa: N802 - the API's name
        self, request: messages.RenderSelectionRequest, call: Call
    ) -> messages.Picture:
        """Draw what is chosen."""
        parts = tuple(map(_part, request.parts))
        return messages.Picture(png=self._composing.montage(call.caller, parts, request.longest))

    def ComposeJob(self, request: messages.ComposeJobRequest, call: Call) -> jobs_pb2.Job:  # noqa: N802 - the API's name
        """Make a job of what is chosen."""
        wanted = Composition(
            pipeline=request.pipeline,
            items=_items(request.items),
            name=request.name,
            priority=convert.from_priority(request.priority),
            arguments=dict(request.arguments),
            project=request.project,
            force=request.force,
            release=request.release,
            request_id=request.request_id,
            fail_fast=request.fail_fast,
        )
        return self._composing.compose(call.caller, wanted)

    def ReleaseStudies(  # noqa: N802 - the API's name
        self, request: messages.ReleaseStudiesRequest, call: Call
    ) -> messages.ReleaseStudiesResponse:
        """Let studies or series go."""
        released, needed = self._composing.release(
            call.caller, request.study_instance_uids, request.series_instance_uids
        )
        return messages.ReleaseStudiesResponse(released=released, needed=needed)

    def FindStudies(  # noqa: N802 - the API's name
        self, request: messages.FindStudiesRequest, call: Call
    ) -> messages.FindStudiesResponse:
        """Ask a source for studies."""
        found = self._fetching.studies(
            call.caller, request.source, _pairs(request.attributes), call.when_over
        )
        return messages.FindStudiesResponse(studies=[_found(*each) for each in found])

    def FetchStudy(  # noqa: N802 - the API's name
        self, request: messages.FetchStudyRequest, call: Call
    ) -> Iterator[messages.FetchProgress]:
        """Have a study come from a source."""
        wanted = Fetch(
            source=request.source,
            study=request.study_instance_uid,
            attributes=_pairs(request.attributes),
            into=request.ae_title,
        )
        for progress in self._fetching.fetch(call.caller, wanted, call.when_over):
            yield messages.FetchProgress(**asdict(progress))


def _pairs(attributes: Iterable[messages.Attribute]) -> list[tuple[str, str]]:
    return [(one.keyword, one.value) for one in attributes]


def _found(study: ElsewhereStudy, kept: int) -> messages.FoundStudy:
    return messages.FoundStudy(
        study_instance_uid=study.uid,
        attributes=study.attributes,
        modalities=study.modalities,
        series=study.series,
        instances=study.instances,
        kept=kept,
    )


def _items(items: Iterable[messages.Item]) -> tuple[tuple[Part, ...], ...]:
    return tuple(tuple(map(_part, item.parts)) for item in items)


def _part(part: messages.Part) -> Part:
    return Part(part.series_instance_uid, part.study_instance_uid, part.range, part.order)


def _study(found: StudySummary) -> messages.Study:
    return messages.Study(
        study_instance_uid=found.uid,
        attributes=found.attributes,
        modalities=found.modalities,
        series=found.series,
        instances=found.instances,
        size=found.size,
        first_received_at=convert.to_timestamp(found.first_received_at),
        last_received_at=convert.to_timestamp(found.last_received_at),
    )


def _series(found: SeriesSummary) -> messages.Series:
    return messages.Series(
        series_instance_uid=found.uid,
        study_instance_uid=found.study_uid,
        ae_title=found.ae_title,
        attributes=found.attributes,
        instances=found.instances,
        frames=found.frames,
        size=found.size,
        first_received_at=convert.to_timestamp(found.first_received_at),
        last_received_at=convert.to_timestamp(found.last_received_at),
    )


def _instance(found: IndexedInstance) -> messages.KeptInstance:
    stored, place = found.stored, found.placement
    return messages.KeptInstance(
        id=stored.id,
        sop_instance_uid=stored.sop_instance_uid,
        sop_class_uid=stored.sop_class_uid,
        transfer_syntax_uid=stored.transfer_syntax_uid,
        instance_number=stored.instance_number,
        frames=found.frames,
        size=stored.size,
        position=place.position,
        orientation=place.orientation,
        ae_title=stored.ae_title,
        received_at=convert.to_timestamp(stored.received_at),
    )


def _preview(found: Preview) -> messages.Preview:
    return messages.Preview(
        items=[messages.SelectedItem(series=map(_selected, item)) for item in found.items],
        problems=found.problems,
    )


def _selected(found: Selected) -> messages.SelectedSeries:
    selection = found.selection
    return messages.SelectedSeries(
        series=_series(found.series),
        range=selection.range,
        order=selection.order,
        instances=map(_instance, selection.instances),
        missing=selection.missing,
        doubled=selection.doubled,
        unplaced=selection.unplaced,
        notes=selection.notes,
        problems=selection.problems,
    )
