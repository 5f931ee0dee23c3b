from hypothesis import given
from hypothesis import strategies as st

from dicom_adapter.submit.outbox import request_of
from tests.ledger import make


def test_series_keep_their_order_and_instances_go_by_number() -> None:
    """Series come in the order of their first instance; within one, instances go by number.

    Those of equal number keep their order, and those without one come last.
    """
    members = [
        make.instance(id=name, series_instance_uid=series, instance_number=number)
        for name, series, number in (
            ("a", "1.9", 3),
            ("b", "1.1", None),
            ("c", "1.9", None),
            ("d", "1.1", 0),
            ("e", "1.9", 3),
            ("f", "1.9", -1),
            ("g", "1.1", 10),
            ("h", "1.1", 9),
        )
    ]
    request = request_of(make.submission(id="r"), members)
    assert [(s.series, [f.instance_id for f in s.files]) for s in request.items[0]] == [
        ("1.9", ["f", "a", "e", "c"]),
        ("1.1", ["d", "h", "g", "b"]),
    ]
    assert request.request_id == "r"


def test_one_series_uid_in_two_studies_is_two_inputs() -> None:
    """A series belongs to its study: two studies that share a series UID stay apart."""
    members = [make.instance(study_instance_uid=study) for study in ("1.1", "1.2", "1.1")]
    request = request_of(make.submission(), members)
    assert [(s.study, len(s.files)) for s in request.items[0]] == [("1.1", 2), ("1.2", 1)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(-5, 5)), min_size=1))
def test_no_instance_is_lost_or_doubled(numbers: list[tuple[str, int | None]]) -> None:
    """Whatever the numbers, each instance is in the request exactly once."""
    members = [
        make.instance(series_instance_uid=series, instance_number=number)
        for series, number in numbers
    ]
    request = request_of(make.submission(), members)
    assert sorted(f.instance_id for f in request.files) == sorted(m.id for m in members)
    assert len({series.series for series in request.items[0]}) == len(request.items[0])
