import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_adapter.config.units import (
    MAX_SECONDS,
    MAX_SIZE,
    format_duration,
    format_percentage,
    format_size,
    parse_duration,
    parse_percentage,
    parse_size,
    show,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (1024, 1024),
        ("1024", 1024),
        ("1B", 1),
        ("5GiB", 5 * 1024**3),
        ("5GB", 5 * 10**9),
        ("10 KiB", 10 * 1024),
        ("1.5MiB", 1536 * 1024),
        ("2tib", 2 * 1024**4),
        ("1PB", 10**15),
    ],
    ids=repr,
)
def test_sizes(text: object, size: int) -> None:
    """A size is bytes, or a number with a unit."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "wrong",
    [
        *(True, None, 1.5, -1, MAX_SIZE + 1, [], {}, 10**5000),
        *("", "GiB", "5G", "-5GiB", "5 Gi B", "1e3", "5GiB5", "9" * 21, "99999PiB", "٣GiB", "nan"),
    ],
    ids=show,
)
def test_wrong_sizes(wrong: object) -> None:
    """What is no size, or not from 0 to the ledger's largest number, is refused in one line."""
    with pytest.raises(ValueError, match=r"^must be a size [^\n]{1,200}$"):
        parse_size(wrong)


@given(st.integers(0, MAX_SIZE))
def test_sizes_are_read_as_written(size: int) -> None:
    """Every size is read back as it was written."""
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (30, 30),
        (0.5, 0.5),
        ("30", 30),
        ("0s", 0),
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("7d", 604_800),
        ("250ms", 0.25),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1.5h", 5400),
    ],
    ids=repr,
)
def test_durations(text: object, seconds: float) -> None:
    """A duration is seconds, or numbers with units."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "wrong",
    [
        *(True, None, -1, -0.001, math.nan, math.inf, -math.inf, MAX_SECONDS + 1, 10**5000, []),
        *("", "s", "5 minutes", "-5s", "30m1h", "5m5m", "1h-3m", "36501d", "1e3", "5M", "1h30"),
    ],
    ids=show,
)
def test_wrong_durations(wrong: object) -> None:
    """What is no duration, negative, endless or over a century is refused in one line."""
    with pytest.raises(ValueError, match=r"^must be a duration [^\n]{1,200}$"):
        parse_duration(wrong)


@given(st.integers(0, int(MAX_SECONDS * 1000)))
def test_durations_are_read_as_written(milliseconds: int) -> None:
    """Every duration is read back as it was written, to the millisecond."""
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@pytest.mark.parametrize(("text", "fraction"), [("85%", 0.85), ("100 %", 1), ("0.5%", 0.005)])
def test_percentages(text: object, fraction: float) -> None:
    """A percentage is a number with its sign."""
    assert parse_percentage(text) == fraction


@pytest.mark.parametrize(
    "wrong", [85, 0.85, "85", "0%", "101%", "-5%", "%", "", None, True], ids=repr
)
def test_wrong_percentages(wrong: object) -> None:
    """A number without the sign is refused: 85 and 0.85 could both be meant."""
    with pytest.raises(ValueError, match=r"^must be a percentage "):
        parse_percentage(wrong)


@given(st.integers(1, 1000))
def test_percentages_are_read_as_written(tenths: int) -> None:
    """Every percentage is read back as it was written."""
    assert parse_percentage(format_percentage(tenths / 1000)) == tenths / 1000


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "nothing"),
        (True, "true"),
        ("a\nb", r"'a\nb'"),
        ("a" * 100, repr("a" * 60 + "...")),
        (10**70, "a number of more than 60 digits"),
        (1.5, "1.5"),
        ([1], "a list"),
        ({}, "a mapping"),
    ],
)
def test_shown_values(value: object, shown: str) -> None:
    """A value is shown on one short line, whatever it is."""
    assert show(value) == shown
