"""Reads a header that may hold anything: what cannot be understood is absent, and remembered."""

import math
from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence


class Header:
    """A data set's values by keyword; `invalid` collects the keywords that could not be read."""

    def __init__(self, dataset: Dataset, invalid: set[str] | None = None) -> None:
        self._dataset = dataset
        self.invalid: set[str] = set() if invalid is None else invalid

    def text(self, keyword: str) -> str:
        """The value as text, several values joined by a backslash, `""` when there is none."""
        return "\\".join(str(value).strip() for value in self._values(keyword))

    def numbers(self, keyword: str, count: int = 0) -> tuple[float, ...] | None:
        """The values as finite numbers, exactly `count` of them unless that is 0."""
        values = self._values(keyword)
        if not values:
            return None
        try:
            numbers = tuple(float(str(value)) for value in values)
        except ValueError:
            numbers = ()
        if not numbers or not all(map(math.isfinite, numbers)) or (count and len(numbers) != count):
            self.invalid.add(keyword)
            return None
        return numbers

    def number(self, keyword: str) -> float | None:
        """The value, the first one if there are several, as a finite number."""
        numbers = self.numbers(keyword)
        return numbers[0] if numbers else None

    def integer(self, keyword: str) -> int | None:
        """The value as a whole number."""
        number = self.number(keyword)
        if number is None:
            return None
        if number != int(number):
            self.invalid.add(keyword)
            return None
        return int(number)

    def items(self, keyword: str) -> list["Header"]:
        """The items of a sequence, none when it is absent or is no sequence."""
        value = self._value(keyword)
        items: Iterable[Dataset] = value if isinstance(value, Sequence) else ()
        return [Header(item, self.invalid) for item in items]

    def item(self, keyword: str) -> "Header | None":
        """The first item of a sequence."""
        items = self.items(keyword)
        return items[0] if items else None

    def _value(self, keyword: str) -> object:
        try:
            return self._dataset.get(keyword)
        except Exception:  # noqa: BLE001 - a broken value makes pydicom raise whatever it likes
            self.invalid.add(keyword)
            return None

    def _values(self, keyword: str) -> list[object]:
        value = self._value(keyword)
        values = list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]
        return [] if values in ([None], [""]) else values
