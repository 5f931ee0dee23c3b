"""A running cache, and an Orthanc that it is configured to fetch from, in each way."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_adapter.addresses import socket_address
from dicom_adapter.ledger import index_search, instances
from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import composition_pb2 as messages
from tests.orthanc import Orthanc, orthanc
from tests.receive.support import free_port
from tests.support import Running, make_instance, running

#: Each way in which studies come, as the configuration calls the source.
WAYS = ("MOVE", "GET", "WEB")
CONFIG = """
dicom: {{host: 127.0.0.1, port: {port}, processes: {processes}}}
grpc: {{listen: null}}
storage: {{reserve: 0, watermark: 100%}}
pipelines:
  none: {{command: ["true"], resources: {{memory: 1MiB}}}}
ae_titles:
  CACHE: {{processor: cache, accepted_sop_classes: {accepted}}}
  OTHER: {{settings: {{pipeline-none: none, timeout: 1h}}}}
sources:
  MOVE: {{ae_title: ORTHANC, host: 127.0.0.1, port: {dicom}}}
  GET: {{ae_title: ORTHANC, host: 127.0.0.1, port: {dicom}, retrieve: c-get}}
  WEB: {{url: "http://127.0.0.1:{http}/dicom-web"}}
  MUTE: {{ae_title: ORTHANC, host: 127.0.0.1}}
"""


@dataclass(frozen=True)
class Ports:
    """Where everybody listens."""

    adapter: int
    http: int
    dicom: int


@dataclass(frozen=True)
class Cache:
    """A running service that fetches."""

    here: Running
    client: Client

    def find(self, source: str, **attributes: str) -> list[messages.FoundStudy]:
        """Return the studies that a source has."""
        request = messages.FindStudiesRequest(source=source, attributes=_pairs(attributes))
        with self.client.errors():
            return list(self.client.composition.FindStudies(request).studies)

    def fetch(
        self, source: str, study: str, into: str = "", **attributes: str
    ) -> list[messages.FetchProgress]:
        """Fetch a study; return how it went on, the end last."""
        request = messages.FetchStudyRequest(
            source=source,
            study_instance_uid=study,
            attributes=_pairs(attributes),
            ae_title=into,
        )
        with self.client.errors():
            return list(self.client.composition.FetchStudy(request))

    def asked(self) -> int:
        """Return how many sources are asked now."""
        return self.here.service.fetching.asked

    def indexed(self) -> int:
        """Return how many instances are in the index."""
        with self.here.service.ledger.read() as tx:
            return sum(one.instances for one in index_search.series(tx, (), 1000)[0])

    def numbers(self) -> list[int]:
        """Return the association, or retrieval, that each instance came by."""
        ids = [path.stem for path in self.files()]
        with self.here.service.ledger.read() as tx:
            return [one.association for one in instances.known(tx, ids, Path)]

    def files(self) -> list[Path]:
        """Return the files of all that is kept."""
        return sorted((self.here.service.settings.storage.path / "spool").rglob("*.dcm"))

    def parts(self) -> list[Path]:
        """Return what is half received."""
        return sorted((self.here.service.settings.storage.path / "spool").rglob("*.part"))


def _pairs(attributes: dict[str, str]) -> list[messages.Attribute]:
    return [messages.Attribute(keyword=key, value=attributes[key]) for key in attributes]


@pytest.fixture(scope="module")
def ports() -> Ports:
    """Return ports that nobody listens on."""
    return Ports(free_port(), free_port(), free_port())


Runs = Callable[..., AbstractContextManager[Cache]]


@pytest.fixture
def cache_at(tmp_path: Path, ports: Ports) -> Runs:
    """Return what runs a cache over the same data each time."""

    @contextmanager
    def run(text: str = "", *, processes: int = 1, accepted: str = "null") -> Iterator[Cache]:
        config = text or CONFIG.format(
            port=ports.adapter,
            http=ports.http,
            dicom=ports.dicom,
            processes=processes,
            accepted=accepted,
        )
        (tmp_path / "adapter").mkdir(exist_ok=True)
        with (
            running(tmp_path / "adapter", config) as here,
            Client(socket_address(here.service.settings)) as client,
        ):
            yield Cache(here, client)

    return run


@pytest.fixture
def cache(cache_at: Runs) -> Iterator[Cache]:
    """Return a running cache."""
    with cache_at() as found:
        yield found


PacsAt = Callable[..., AbstractContextManager[Orthanc]]


@pytest.fixture(scope="module")
def pacs_at(tmp_path_factory: pytest.TempPathFactory, ports: Ports) -> PacsAt:
    """Return what runs an Orthanc over the same data each time."""
    folder = tmp_path_factory.mktemp("orthanc")

    @contextmanager
    def run(known: Sequence[str] = ("CACHE",), **settings: object) -> Iterator[Orthanc]:
        modalities = {title.lower(): (title, ports.adapter) for title in known}
        with orthanc(folder, (ports.http, ports.dicom), modalities, **settings) as found:
            yield found

    return run


@pytest.fixture(scope="module")
def pacs(pacs_at: PacsAt) -> Iterator[Orthanc]:
    """Return a running Orthanc that knows the cache; what tests store there stays."""
    with pacs_at() as found:
        yield found


def study_of(study: str, series: int = 2, each: int = 3, **attributes: object) -> list[Dataset]:
    """Return a study of so many series of so many instances."""
    return [
        make_instance(study=study, series=f"{study}.{one}", number=number, **attributes)  # type: ignore[arg-type]
        for one in range(1, series + 1)
        for number in range(1, each + 1)
    ]
