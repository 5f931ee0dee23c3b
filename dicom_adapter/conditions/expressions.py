"""Whether the values of one attribute are what a condition says."""

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from operator import ge, gt, le, lt

from pydicom.datadict import dictionary_VR
from pydicom.tag import BaseTag

from dicom_adapter.model import Operator, TagCondition
from dicom_adapter.model.expressions import number_of

_ORDER: dict[Operator, Callable[[float, float], bool]] = {
    Operator.LESS: lt,
    Operator.LESS_OR_EQUAL: le,
    Operator.MORE: gt,
    Operator.MORE_OR_EQUAL: ge,
}
_PATIENT_GROUP = 0x0010
# Numbers, codes and UIDs: nobody is known by them.
_IMPERSONAL = frozenset(
    {"CS", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "UI", "UL", "US", "UV", "US or SS"}
)
# Free texts that say how an image was made.
_TECHNICAL = frozenset(
    {
        "ContrastBolusAgent",
        "ConvolutionKernel",
        "Manufacturer",
        "ManufacturerModelName",
        "ProtocolName",
        "PulseSequenceName",
        "ReceiveCoilName",
        "SequenceName",
        "SeriesDescription",
        "SoftwareVersions",
        "TransmitCoilName",
    }
)


def holds(condition: TagCondition, values: Sequence[object]) -> bool:
    """Tell whether values, of which there is one at least, are as a condition says.

    Texts are compared without regard to case. Of several values each must be so; `contains` is
    content with one.
    """
    check = _CHECKS.get(condition.operator)
    if check is None:
        return condition.operator == Operator.PRESENT
    told = (check(value, condition.values, condition.operator) for value in values)
    return any(told) if condition.operator == Operator.CONTAINS else all(told)


def may_be_told(condition: TagCondition) -> bool:
    """Tell whether an attribute's value may be shown: no patient is known by it."""
    tag = BaseTag(condition.tag)
    if tag.group == _PATIENT_GROUP or tag.is_private:
        return False
    return condition.name in _TECHNICAL or dictionary_VR(tag) in _IMPERSONAL


def _same(value: object, word: str) -> bool:
    if isinstance(value, int | float):
        return float(value) == number_of(word)
    return str(value).casefold() == word.casefold()


def _is_one_of(value: object, words: Sequence[str], _operator: Operator) -> bool:
    return any(_same(value, word) for word in words)


def _is_none_of(value: object, words: Sequence[str], _operator: Operator) -> bool:
    return not any(_same(value, word) for word in words)


def _is_ordered(value: object, words: Sequence[str], operator: Operator) -> bool:
    one, other = number_of(str(value)), number_of(words[0])
    if one is None or other is None or not math.isfinite(one):
        return False
    return _ORDER[operator](one, other)


def _has_in_it(value: object, words: Sequence[str], _operator: Operator) -> bool:
    return words[0].casefold() in str(value).casefold()


def _is_like(value: object, words: Sequence[str], _operator: Operator) -> bool:
    # Only * and ? are wildcards here.
    return fnmatchcase(str(value).casefold(), words[0].casefold().replace("[", "[[]"))


_CHECKS: dict[Operator, Callable[[object, Sequence[str], Operator], bool]] = {
    Operator.EQUAL: _is_one_of,
    Operator.IN: _is_one_of,
    Operator.UNEQUAL: _is_none_of,
    Operator.CONTAINS: _has_in_it,
    Operator.MATCHES: _is_like,
    **dict.fromkeys(_ORDER, _is_ordered),
}
