"""YAML text as plain data, with the line of every key.

The types of scalars are those of YAML 1.2: only true and false are flags, dates stay text, and the
keys of mappings are always the text that was written, so that an AE title may be NO, ON or 007.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from dicom_adapter.config import units
from dicom_adapter.errors import ConfigError, Mistake

KeyPath: TypeAlias = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""

WHOLE_FILE = "file"
"""Stands in place of the key where a mistake is the whole file's."""

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"

_LARGEST_FILE = 256 * 1024
# An alias of an alias of an alias ... could make a small file fill the memory.
_MOST_VALUES = 20_000
_DEEPEST = 50

_NULL = re.compile(r"(~|null|Null|NULL|)\Z")
_BOOL = re.compile(r"(true|True|TRUE|false|False|FALSE)\Z")
# Longer runs of digits are no number that a setting takes: they stay text.
_INT = re.compile(r"([-+]?[0-9]{1,60}|0x[0-9a-fA-F]{1,15}|0o[0-7]{1,20})\Z")
_FLOAT = re.compile(
    r"([-+]?(\.[0-9]{1,60}|[0-9]{1,60}(\.[0-9]{0,60})?)([eE][-+]?[0-9]{1,5})?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"
)


class _Composer(Reader, Scanner, Parser, Composer, BaseResolver):
    """Composes nodes, whose scalars have the types of YAML 1.2, and merge keys."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        for part in (Scanner, Parser, Composer, BaseResolver):
            part.__init__(self)
        # By the first character, as PyYAML wants them.
        self.yaml_implicit_resolvers = {
            "<": [(_MERGE, re.compile("<<$"))],
            **{first: [(f"{_TAG}null", _NULL)] for first in ("", "~", "n", "N")},
            **{first: [(f"{_TAG}bool", _BOOL)] for first in "tTfF"},
            **{
                first: [(f"{_TAG}int", _INT), (f"{_TAG}float", _FLOAT)] for first in "0123456789+-."
            },
        }


@dataclass
class Document:
    """What a file says: plain data, and where each part of it stands."""

    file: str
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    texts: dict[KeyPath, str] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def line(self, path: KeyPath) -> int:
        """Gives the line of a key, or of the nearest key around it."""
        return self.lines.get(self.known(path), 1)

    def known(self, path: KeyPath) -> KeyPath:
        """Gives the longest part of a path that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return path

    def mistake(self, path: KeyPath, problem: str) -> Mistake:
        """Makes a mistake of a problem with a key."""
        # A stranger's words may have several lines; a mistake has one.
        return Mistake(self.file, self.line(path), dotted(path), " ".join(problem.splitlines()))


def dotted(path: KeyPath) -> str:
    """Writes a path as a person would: pipelines.lung.command[2]."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isprintable() and part == part.strip() != "":
            text += f".{part}"
        else:
            # One line a mistake, whatever stands in a key, and with its spaces to be seen.
            text += f".{part!a}"
    return text.removeprefix(".") or WHOLE_FILE


def read(file: Path, shown: str, origin: str = "") -> Document:
    """Reads a file; raises ConfigError if it cannot be read or is no YAML mapping."""
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            (Mistake(shown, 1, WHOLE_FILE, f"cannot be read{origin}: {reason}"),)
        ) from error
    if len(content) > _LARGEST_FILE:
        problem = f"is no configuration: it is larger than {units.format_size(_LARGEST_FILE)}"
        raise ConfigError((Mistake(shown, 1, WHOLE_FILE, problem),))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            (Mistake(shown, line, WHOLE_FILE, "must be text in UTF-8, and is not here"),)
        ) from error
    return parse(text, shown)


def parse(text: str, file: str) -> Document:
    """Makes plain data of YAML text; duplicate keys and foreign tags are among its mistakes."""
    document = Document(file)
    try:
        node = _Composer(text).get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"must not hold the control character U+{int(error.character):04X}"
        raise ConfigError((Mistake(file, line, WHOLE_FILE, problem),)) from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError((_syntax_mistake(error, text, file),)) from error
    except RecursionError:
        raise ConfigError((_too_deep(file, 1),)) from None
    if node is None:
        return document
    data = _Walk(document).value(node, ())
    if data is None:
        return document
    if not isinstance(data, dict):
        raise ConfigError(
            (
                Mistake(
                    file,
                    node.start_mark.line + 1,
                    WHOLE_FILE,
                    f"must be a mapping of sections such as dicom:, not {units.show(data)}",
                ),
            )
        )
    document.data = data
    return document


def _too_deep(file: str, line: int) -> Mistake:
    return Mistake(file, line, WHOLE_FILE, f"is nested deeper than {_DEEPEST} levels")


def _syntax_mistake(error: yaml.MarkedYAMLError, text: str, file: str) -> Mistake:
    """Puts PyYAML's words where the fault is, and names a quotation mark that is missing."""
    first = error.context_mark.line if error.context_mark else None
    last = error.problem_mark.line if error.problem_mark else first or 0
    if first is None:
        first = last
    # These are noticed where the text ran out of hope, which may be many lines after the fault.
    late = re.fullmatch(r"while scanning a (simple key|.*quoted scalar)", error.context or "")
    line = first if late else last
    problem = f"is not valid YAML: {error.problem or 'it cannot be understood'}"
    if error.context_mark:
        problem += f" ({error.context} of line {first + 1})"
    if "another document" in problem:
        problem = "must be a single document, and another one begins here"
    if "'\\t'" in problem:
        problem = "is not valid YAML: indent by spaces, not by TAB"
    return Mistake(file, line + 1, WHOLE_FILE, problem + _missing_quote(text, first, line))


