"""A running service with a cache, and what tests send to it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from dicom_adapter.addresses import socket_address
from dicom_adapter.ledger import index_search
from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import composition_pb2 as messages
from dicom_adapter.v1 import jobs_pb2
from tests.support import Running, make_instance, running, send

CONFIG = """
dicom: {host: 127.0.0.1, port: 0}
grpc: {listen: null}
storage: {reserve: 0, watermark: 100%}
pipelines:
  # Puts out what it was given, in the order of the manifest.
  tell:
    command: [sh, -c, 'cp "$0" "$1"/job.json', "{job}", "{output}"]
    resources: {memory: 1MiB}
  other: {command: ["true"], resources: {memory: 1MiB}}
  fail: {command: ["false"], resources: {memory: 1MiB}}
  wait: {command: [sleep, "600"], resources: {memory: 1MiB}}
ae_titles:
  CACHE: {processor: cache}
  SECOND: {processor: cache, settings: {pipeline-other: other, timeout: 1h}}
"""


class Cache:
    """A running service that keeps what it is sent."""

    def __init__(self, here: Running, client: Client) -> None:
        self.here = here
        self.client = client
        self.api = client.composition

    def keep(self, instances: Sequence[Dataset], title: str = "CACHE") -> None:
        """Send instances, and wait until they are in the index."""
        before = self.indexed()
        assert set(send(self.here.port, instances, called=title)) == {0}
        self.here.wait_for(lambda: self.indexed() >= before + len(instances))

    def indexed(self) -> int:
        """Return how many instances are in the index."""
        with self.here.service.ledger.read() as tx:
            return sum(one.instances for one in index_search.series(tx, (), 1000)[0])

    def compose(
        self, *parts: messages.Part, pipeline: str = "tell", **more: object
    ) -> jobs_pb2.Job:
        """Make a job of parts, in one item."""
        request = messages.ComposeJobRequest(
            pipeline=pipeline,
            items=[messages.Item(parts=parts)],
            **more,  # type: ignore[arg-type]
        )
        with self.client.errors():
            return self.api.ComposeJob(request)

    def preview(self, *parts: messages.Part, pipeline: str = "") -> messages.Preview:
        """Return what a job of parts in one item would get."""
        request = messages.PreviewSelectionRequest(
            items=[messages.Item(parts=parts)], pipeline=pipeline
        )
        with self.client.errors():
            return self.api.PreviewSelection(request)

    def studies(self, **attributes: str) -> list[messages.Study]:
        """Return the studies that match."""
        return list(self._found(attributes, self.api.SearchStudies).studies)

    def series(self, **attributes: str) -> list[messages.Series]:
        """Return the series that match."""
        return list(self._found(attributes, self.api.SearchSeries).series)

    def _found(self, attributes: dict[str, str], method: Any) -> Any:  # noqa: ANN401 - two kinds
        pairs = [messages.Attribute(keyword=key, value=attributes[key]) for key in attributes]
        with self.client.errors():
            return method(messages.SearchRequest(attributes=pairs))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """Return a running cache."""
    with (
        running(tmp_path, CONFIG) as here,
        Client(socket_address(here.service.settings)) as client,
    ):
        yield Cache(here, client)


def series_of(uid: str, numbers: Sequence[int | None], **more: object) -> list[Dataset]:
    """Return a series of these Instance Numbers."""
    values: dict[str, object] = {"study": "1.2.3", "patient": "P1", **more}
    return [
        make_instance(series=uid, number=number, **values)  # type: ignore[arg-type]
        for number in numbers
    ]


def part(uid: str, wanted: str = "", order: str = "") -> messages.Part:
    """Return a range of a series."""
    return messages.Part(series_instance_uid=uid, range=wanted, order=order)
