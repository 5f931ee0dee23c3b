"""Which instances a range chooses, and in which order."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_adapter.errors import InvalidArgumentError
from dicom_adapter.model import IndexedInstance, Orientation, Placement, StoredInstance
from dicom_adapter.ranges import Order, Selection, Steps, range_of, select, spans

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def instance(
    came: int,
    number: int | None,
    z: float | None = None,
    *,
    orientation: Orientation = AXIAL,
    uid: str = "",
) -> IndexedInstance:
    """Return the instance that came as the nth of its series."""
    stored = StoredInstance(
        id=f"{came:032x}",
        ae_title="CACHE",
        association=1,
        calling_ae_title="CT1",
        source_address="10.0.0.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=uid or f"1.2.3.{came}",
        study_instance_uid="1.2",
        series_instance_uid="1.2.3",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        instance_number=number,
        sha256=f"{came:064x}",
        size=1000,
        received_at=BEGAN + timedelta(seconds=came),
        path=Path("none"),
    )
    placement = Placement() if z is None else Placement((0.0, 0.0, z), orientation)
    return IndexedInstance(stored, placement, frames=1)


def series(*numbers: int | None) -> list[IndexedInstance]:
    """Return a series whose instances came with these numbers, in this order."""
    return [instance(came, number) for came, number in enumerate(numbers)]


def chosen(found: Sequence[IndexedInstance], text: str, order: Order = Order.NUMBER) -> Selection:
    """Return what a range as people write it chooses."""
    return select(found, range_of(text), order)


def numbers(selection: Selection) -> list[int | None]:
    """Return the numbers of what was chosen, in order."""
    return [one.stored.instance_number for one in selection.instances]


def came(selection: Selection) -> list[int]:
    """Return as the how manyth each of what was chosen came."""
    return [int(one.stored.id, 16) for one in selection.instances]


def test_s15_s16_without_a_range_it_is_auto() -> None:
    """A range is optional, and the default is auto."""
    assert chosen(series(1, 2, 4), "").range == "auto"


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ([*range(1, 21), 30], list(range(1, 21))),
        ([1, *range(3, 51)], [1]),
        ([5], [5]),
        ([3, 1, 2], [1, 2, 3]),
        ([7, 8, 9], [7, 8, 9]),
    ],
)
def test_s17_auto_is_all_images_of_the_first_consecutive_segment(
    given_: list[int], wanted: list[int]
) -> None:
    """In whatever order they came; what does not follow on is told."""
    selection = chosen(series(*given_), "auto")
    assert numbers(selection) == wanted
    assert not selection.problems
    left = sorted(set(given_) - set(wanted))
    told = f"left out, since they do not follow on: {spans(left)}"
    assert selection.notes == ((told,) if left else ())


def test_auto_longest_is_the_longest_segment() -> None:
    """Of `1,3-50` it is all but the first; of two as long, the first."""
    assert numbers(chosen(series(1, *range(3, 51)), "auto=longest")) == list(range(3, 51))
    assert numbers(chosen(series(1, 2, 8, 9), "auto=longest")) == [1, 2]


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ([1, 2, 2, 3], "auto: several instances have the number 2"),
        ([1, 2, None, None], "auto: 2 instances have no InstanceNumber"),
        ([0, 1, 2], "auto: there are numbers below 1: 0"),
        ([-2, -1, 1], "auto: there are numbers below 1: -2--1"),
        ([None, None], "auto: 2 instances have no InstanceNumber"),
    ],
)
def test_auto_is_refused_where_numbers_do_not_tell(given_: list[int | None], told: str) -> None:
    """Doubled, zero, negative and absent numbers: nothing is guessed, and the cure is named."""
    selection = chosen(series(*given_), "auto")
    assert not selection.instances
    assert any(problem.startswith(told) for problem in selection.problems)
    assert all(
        problem.endswith("choose all, or order by position") for problem in selection.problems
    )


def test_s26_a_leading_localizer_is_left_out_by_its_number() -> None:
    """Start at 2."""
    assert numbers(chosen(series(*range(1, 11)), "2:10")) == list(range(2, 11))


def test_s27_s31_interleaved() -> None:
    """1 to 61 by 3 is 21 images."""
    selection = chosen(series(*range(1, 63)), "1:61:3")
    assert numbers(selection) == list(range(1, 62, 3))
    assert len(selection.instances) == 21


def test_s28_s32_reverse_is_in_reverse() -> None:
    """150 to 1 by -1, in the order 150 to 1; and 61 to 1 by -3 is reverse interleaved."""
    assert numbers(chosen(series(*range(1, 151)), "150:1:-1")) == list(range(150, 0, -1))
    assert numbers(chosen(series(*range(1, 63)), "61:1:-3")) == list(range(61, 0, -3))


def test_s30_a_range_has_start_end_and_delta() -> None:
    """Delta is 1 where it is not said, and a single number is one image."""
    assert range_of("3:9:2") == Steps(3, 9, 2)
    assert range_of("3:9") == Steps(3, 9, 1)
    assert range_of("3") == Steps(3, 3, 1)
    assert range_of("-3:2:1") == Steps(-3, 2, 1)


@pytest.mark.parametrize("delta", [1, -1, 5, -7])
def test_where_start_is_end_any_delta_is_one_image(delta: int) -> None:
    """CIRCUS refuses -1 alone; here none is."""
    assert numbers(chosen(series(1, 2, 3), f"2:2:{delta}")) == [2]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1:6:2", "does not meet its end in steps of 2: end it at 5"),
        ("6:1:-2", "does not meet its end in steps of -2: end it at 2"),
        ("9:1:1", "leads away from its end: use 9:1:-1"),
        ("9:1", "leads away from its end: use 9:1:-1"),
        ("1:9:-1", "leads away from its end: use 1:9:1"),
        ("1:9:0", "never gets on"),
        ("first", "is none: use auto, auto=longest, all, START:END or START:END:DELTA"),
        ("1-20", "is none"),
        ("1:2:3:4", "is none"),
        ("1:٣", "is none"),
        ("1:99999999999", "is none"),
    ],
)
def test_a_wrong_range_is_refused_with_the_cure(text: str, told: str) -> None:
    """It names what is wrong with it."""
    with pytest.raises(InvalidArgumentError, match=r"range") as caught:
        range_of(text)
    assert told in str(caught.value)


def test_r1_the_end_of_an_interleaved_range_has_to_be_there() -> None:
    """{1, 4} for 1 to 7 by 3: 7 is missing, and so it is told."""
    selection = chosen(series(1, 4), "1:7:3")
    assert selection.missing == (7,)
    assert not selection.instances
    (problem,) = selection.problems
    assert problem == (
        "1:7:3: there is no instance 7: choose a range without them, or have them sent"
    )


def test_a_gap_inside_a_range_is_refused_with_the_missing_numbers() -> None:
    """Both ways."""
    for text in ("1:9:1", "9:1:-1"):
        selection = chosen(series(1, 2, 5, 9), text)
        assert set(selection.missing) == {3, 4, 6, 7, 8}
        assert "there is no instance 3-4, 6-8" in selection.problems[0]


def test_a_doubled_number_inside_a_range_is_refused_and_outside_of_it_is_not() -> None:
    """Which of the two is meant, nobody can tell."""
    found = series(1, 2, 3, 3, 4)
    assert "several instances have the number 3" in chosen(found, "1:4:1").problems[0]
    assert numbers(chosen(found, "1:2:1")) == [1, 2]
    assert chosen(found, "1:2:1").doubled == (3,)


def test_r3_a_slice_at_zero_or_without_position_is_a_slice() -> None:
    """Numbers alone decide what auto is."""
    found = [instance(0, 1, 0.0), instance(1, 2, 1.0), instance(2, 3)]
    assert numbers(chosen(found, "auto")) == [1, 2, 3]


def test_every_sop_instance_can_be_reached_whatever_its_number() -> None:
    """All has them all, and by position each has a place of its own."""
    given_ = series(1, 1, 0, None, -5, None)
    assert sorted(came(chosen(given_, "all"))) == [0, 1, 2, 3, 4, 5]
    assert numbers(chosen(given_, "all")) == [-5, 0, 1, 1, None, None]
    reached = [came(chosen(given_, f"{place}", Order.POSITION)) for place in range(1, 7)]
    assert sorted(reached) == [[0], [1], [2], [3], [4], [5]]


def test_by_position_goes_along_the_stack() -> None:
    """From the feet to the head for axial slices, whatever their numbers; and in reverse."""
    found = [instance(0, 3, -10.0), instance(1, 1, 5.0), instance(2, 2, 0.0)]
    assert came(chosen(found, "auto", Order.POSITION)) == [0, 2, 1]
    assert came(chosen(found, "3:1:-1", Order.POSITION)) == [1, 2, 0]
    assert chosen(found, "auto", Order.POSITION).notes == ()


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ([instance(0, 2, 1.0), instance(1, 1)], "some instances do not say where they lie"),
        (
            [instance(0, 2, 1.0), instance(1, 1, 1.0)],
            "several instances lie in the same place",
        ),
        (
            [instance(0, 2, 1.0), instance(1, 1, 2.0, orientation=SAGITTAL)],
            "the instances lie in several directions",
        ),
    ],
)
def test_where_positions_do_not_tell_numbers_do_and_it_is_said(
    found: list[IndexedInstance], why: str
) -> None:
    """No position, the same one twice, two orientations in one series."""
    selection = chosen(found, "all", Order.POSITION)
    assert numbers(selection) == [1, 2]
    assert selection.notes == (f"{why}, so they are in the order of their numbers",)


def test_sagittal_slices_go_along_their_own_normal() -> None:
    """It is x that tells them apart, here towards the patient's right."""
    found = []
    for place, x in enumerate((4.0, -4.0, 0.0)):
        one = instance(place, place + 1, 0.0)
        found.append(
            IndexedInstance(one.stored, Placement((x, 0.0, 0.0), SAGITTAL), frames=1),
        )
    assert came(chosen(found, "all", Order.POSITION)) == [0, 2, 1]


