"""Conditions on one attribute, as people write them: `KVP >= 100`, `ImageType contains ORIGINAL`.

A closed grammar of one attribute, one operator and what it is compared with; nothing is ever run.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from pydicom.datadict import dictionary_VR, keyword_dict, keyword_for_tag
from pydicom.tag import BaseTag, Tag


class Operator(StrEnum):
    """How an attribute is compared."""

    EQUAL = "="
    UNEQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    MORE = ">"
    MORE_OR_EQUAL = ">="
    CONTAINS = "contains"
    MATCHES = "matches"
    IN = "in"
    PRESENT = "present"
    ABSENT = "absent"


#: These ask for no value.
PRESENCE = frozenset({Operator.PRESENT, Operator.ABSENT})
#: These compare numbers alone.
ORDER = frozenset({Operator.LESS, Operator.LESS_OR_EQUAL, Operator.MORE, Operator.MORE_OR_EQUAL})
#: These compare texts alone.
WORDING = frozenset({Operator.CONTAINS, Operator.MATCHES})

LONGEST = 1000
FORM = "an attribute, an operator and a value, such as KVP >= 100 or ImageType contains ORIGINAL"

_NUMBERS = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
_TEXTS = frozenset(
    {"AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
# What lies before is no part of the data set, what lies behind is never read.
_DATA_SET_BEGINS = 0x0008_0000
_PIXEL_DATA_BEGINS = 0x7FE0_0000

_TAG = re.compile(r"\(?([0-9a-f]{4}) ?, ?([0-9a-f]{4})\)?", re.ASCII | re.IGNORECASE)
_WORDS = "|".join(sorted(operator for operator in Operator if operator.isalpha()))
# The name takes all letters that it can, or `KVPpresent` would be KVP and an operator.
_EXPRESSION = re.compile(
    r"\s*(?P<name>\(?[0-9a-fA-F]{4} ?, ?[0-9a-fA-F]{4}\)?|[A-Za-z][A-Za-z0-9]*+)"
    rf"\s*(?P<operator>!=|<=|>=|=|<|>|(?:{_WORDS})(?![A-Za-z0-9_]))"
    r"\s*(?P<value>.*?)\s*",
    re.ASCII | re.DOTALL,
)
_QUOTED = r"'[^']*'|\"[^\"]*\""
_VALUE = re.compile(rf"{_QUOTED}|[^'\"<>=!][^'\"]*")
_PLAIN = r"[^'\",\[\]\s](?:[^'\",\[\]]*[^'\",\[\]\s])?"
_ITEM = rf"(?:{_QUOTED}|{_PLAIN})"
_ITEMS = re.compile(rf"\[?\s*({_ITEM}(?:\s*,\s*{_ITEM})*)\s*\]?")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?", re.ASCII)
_BARE = re.compile(rf"(?![<>=!]){_PLAIN}")


@dataclass(frozen=True)
class TagCondition:
    """What must be true of one attribute; its `str` is read by `parse` again."""

    tag: int
    #: The attribute's keyword, or its tag as `gggg,eeee` where it has none.
    name: str
    operator: Operator
    #: What it is compared with: several only for `in`, none for `present` and `absent`.
    values: tuple[str, ...] = ()

    @property
    def compared(self) -> str:
        """The operator and what is compared with."""
        return " ".join([self.operator, ", ".join(map(_written, self.values))]).strip()

    def __str__(self) -> str:
        return f"{self.name} {self.compared}"


def parse(text: str) -> TagCondition:
    """Return the condition that an expression means.

    Raises:
        ValueError: it is none; says what is wrong with it, and what is allowed.
    """
    found = _EXPRESSION.fullmatch(text) if len(text) <= LONGEST else None
    if found is None:
        words = ", ".join(Operator)
        raise ValueError(f"must be {FORM}, not {_shown(text)}; operators are {words}")
    tag = _tag_of(found["name"])
    operator = Operator(found["operator"])
    condition = TagCondition(tag, _name_of(tag), operator, _values_of(operator, found["value"]))
    _check_kind(condition)
    return condition


def number_of(text: str) -> float | None:
    """Return the number that a text is; None where it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _tag_of(name: str) -> BaseTag:
    digits = _TAG.fullmatch(name)
    if digits is None and name not in keyword_dict:
        matches = get_close_matches(name[:64], [word for word in keyword_dict if word], n=1)
        near = f"; did you mean {matches[0]!r}?" if matches else ""
        raise ValueError(
            f"{_shown(name)} is no keyword of the data dictionary: give one, or a tag such as "
            f"0018,0060{near}"
        )
    tag = Tag(int(digits[1], 16), int(digits[2], 16)) if digits else Tag(keyword_dict[name])
    if tag.element and _DATA_SET_BEGINS <= tag < _PIXEL_DATA_BEGINS:
        if tag.is_private or _representations(tag):
            return tag
        raise ValueError(f"{_shown(name)} is no tag of the data dictionary")
    cure = "; use transfer_syntax" if name == "TransferSyntaxUID" else ""
    raise ValueError(f"{_shown(name)} is no attribute that is looked at{cure}")


