"""What a pipeline requires is asked of what is composed, too: before a job is made of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_adapter.addresses import socket_address
from dicom_adapter.errors import WrongStateError
from dicom_adapter.rpc.client import Client
from tests.compose.conftest import CONFIG, Cache, part, series_of
from tests.support import running

PIPELINES = """
  thick:
    command: ["true"]
    resources: {memory: 1MiB}
    requires: {min_instances: 3, modality: [CT]}
  crowd: {command: ["true"], resources: {memory: 1MiB}, requires: {patients: several}}
ae_titles:
"""


@pytest.fixture
def picky(tmp_path: Path) -> Iterator[Cache]:
    """Return a running cache whose pipelines require something."""
    with (
        running(tmp_path, CONFIG.replace("\nae_titles:\n", PIPELINES)) as here,
        Client(socket_address(here.service.settings)) as client,
    ):
        yield Cache(here, client)


def test_s24_a_pipeline_without_conditions_takes_what_is_chosen(picky: Cache) -> None:
    """Whatever its modality, and be it one image."""
    picky.keep(series_of("1.2.3.1", [1], Modality="OT"))
    assert list(picky.preview(part("1.2.3.1"), pipeline="tell").problems) == []
    picky.compose(part("1.2.3.1"))
    picky.here.ended_jobs(1)


def test_s25_what_is_chosen_must_be_what_the_pipeline_requires(picky: Cache) -> None:
    """Nothing is made of it; condition, value and series are named, in the preview as well."""
    picky.keep([*series_of("1.2.3.1", [1, 2, 3]), *series_of("1.2.3.2", [1, 2, 3], Modality="OT")])
    said = "series 1.2.3.2: modality is OT, required is CT"
    assert list(picky.preview(part("1.2.3.2"), pipeline="thick").problems) == [said]
    with pytest.raises(WrongStateError) as refused:
        picky.compose(part("1.2.3.1"), part("1.2.3.2"), pipeline="thick")
    assert str(refused.value) == said
    assert picky.here.jobs() == []
    picky.compose(part("1.2.3.1"), pipeline="thick")
    assert picky.here.ended_jobs(1)[0].instances == 3


def test_s25_of_a_range_what_is_chosen_counts(picky: Cache) -> None:
    """Two images of a series of three are not three."""
    picky.keep(series_of("1.2.3.1", [1, 2, 3]))
    with pytest.raises(WrongStateError, match="number of instances is 2, required is at least 3"):
        picky.compose(part("1.2.3.1", "1:2"), pipeline="thick")
    assert picky.here.jobs() == []


def test_a_pipeline_may_allow_several_patients(picky: Cache) -> None:
    """Only one that says so gets series of several patients in one item."""
    picky.keep(
        [*series_of("1.2.3.1", [1]), *series_of("1.2.4.1", [1], study="1.2.4", patient="P2")]
    )
    both = (part("1.2.3.1"), part("1.2.4.1"))
    for pipeline, told in (("tell", "are of 2 patients"), ("thick", "2.4.1: patient is another")):
        with pytest.raises(WrongStateError, match=told):
            picky.compose(*both, pipeline=pipeline)
    picky.compose(*both, pipeline="crowd")
    assert picky.here.ended_jobs(1)[0].instances == 2


def test_the_files_of_one_study_may_be_of_two_patients(picky: Cache) -> None:
    """The index has the newest of them alone; what a pipeline requires is asked of the files."""
    picky.keep(series_of("1.2.3.1", [1, 2, 3]))
    picky.keep(series_of("1.2.3.2", [1, 2, 3], patient="P2"))
    both = (part("1.2.3.1"), part("1.2.3.2"))
    (problem,) = picky.preview(*both, pipeline="thick").problems
    assert problem.startswith("series 1.2.3.2: patient is another than that of series 1.2.3.1")
    assert list(picky.preview(*both, pipeline="crowd").problems) == []