def test_of_copies_the_first_that_came_stands_for_all() -> None:
    """The same instance by two AE titles is one."""
    found = [instance(1, 1, uid="1.9"), instance(0, 1, uid="1.9"), instance(2, 2)]
    selection = chosen(found, "auto")
    assert came(selection) == [0, 2]
    assert selection.notes == ("1 more copies of its instances are left out",)


def test_a_huge_range_costs_nothing() -> None:
    """It is refused with the first of what is missing."""
    selection = chosen(series(1, 2), "1:9999999999")
    assert selection.missing[0] == 3
    assert len(selection.missing) == 1000


def test_nothing_kept_is_nothing_chosen() -> None:
    """Whatever is asked for."""
    for text in ("auto", "all", "auto=longest", "1"):
        for order in Order:
            assert chosen([], text, order).problems


@given(
    st.lists(st.none() | st.integers(-3, 40), max_size=30),
    st.sampled_from(["auto", "auto=longest", "all", "1:7:3", "9:1:-2", "4"]),
    st.sampled_from(Order),
)
def test_whatever_the_numbers_are(given_: list[int | None], text: str, order: Order) -> None:
    """Nothing is chosen twice; what has a problem is no selection; all leaves nothing out."""
    found = series(*given_)
    selection = chosen(found, text, order)
    ids = [one.stored.id for one in selection.instances]
    assert len(set(ids)) == len(ids)
    assert bool(ids) or bool(selection.problems)
    if text == "all":
        assert len(ids) == len(found)
    if isinstance(wanted := range_of(text), Steps) and not selection.problems:
        assert len(ids) == len(wanted.places)
        if order is Order.NUMBER:
            assert numbers(selection) == list(wanted.places)
