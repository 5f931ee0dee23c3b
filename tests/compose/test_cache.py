"""The cache processor: what it keeps, how long, how much, and what jobs it makes by itself."""

from pathlib import Path

import pytest

from dicom_adapter.addresses import socket_address
from dicom_adapter.errors import ConfigError
from dicom_adapter.ledger import stock
from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import audit_pb2, jobs_pb2
from dicom_adapter.v1 import composition_pb2 as messages
from tests.compose.conftest import CONFIG, Cache, part, series_of
from tests.support import ManualClock, running, settings_of

DAY = 24 * 3600.0


def config(settings: str) -> str:
    """Return a configuration whose AE title CACHE has these settings."""
    return CONFIG.replace("{processor: cache}", f"{{processor: cache, settings: {settings}}}", 1)


def kept(cache: Cache) -> dict[str, int]:
    """Return how many instances are kept for which reason."""
    with cache.here.service.ledger.read() as tx:
        return {one.reason: one.instances for one in stock.keeping(tx)}


def test_it_keeps_and_makes_no_job(cache: Cache) -> None:
    """Until they are let go."""
    cache.keep(series_of("1.2.3.1", [1, 2]))
    assert kept(cache) == {"kept by its job processor": 2}
    assert cache.here.jobs() == []
    assert cache.here.groups() == []


def test_with_pipelines_it_makes_jobs_and_keeps(tmp_path: Path) -> None:
    """One of each group, of which the instances stay; what comes later is in the next one too."""
    clock = ManualClock()
    text = config("{pipeline-tell: tell, timeout: 60}")
    with (
        running(tmp_path, text, clock) as here,
        Client(socket_address(here.service.settings)) as client,
    ):
        cache = Cache(here, client)
        cache.keep(series_of("1.2.3.1", [1, 2]))
        here.grouped(2)
        clock.advance(61)
        (job,) = here.ended_jobs(1)
        assert (job.pipeline, job.instances, job.ae_title) == ("tell", 2, "CACHE")
        assert cache.indexed() == 2
        cache.keep(series_of("1.2.3.1", [3]))
        here.grouped(1)
        clock.advance(61)
        assert [job.instances for job in here.ended_jobs(2)] == [2, 3]
        assert cache.indexed() == 3


def test_a_study_goes_keep_after_its_last_instance(tmp_path: Path) -> None:
    """As a whole; a study of which something came since stays."""
    clock = ManualClock()
    with (
        running(tmp_path, config("{keep: 30d}"), clock) as here,
        Client(socket_address(here.service.settings)) as client,
    ):
        cache = Cache(here, client)
        cache.keep(series_of("1.2.3.1", [1]))
        cache.keep(series_of("1.2.4.1", [1, 2], study="1.2.4"))
        clock.advance(20 * DAY)
        cache.keep(series_of("1.2.3.2", [1]))
        clock.advance(11 * DAY)
        here.wait_for(lambda: cache.indexed() == 2)
        assert [one.study_instance_uid for one in cache.studies()] == ["1.2.3"]
        clock.advance(20 * DAY)
        here.wait_for(lambda: cache.indexed() == 0)
        here.wait_for(lambda: not list((tmp_path / "data" / "spool").rglob("*.dcm")))


def test_beyond_its_quota_the_oldest_studies_go(tmp_path: Path) -> None:
    """As many as have to; each instance is some 39 KB."""
    clock = ManualClock()
    with (
        running(tmp_path, config("{quota: 100KB}"), clock) as here,
        Client(socket_address(here.service.settings)) as client,
    ):
        cache = Cache(here, client)
        for study in ("1.2.3", "1.2.4"):
            cache.keep(series_of(f"{study}.1", [1], study=study))
            clock.advance(10)
        assert cache.indexed() == 2
        cache.keep(series_of("1.2.5.1", [1], study="1.2.5"))
        clock.advance(61)
        here.wait_for(lambda: cache.indexed() == 2)
        assert {one.study_instance_uid for one in cache.studies()} == {"1.2.4", "1.2.5"}