def _missing_quote(text: str, first: int, last: int) -> str:
    """Says on which of some lines a quotation mark is without its other."""
    lines = text.splitlines()
    for number in range(min(last, len(lines) - 1), first - 1, -1):
        if lines[number].count('"') % 2:
            where = "on this line" if number == last else f"on line {number + 1}"
            return f"; a quotation mark is missing {where}"
    return ""


class _Walk:
    """Turns nodes into plain data, and notes where each part stands."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._open: list[Node] = []
        self._count = 0

    def value(self, node: Node, path: KeyPath) -> Any:  # noqa: ANN401 - whatever stands in the file
        self._count += 1
        line = node.start_mark.line + 1
        if self._count > _MOST_VALUES:
            problem = f"holds more than {_MOST_VALUES} values, with its aliases"
            raise ConfigError((Mistake(self._document.file, line, WHOLE_FILE, problem),))
        if len(path) > _DEEPEST:
            raise ConfigError((_too_deep(self._document.file, line),))
        if any(node is outer for outer in self._open):
            self._blame(path, "must not contain itself by an alias")
            return None
        self._open.append(node)
        try:
            return self._content(node, path)
        finally:
            self._open.pop()

    def _content(self, node: Node, path: KeyPath) -> Any:  # noqa: ANN401 - whatever stands in the file
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            items = []
            for index, item in enumerate(node.value):
                self._document.lines[*path, index] = item.start_mark.line + 1
                items.append(self.value(item, (*path, index)))
            return items
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        return self._foreign_tag(node, path)

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:  # noqa: ANN401 - whatever stands in the file
        text: str = node.value
        self._document.texts[path] = text
        kind = node.tag.removeprefix(_TAG)
        if kind in ("str", "merge"):
            return text
        if kind == "null" and _NULL.match(text):
            return None
        if kind == "bool" and _BOOL.match(text):
            return text.lower() == "true"
        if kind == "int" and _INT.match(text):
            base = {"0x": 16, "0o": 8}.get(text[:2], 10)
            return int(text, base)
        if kind == "float" and _FLOAT.match(text):
            return float(re.sub(r"\.(?=[iInN])", "", text))
        return self._foreign_tag(node, path)

    def _foreign_tag(self, node: Node, path: KeyPath) -> None:
        tag = node.tag.replace(_TAG, "!!")
        self._blame(path, f"must be plain YAML, without the tag {units.show(tag)}")

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in self._pairs(node, path):
            # A merged key never replaces the mapping's own: those come first.
            if key.value not in data:
                self._document.lines[*path, key.value] = key.start_mark.line + 1
                data[key.value] = self.value(value, (*path, key.value))
        return data

    def _pairs(self, node: MappingNode, path: KeyPath) -> Iterator[tuple[ScalarNode, Node]]:
        """Yields the mapping's own keys, and then those that it merges."""
        seen: dict[str, int] = {}
        merged: list[Node] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                self._blame(path, "must have plain text as its keys")
            elif key.tag == _MERGE:
                merged += value.value if isinstance(value, SequenceNode) else [value]
            elif key.value in seen:
                problem = f"is given twice: it stands on line {seen[key.value]} already"
                name = dotted((*path, key.value))
                self._document.mistakes.append(Mistake(self._document.file, line, name, problem))
            else:
                seen[key.value] = line
                yield key, value
        for other in merged:
            yield from self._merged(other, path)

    def _merged(self, node: Node, path: KeyPath) -> Iterator[tuple[ScalarNode, Node]]:
        if not isinstance(node, MappingNode) or any(node is outer for outer in self._open):
            self._blame(path, "must merge ('<<') a mapping, and none that contains it")
            return
        self._open.append(node)
        try:
            yield from self._pairs(node, path)
        finally:
            self._open.pop()

    def _blame(self, path: KeyPath, problem: str) -> None:
        self._document.mistakes.append(self._document.mistake(path, problem))
