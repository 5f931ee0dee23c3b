"""What pydantic finds wrong, in words for the person who wrote the file."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dicom_adapter.config import units
from dicom_adapter.config.document import Document, KeyPath
from dicom_adapter.config.values import near


def problems(
    error: ValidationError, model: type[BaseModel], document: Document, path: KeyPath
) -> Iterator[tuple[KeyPath, str]]:
    """Yields each problem with the key that it is about."""
    details = error.errors(include_url=False)
    spoilt = {detail["loc"][:-1] for detail in details}
    for detail in details:
        if detail["type"] == "too_short" and detail["loc"] in spoilt:
            # Its items are wrong, not missing; they have mistakes of their own.
            continue
        full = (*path, *detail["loc"])
        if detail["type"] == "missing":
            yield full, "is missing, and must be given"
        elif detail["type"] == "extra_forbidden":
            owner = _owner(model, detail["loc"][:-1])
            yield full, unknown_key(str(detail["loc"][-1]), keys(owner) if owner else ())
        else:
            # pydantic adds the branches of unions, which no one finds in the file.
            known = document.known(full)
            at = known if len(known) >= len(path) else path
            yield at, _words(detail, _written(document, full, detail["input"]))


def unknown_key(key: str, allowed: tuple[str, ...]) -> str:
    """Says that a key is unknown, which one was meant perhaps, and which there are."""
    choice = f"; allowed are {', '.join(allowed)}" if allowed else ""
    return f"is an unknown key{near(key, allowed)}{choice}"


def keys(model: type[BaseModel]) -> tuple[str, ...]:
    """Gives the keys that may stand in a section."""
    named_by = getattr(model, "named_by", None)
    return tuple(
        field.alias or name for name, field in model.model_fields.items() if name != named_by
    )


def _owner(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Finds the model of a section inside a model."""
    for part in path:
        by_key = {field.alias or name: field for name, field in model.model_fields.items()}
        if part not in by_key:
            return None
        annotation = by_key[str(part)].annotation
        inner = [
            candidate
            for candidate in (annotation, *get_args(annotation))
            if isinstance(candidate, type) and issubclass(candidate, BaseModel)
        ]
        if not inner:
            return None
        model = inner[0]
    return model


def _written(document: Document, path: KeyPath, value: object) -> str:
    """Shows a value as it stands in the file."""
    if isinstance(value, int | float) and not isinstance(value, bool) and path in document.texts:
        return document.texts[path][:60]
    return units.show(value)


_Say = Callable[[Mapping[str, Any], str], str]


def _simply(words: str) -> _Say:
    return lambda _context, written: f"must be {words}, not {written}"


def _bound(words: str, name: str) -> _Say:
    return lambda context, written: f"must be {words} {context[name]:.15g}, not {written}"


def _length(words: str, name: str) -> _Say:
    return lambda context, _written: (
        f"must have {words} {context[name]} in it, and has {context.get('actual_length') or 'none'}"
    )


def _characters(words: str, name: str) -> _Say:
    return lambda context, written: (
        f"must have {words} {context[name]} characters, unlike {written}"
    )


def _whole(_context: Mapping[str, Any], written: str) -> str:
    cure = ": take off the quotes" if re.fullmatch(r"'[-+]?[0-9]+'", written) else ""
    return f"must be a whole number, not {written}{cure}"


def _text(_context: Mapping[str, Any], written: str) -> str:
    is_scalar = written not in ("a list", "a mapping", "nothing")
    return f"must be text, not {written}{': put it in quotes' if is_scalar else ''}"


def _choice(context: Mapping[str, Any], written: str) -> str:
    return f"must be {str(context['expected']).replace(chr(39), '')}, not {written}"


_number = _simply("a number")
_flag = _simply("true or false")
_mapping = _simply("a mapping of keys and values")
_list = _simply("a list")

_WORDS: Mapping[str, _Say] = {
    "int_type": _whole,
    "int_parsing": _whole,
    "int_parsing_size": _whole,
    "int_from_float": _whole,
    "float_type": _number,
    "float_parsing": _number,
    "finite_number": _simply("a number with an end"),
    "bool_type": _flag,
    "bool_parsing": _flag,
    "string_type": _text,
    "bytes_type": _text,
    "path_type": _text,
    "literal_error": _choice,
    "enum": _choice,
    "model_type": _mapping,
    "model_attributes_type": _mapping,
    "dict_type": _mapping,
    "mapping_type": _mapping,
    "is_instance_of": _mapping,
    "tuple_type": _list,
    "list_type": _list,
    "set_type": _list,
    "frozen_set_type": _list,
    "greater_than": _bound("more than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
    "too_short": _length("at least", "min_length"),
    "too_long": _length("at most", "max_length"),
    "string_too_short": _characters("at least", "min_length"),
    "string_too_long": _characters("at most", "max_length"),
    "string_pattern_mismatch": lambda context, written: (
        f"must be text like {context['pattern']}, not {written}"
    ),
}


def _words(detail: ErrorDetails, written: str) -> str:
    message, context = detail["msg"], detail.get("ctx", {})
    own = context.get("error")
    if isinstance(own, Exception):
        return str(own)
    say = _WORDS.get(detail["type"])
    if say is not None:
        return say(context, written)
    if message.startswith("Input should"):
        return f"{message.replace('Input should', 'must')}, not {written}"
    # A kind of error that a processor's author made, and chose the words for.
    return message
