from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_adapter.config.document import dotted, parse, read
from dicom_adapter.errors import ConfigError


def problem(text: str) -> str:
    """Gives the one mistake of a text that is no configuration."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    return str(caught.value)


def test_every_key_has_its_line() -> None:
    """The line of each key and list item is known; what is not there has its parent's."""
    document = parse("a:\n  b: 1\n  c:\n    - x\n    - y\nd: {e: 2,\n  f: 3}\n", "f")
    assert document.data == {"a": {"b": 1, "c": ["x", "y"]}, "d": {"e": 2, "f": 3}}
    assert document.line(("a", "b")) == 2
    assert document.line(("a", "c", 1)) == 5
    assert document.line(("d", "f")) == 7
    assert document.line(("d", "none", "at all")) == 6
    assert document.line(()) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("true", True), ("FALSE", False), ("~", None), ("null", None), ("", None)],
        *[("12", 12), ("-3", -3), ("007", 7), ("0x1F", 31), ("0o17", 15), ("1.5", 1.5)],
        *[("1e3", 1000.0), (".5", 0.5), ("-.inf", float("-inf"))],
        *[("yes", "yes"), ("NO", "NO"), ("on", "on"), ("1:30", "1:30"), ("1_000", "1_000")],
        *[("2026-01-01", "2026-01-01"), ("2026-13-45", "2026-13-45"), ("=", "=")],
        *[("'12'", "12"), ("!!str 12", "12"), ("!!int '12'", 12), ("9" * 61, "9" * 61)],
    ],
    ids=repr,
)
def test_scalars(text: str, value: object) -> None:
    """Scalars have the types of YAML 1.2: dates, times of day and yes and no are text."""
    document = parse(f"a: {text}", "f")
    assert document.data == {"a": value}
    assert type(document.data["a"]) is type(value)
    assert not document.mistakes


def test_not_a_number_is_read() -> None:
    """A float that is none is left to whoever checks the values."""
    value = parse("a: .NaN", "f").data["a"]
    assert value != value  # noqa: PLR0124 - this is how a NaN shows


@pytest.mark.parametrize("key", ["NO", "ON", "007", "1234", "2026-01-01", "true", "~", "1.50"])
def test_keys_are_the_text_that_was_written(key: str) -> None:
    """YAML would make a flag or number of these AE titles."""
    assert parse(f"{key}: 1", "f").data == {key: 1}


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", "---\n", "~", "\ufeff".encode().decode()]
)
def test_nothing_is_an_empty_mapping(text: str, tmp_path: Path) -> None:
    """An empty file is a valid one."""
    file = tmp_path / "f"
    file.write_text(text, "utf-8")
    assert read(file, "f").data == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n---\nb: 2", "f:2: file: must be a single document, and another one begins here"),
        ("a:\n\tb: 1", "f:2: file: is not valid YAML: indent by spaces, not by TAB"),
        ("a: \x01", "f:1: file: must not hold the control character U+0001"),
        ("- 1", "f:1: file: must be a mapping of sections such as dicom:, not a list"),
        ("\ntext", "f:2: file: must be a mapping of sections such as dicom:, not 'text'"),
        ("a: *b", "f:1: file: is not valid YAML: found undefined alias 'b'"),
        ("a: b: c", "f:1: file: is not valid YAML: mapping values are not allowed here"),
        ("[" * 5000, "f:1: file: is nested deeper than 50 levels"),
        ("a: " + "[" * 60 + "]" * 60, "f:1: file: is nested deeper than 50 levels"),
    ],
)
def test_what_is_no_configuration_at_all(text: str, said: str) -> None:
    """A file that cannot be understood has one mistake, where the fault is."""
    assert problem(text) == said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('settings:\n  "priority: "normal"\n  timeout: 60\n', 2),
        ('settings:\n  timeout: 60\n  "priority: "normal"\n  x: y\n', 3),
        ('{\n"settings": {\n"timeout": 5,\n"priority: "normal",\n"x": "y"}}', 4),
        ('settings:\n  a: "b\n  c: d\n', 2),
    ],
)
def test_a_missing_quotation_mark(text: str, line: int) -> None:
    """A quotation mark without its other is named with its line."""
    said = problem(text)
    assert said.startswith(f"f:{line}: file: is not valid YAML: ")
    assert said.endswith("; a quotation mark is missing on this line")


def test_a_quotation_mark_missing_on_an_earlier_line() -> None:
    """Where the text fails later than the fault, both lines are named."""
    said = problem('priority: "normal\ntimeout: "60"\n')
    assert said.startswith("f:2: file: is not valid YAML: ")
    assert said.endswith("; a quotation mark is missing on line 1")


