"""A fetch that breaks off goes on where it stopped, whoever it was that went away."""

import threading
from typing import Any

import grpc
import pytest

from dicom_adapter.ledger import events
from dicom_adapter.retrieve import fetching
from dicom_adapter.v1 import composition_pb2 as messages
from tests.retrieve.conftest import WAYS, Cache, PacsAt, Runs, study_of
from tests.support import PATIENCE

pytestmark = [pytest.mark.orthanc, pytest.mark.parametrize("way", WAYS)]
STUDY = "1.2.826.4711"
# So many that it is broken off before all have come.
SERIES, EACH = 4, 25
ALL = SERIES * EACH


@pytest.fixture(autouse=True, scope="module")
def stored(pacs_at: PacsAt) -> None:
    """Have a study of many instances in the PACS, which then is stopped."""
    with pacs_at() as pacs:
        pacs.store(study_of(STUDY, SERIES, EACH))


def begun(cache: Cache, way: str) -> Any:  # noqa: ANN401 - a call of gRPC
    """Fetch, and return the call once some have come."""
    request = messages.FetchStudyRequest(source=way, study_instance_uid=STUDY)
    call = cache.client.composition.FetchStudy(request)
    cache.here.wait_for(lambda: len(cache.files()) >= EACH // 5)
    return call


def check_whole(cache: Cache, last: messages.FetchProgress) -> None:
    """Make sure that all is here, each once, and that the last fetch has not begun anew."""
    assert 0 < last.before < ALL
    assert last.before + last.fetched == last.wanted == ALL
    assert len(cache.files()) == ALL
    assert not cache.parts()


def test_after_the_pacs_was_killed(
    cache: Cache, pacs_at: PacsAt, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before stays; the call tells what it lacks, and the next one has just that come."""
    monkeypatch.setattr(fetching, "ATTEMPTS", 2)
    with pacs_at() as pacs:
        call = begun(cache, way)
        pacs.process.kill()
        with pytest.raises(grpc.RpcError) as broken:
            list(call)
    assert broken.value.code() == grpc.StatusCode.UNAVAILABLE
    assert not cache.parts()
    with pacs_at():
        *_, last = cache.fetch(way, STUDY)
    check_whole(cache, last)


def test_after_the_service_was_stopped(cache_at: Runs, pacs_at: PacsAt, way: str) -> None:
    """The service does not wait for what is fetched; when it is there again, the rest comes."""
    with pacs_at():
        with cache_at() as cache:
            call = begun(cache, way)
            stopping = threading.Thread(target=cache.here.service.stop)
            stopping.start()
            with pytest.raises(grpc.RpcError):
                list(call)
            stopping.join(PATIENCE)
            assert not stopping.is_alive()
        with cache_at() as cache:
            *_, last = cache.fetch(way, STUDY)
            check_whole(cache, last)
            with cache.here.service.ledger.read() as tx:
                told = events.after(tx, 0, "retrieval")
            # Of the one that was broken off, too, before the ledger was closed.
            assert [one.action for one in told] == ["fetch", "fail", "fetch", "finish"]


def test_after_the_caller_went_away(cache: Cache, pacs_at: PacsAt, way: str) -> None:
    """Nothing more comes once nobody waits for it, and the place is free for the next one."""
    with pacs_at():
        call = begun(cache, way)
        call.cancel()
        cache.here.wait_for(lambda: not cache.asked())
        *_, last = cache.fetch(way, STUDY)
    check_whole(cache, last)


def test_within_one_call(cache: Cache, pacs_at: PacsAt, way: str) -> None:
    """A PACS that is started again soon has broken nothing off: it is asked once more."""
    with pacs_at() as pacs:
        call = begun(cache, way)
        pacs.process.kill()
    assert any("asked once more" in progress.note for progress in call)
    with pacs_at():
        *_, last = call
    assert last.before == 0
    assert last.fetched == ALL == len(cache.files())