def _name_of(tag: BaseTag) -> str:
    keyword = keyword_for_tag(tag)
    # A repeating group has one keyword for many tags: (6002,0010) is OverlayRows too.
    is_its_own = keyword_dict.get(keyword) == tag
    return keyword if is_its_own else f"{tag.group:04X},{tag.element:04X}"


def _representations(tag: BaseTag) -> frozenset[str]:
    """Return the value representations that an attribute may have; none where they are unknown."""
    try:
        return frozenset(dictionary_VR(tag).split(" or "))
    except KeyError:
        return frozenset()


def _values_of(operator: Operator, text: str) -> tuple[str, ...]:
    if operator in PRESENCE:
        if text:
            raise ValueError(f"'{operator}' is said without a value, not with {_shown(text)}")
        return ()
    whole = (_ITEMS if operator == Operator.IN else _VALUE).fullmatch(text)
    if whole is None:
        form = "values with commas between" if operator == Operator.IN else "one value"
        raise ValueError(
            f"'{operator}' needs {form}, in quotes where there are signs in it, not {_shown(text)}"
        )
    items = re.findall(_ITEM, whole[1]) if operator == Operator.IN else [text]
    values = tuple(_bare(item.strip()) for item in items)
    if not all(value and value.isprintable() for value in values):
        raise ValueError(
            f"'{operator}' needs a value of letters, digits and signs; see also absent"
        )
    return values


def _bare(item: str) -> str:
    return item[1:-1].strip() if item[:1] in ("'", '"') else item


def _written(value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    return f'"{value}"' if "'" in value else f"'{value}'"


def _check_kind(condition: TagCondition) -> None:
    """Refuse what can never be true of an attribute, since its values are of another kind."""
    operator, kinds = condition.operator, _representations(BaseTag(condition.tag))
    if operator in PRESENCE:
        return
    if not kinds <= _NUMBERS | _TEXTS:
        raise ValueError(f"{condition.name} has no value to compare: use present or absent")
    if kinds & _TEXTS and operator in ORDER:
        raise ValueError(
            f"{condition.name} is a text, which '{operator}' cannot compare: use one of "
            f"{', '.join(o for o in Operator if o not in ORDER)}"
        )
    if kinds & _NUMBERS and operator in WORDING:
        raise ValueError(
            f"{condition.name} is a number, which '{operator}' cannot compare: use one of "
            f"{', '.join(o for o in Operator if o not in WORDING)}"
        )
    if kinds & _NUMBERS or operator in ORDER:
        for value in condition.values:
            if number_of(value) is None:
                raise ValueError(f"{condition.name} {operator} needs a number, not {_shown(value)}")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")  # noqa: PLR2004 - a line's worth