def test_what_a_group_needs_stays_beyond_the_quota(tmp_path: Path) -> None:
    """Until its job is made."""
    clock = ManualClock()
    with (
        running(tmp_path, config("{quota: 1KB, pipeline-tell: tell, timeout: 600}"), clock) as here,
        Client(socket_address(here.service.settings)) as client,
    ):
        cache = Cache(here, client)
        cache.keep(series_of("1.2.3.1", [1]))
        here.grouped(1)
        clock.advance(120)
        assert cache.indexed() == 1
        clock.advance(600)
        (job,) = here.ended_jobs(1)
        assert job.instances == 1
        clock.advance(61)
        # It is the last one: more of it may come.
        assert cache.indexed() == 1
        cache.keep(series_of("1.2.4.1", [1], study="1.2.4"))
        clock.advance(61)
        here.wait_for(lambda: cache.indexed() == 1)
        assert [one.study_instance_uid for one in cache.studies()] == ["1.2.4"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("{keep: 0}", "keep"),
        ("{quota: 0}", "quota"),
        ("{keep: soon}", "keep"),
        ("{limit: 5}", "limit"),
        ("{pipeline-x: unknown}", "unknown"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, settings: str, told: str) -> None:
    """With the key that is wrong."""
    with pytest.raises(ConfigError, match=told):
        settings_of(tmp_path, config(settings))


def test_release_lets_a_study_go_and_leaves_what_a_group_needs(cache: Cache) -> None:
    """The files are removed; the job that was made of them has its own."""
    cache.keep(series_of("1.2.3.1", [1, 2]))
    cache.keep(series_of("1.2.3.2", [1]), title="SECOND")
    job = cache.compose(part("1.2.3.1"), pipeline="wait")
    request = messages.ReleaseStudiesRequest(study_instance_uids=["1.2.3"])
    answer = cache.api.ReleaseStudies(request)
    assert (answer.released, answer.needed) == (2, 1)
    assert [one.series_instance_uid for one in cache.series()] == ["1.2.3.2"]
    spool = cache.here.service.settings.storage.path / "spool" / "instances"
    cache.here.wait_for(lambda: len(list(spool.rglob("*.dcm"))) == 1)
    assert job.instances == 2
    again = cache.client.jobs.GetJob(jobs_pb2.GetJobRequest(job=job.id))
    assert again.state in {jobs_pb2.JOB_STATE_IN_QUEUE, jobs_pb2.JOB_STATE_PROCESSING}


def test_who_has_let_a_study_go_is_in_the_audit_trail(cache: Cache) -> None:
    """An event for each instance, by the name of whoever asked."""
    cache.keep(series_of("1.2.3.1", [1, 2]))
    cache.api.ReleaseStudies(messages.ReleaseStudiesRequest(study_instance_uids=["1.2.3"]))
    told = [
        event
        for page in cache.client.audit.ExportEvents(audit_pb2.ExportEventsRequest())
        for event in page.events
        if event.action == "release"
    ]
    assert [(one.kind, one.actor) for one in told] == [("instance", "local")] * 2


def test_release_of_a_series_leaves_the_others_of_its_study(cache: Cache) -> None:
    """And nothing goes where one of the named is not there."""
    cache.keep([*series_of("1.2.3.1", [1]), *series_of("1.2.3.2", [1])])
    for wrong in (
        messages.ReleaseStudiesRequest(series_instance_uids=["1.2.3.1", "9.9"]),
        messages.ReleaseStudiesRequest(study_instance_uids=["1.2.3", "9.9"]),
    ):
        with cache.client.errors(), pytest.raises(Exception, match="NOT_FOUND"):
            cache.api.ReleaseStudies(wrong)
    assert cache.indexed() == 2
    cache.api.ReleaseStudies(messages.ReleaseStudiesRequest(series_instance_uids=["1.2.3.1"]))
    assert [one.series_instance_uid for one in cache.series()] == ["1.2.3.2"]


def test_s93_after_submission_the_images_go(cache: Cache) -> None:
    """By `release` of the request: once the platform has the job, which has its own."""
    cache.keep(series_of("1.2.3.1", [1, 2, 9]))
    job = cache.compose(part("1.2.3.1"), release=True)
    (ended,) = cache.here.ended_jobs(1)
    assert (ended.id, ended.instances) == (job.id, 2)
    # What the job did not get is still kept.
    (left,) = cache.series()
    assert left.instances == 1


def test_what_is_sent_again_after_it_went_is_kept_again(cache: Cache) -> None:
    """In the index too."""
    sent = series_of("1.2.3.1", [1])
    cache.keep(sent)
    cache.api.ReleaseStudies(messages.ReleaseStudiesRequest(study_instance_uids=["1.2.3"]))
    assert cache.indexed() == 0
    cache.keep(sent)
    assert cache.indexed() == 1


def test_s92_the_cache_outlives_a_restart(tmp_path: Path) -> None:
    """What was not in the index yet comes into it then."""
    with (
        running(tmp_path, CONFIG) as here,
        Client(socket_address(here.service.settings)) as client,
    ):
        Cache(here, client).keep(series_of("1.2.3.1", [1, 2]))
    with (
        running(tmp_path, CONFIG) as here,
        Client(socket_address(here.service.settings)) as client,
    ):
        cache = Cache(here, client)
        assert cache.indexed() == 2
        assert cache.compose(part("1.2.3.1")).instances == 2
