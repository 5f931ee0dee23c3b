import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_adapter.model import job_name, safe_name, suffixed_name

AT = datetime(2021, 12, 25, 10, 10, 30, tzinfo=UTC)
SAFE = re.compile("[a-z0-9]+(-[a-z0-9]+)*")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("LIVERAET-LIVERAI-20211225101030", "liveraet-liverai-20211225101030"),
        ("Brain_Tumor-seg v2-20211225101030", "brain-tumor-seg-v2-20211225101030"),
        ("É-x", "x"),
        ("---", ""),
        ("A" * 62 + "-B", "a" * 62),
        ("a--_ b", "a-b"),
        ("", ""),
    ],
)
def test_a_name_is_made_safe(text: str, safe: str) -> None:
    """What is not a letter, digit or dash becomes a dash; dashes neither double nor stand last."""
    assert safe_name(text) == safe


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("LIVERAET-LIVERAI", "liveraet-liverai-20211225101030"),
        ("BrainTumorModel-" + "p" * 50, "braintumormodel-" + "p" * 32 + "-20211225101030"),
        ("A" * 47 + "-B", "a" * 47 + "-20211225101030"),
        ("---", "20211225101030"),
    ],
)
def test_a_long_name_keeps_its_time(base: str, name: str) -> None:
    """Only the base is cut: the time behind it, which tells jobs apart, stays whole."""
    assert job_name(base, AT) == name
    assert len(name) <= 63


@given(st.text(), st.integers(2, 10**9))
def test_every_name_is_safe(base: str, number: int) -> None:
    """Whatever the base, the name is at most 63 of [a-z0-9-] and keeps its time and number."""
    name = job_name(base, AT)
    for made in (name, suffixed_name(name, str(number)), safe_name(base) or "x"):
        assert SAFE.fullmatch(made)
        assert len(made) <= 63
    assert name.endswith("20211225101030")
    assert suffixed_name(name, str(number)).endswith(f"20211225101030-{number}")
