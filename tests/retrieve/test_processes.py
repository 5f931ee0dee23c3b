"""Fetching where several processes receive."""

import pytest

from tests.orthanc import Orthanc
from tests.retrieve.conftest import Runs, study_of

pytestmark = pytest.mark.orthanc
STUDY = "1.2.826.61"


def test_what_is_fetched_is_recorded_beside_what_they_store(cache_at: Runs, pacs: Orthanc) -> None:
    """By C-MOVE one of them receives it, by C-GET the service itself."""
    sent = study_of(STUDY)
    with cache_at(processes=2) as cache:
        pacs.store(sent[:3])
        *_, last = cache.fetch("MOVE", STUDY)
        assert (last.wanted, last.before, last.fetched) == (3, 0, 3)
        pacs.store(sent[3:])
        *_, last = cache.fetch("GET", STUDY)
        assert (last.wanted, last.before, last.fetched) == (6, 3, 3)
        assert len(cache.files()) == 6
