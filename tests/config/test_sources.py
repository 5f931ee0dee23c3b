"""Sources that are asked for studies: what their files have to hold."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

Mistakes = Callable[[str], list[str]]
REST = "pipelines: {lung: {command: [x]}}\nae_titles: {CHEST: {settings: {pipeline-a: lung}}}"
WEB = "\nsources: {{WEB: {{url: 'http://pacs.example', {}}}}}\n"


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        ("user: ann, password: none", "password: cannot be read: No such file or directory: "),
        ("user: ann, password: empty", "password: must hold a password alone, on one line: "),
        ("user: ann, password: two", "password: must hold a password alone, on one line: "),
        ("user: 5, password: plain", "user: must be text, not 5"),
        ("user: ann", "password: is missing beside user"),
        ("password: plain", "user: is missing beside password"),
    ],
)
def test_one_mistake_is_told_once(
    mistakes: Mistakes, tmp_path: Path, keys: str, mistake: str
) -> None:
    """What is written, and cannot be read, is not told to be missing as well."""
    for name, text in (("empty", ""), ("two", "sesame\nopen\n"), ("plain", "sesame\n")):
        (tmp_path / name).write_text(text)
    (told,) = mistakes(REST + WEB.format(keys))
    assert re.search(rf"\d: sources\.WEB\.{mistake}", told), told
    assert "sesame" not in told
