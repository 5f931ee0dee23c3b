"""Sizes, durations and percentages: from what a person writes to a number, and back."""

import math
import re
from decimal import Decimal

SIZES = "1024, 512MiB, 5GiB or 5GB"
DURATIONS = "30, 30s, 5m, 1h30m, 7d or 250ms"
PERCENTAGES = "85%"

# Ledger columns are signed 64-bit integers.
MAX_SIZE = 2**63 - 1
# A century: long enough for "for ever", short enough for every calendar computation.
MAX_SECONDS = 36_500 * 86_400.0

_BYTES_PER_UNIT = {
    "PiB": 1024**5,
    "TiB": 1024**4,
    "GiB": 1024**3,
    "MiB": 1024**2,
    "KiB": 1024,
    "PB": 1000**5,
    "TB": 1000**4,
    "GB": 1000**3,
    "MB": 1000**2,
    "KB": 1000,
    "B": 1,
}
_MILLISECONDS_PER_UNIT = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}

# Digits are limited so that no text, however long, costs more than a glance.
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?) *([a-zA-Z]*)", re.ASCII)
_DURATION_PART = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?) *(ms|[dhms]) *", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,9})?", re.ASCII)
_PERCENTAGE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) *%", re.ASCII)


def parse_size(value: object) -> int:
    """Gives the bytes that a size stands for: a whole number, or text with a unit."""
    wrong = f"must be a size such as {SIZES}, not {show(value)}"
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip(" "))):
        units = {name.lower(): factor for name, factor in _BYTES_PER_UNIT.items()}
        factor = units.get(match[2].lower() or "b")
        if factor is None:
            raise ValueError(wrong)
        size = int(Decimal(match[1]) * factor)
    else:
        raise ValueError(wrong)
    if not 0 <= size <= MAX_SIZE:
        raise ValueError(f"must be a size from 0 to {MAX_SIZE} bytes, not {show(value)}")
    return size


def format_size(size: int) -> str:
    """Writes a size in the largest unit that keeps it exact."""
    for unit, factor in _BYTES_PER_UNIT.items():
        if unit != "B" and size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def parse_duration(value: object) -> float:
    """Gives the seconds that a duration stands for: a number, or text with units."""
    seconds: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        # A whole number may be too long for a float, and Python compares it all the same.
        in_range = isinstance(value, int) or math.isfinite(value)
        seconds = float(min(max(value, -1), MAX_SECONDS + 1)) if in_range else None
    elif isinstance(value, str):
        seconds = _seconds_of_text(value.strip(" "))
    if seconds is None:
        raise ValueError(f"must be a duration such as {DURATIONS}, not {show(value)}")
    if not 0 <= seconds <= MAX_SECONDS:
        longest = format_duration(MAX_SECONDS)
        raise ValueError(f"must be a duration from 0s to {longest}, not {show(value)}")
    return seconds


def _seconds_of_text(text: str) -> float | None:
    if _NUMBER.fullmatch(text):
        return float(text)
    milliseconds = Decimal(0)
    position = 0
    units = list(_MILLISECONDS_PER_UNIT)
    while match := _DURATION_PART.match(text, position):
        if match[2] not in units:
            return None
        # From large to small, each once: 1h30m, but neither 30m1h nor 5m5m.
        units = units[units.index(match[2]) + 1 :]
        milliseconds += Decimal(match[1]) * _MILLISECONDS_PER_UNIT[match[2]]
        position = match.end()
    return float(milliseconds / 1000) if text and position == len(text) else None


def format_duration(seconds: float) -> str:
    """Writes a duration in the largest units that keep it exact to the millisecond."""
    rest = round(seconds * 1000)
    if rest and rest % 86_400_000 == 0:
        return f"{rest // 86_400_000}d"
    parts = []
    for unit, factor in _MILLISECONDS_PER_UNIT.items():
        count, rest = divmod(rest, factor)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_percentage(value: object) -> float:
    """Gives the fraction that a percentage stands for: more than 0% and at most 100%."""
    if isinstance(value, str) and (match := _PERCENTAGE.fullmatch(value.strip(" "))):
        fraction = float(Decimal(match[1]) / 100)
        if 0 < fraction <= 1:
            return fraction
    raise ValueError(
        f"must be a percentage above 0% and up to 100%, such as {PERCENTAGES}, not {show(value)}"
    )


def format_percentage(fraction: float) -> str:
    """Writes a fraction as a percentage."""
    return f"{round(fraction * 100, 9):.9g}%"


def show(value: object) -> str:
    """Names a value in a message, shortened to one line."""
    longest = 60
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= longest else f"{value[:longest]}...")
    if isinstance(value, int):
        return str(value) if abs(value) < 10**longest else "a number of more than 60 digits"
    if isinstance(value, float):
        return f"{value:g}"
    return "a list" if isinstance(value, list | tuple) else "a mapping"