def test_every_duplicate_key_is_named() -> None:
    """A key that is given twice is a mistake at its second line, which names the first."""
    document = parse("a: 1\nb:\n  c: 1\n  c: 2\na: 3\na: 4\n", "f")
    assert sorted(map(str, document.mistakes)) == [
        "f:4: b.c: is given twice: it stands on line 3 already",
        "f:5: a: is given twice: it stands on line 1 already",
        "f:6: a: is given twice: it stands on line 1 already",
    ]
    assert document.data == {"a": 1, "b": {"c": 1}}


def test_aliases_and_merge_keys() -> None:
    """Anchors work; a mapping's own keys win over merged ones, and earlier ones over later."""
    document = parse(
        "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz:\n  <<: [*x, *y]\n  a: 0\nw: *x\n", "f"
    )
    assert document.data["z"] == {"a": 0, "b": 2, "c": 4}
    assert document.data["w"] == {"a": 1, "b": 2}
    assert document.line(("z", "c")) == 2
    assert not document.mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x [*x]", "f:1: a[0]: must not contain itself by an alias"),
        ("a: &x {b: *x}", "f:1: a.b: must not contain itself by an alias"),
        ("a: &x {<<: *x}", "f:1: a: must merge ('<<') a mapping, and none that contains it"),
        ("a: {<<: 1}", "f:1: a: must merge ('<<') a mapping, and none that contains it"),
        ("a: {? [b] : 1}", "f:1: a: must have plain text as its keys"),
        ("a: !!python/name:os.system x", "f:1: a: must be plain YAML, without the tag "),
        ("a: !!python/object/apply:os.system [ls]", "f:1: a: must be plain YAML, without the tag "),
        ("a: !!binary aGVsbG8=", "f:1: a: must be plain YAML, without the tag '!!binary'"),
        ("a: !!set {b}", "f:1: a: must be plain YAML, without the tag '!!set'"),
        ("a: !!int x", "f:1: a: must be plain YAML, without the tag '!!int'"),
        ("a: !mine x", "f:1: a: must be plain YAML, without the tag '!mine'"),
    ],
)
def test_what_plain_data_has_not(text: str, said: str) -> None:
    """Loops, odd keys and tags are refused, and nothing is ever run."""
    (mistake,) = parse(text, "f").mistakes
    assert str(mistake).startswith(said)


def test_aliases_do_not_fill_the_memory() -> None:
    """A small file that aliases blow up to millions of values is refused."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "holds more than 20000 values, with its aliases" in problem("\n".join(levels))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder, foreign bytes and far too many have one clear mistake each."""
    (tmp_path / "latin").write_bytes(b"a: 1\nb: \xe9\n")
    (tmp_path / "large").write_bytes(b"#" * 300_000)
    said: dict[str, str] = {}
    for name in ("missing", ".", "latin", "large", "nul\0"):
        with pytest.raises(ConfigError) as caught:
            read(tmp_path / name, "f")
        said[name] = str(caught.value)
    assert said["missing"] == "f:1: file: cannot be read: No such file or directory"
    assert said["."] == "f:1: file: cannot be read: Is a directory"
    assert said["latin"] == "f:2: file: must be text in UTF-8, and is not here"
    assert said["large"] == "f:1: file: is no configuration: it is larger than 256KiB"
    assert said["nul\0"].startswith("f:1: file: cannot be read: ")


def test_keys_are_written_on_one_line() -> None:
    """A key with spaces at its ends or control characters is quoted in a message."""
    assert dotted(("a", "b", 2, "c")) == "a.b[2].c"
    assert dotted(("a", "b ", "\n", "")) == r"a.'b '.'\n'.''"
    assert dotted(()) == "file"


_SIGNS = [
    *"ab1:{}[],'\"!|>#%@.\t \n\0",
    "\n  ",
    "- ",
    "? ",
    "&x ",
    "*x",
    "<<: ",
    "!!",
    "---\n",
    "...",
]
_PIECES = st.lists(st.sampled_from(_SIGNS)).map("".join)


@given(st.one_of(_PIECES, st.text()))
def test_any_text_is_data_or_a_mistake(text: str) -> None:
    """No text whatever makes the reader fail in another way than by a mistake."""
    try:
        parse(text, "f")
    except ConfigError as error:
        assert len(error.mistakes) == 1  # noqa: PT017 - most texts raise nothing
        assert "\n" not in str(error)  # noqa: PT017
