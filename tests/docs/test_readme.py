"""What the README shows is run, word for word."""

import re
from pathlib import Path

import pytest

from tests.support import SUCCESS, make_instance, running, send, settings_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")

PROCESSOR = """
dicom: {host: 127.0.0.1, port: 0}
grpc: {listen: null}
storage: {reserve: 0}
pipelines:
  look: {command: [ls, "{input}"]}
ae_titles:
  NIGHT: {processor: "night:OneByOne", settings: {pipeline: look}}
"""


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_processor_of_the_readme_makes_a_job_of_each_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README's processor runs as it is printed, in a dozen lines."""
    (text,) = blocks("python")
    code = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 12
    (tmp_path / "night.py").write_text(text, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with running(tmp_path, PROCESSOR) as adapter:
        instances = [make_instance(number=1), make_instance(number=2)]
        assert send(adapter.port, instances, called="NIGHT") == [SUCCESS] * 2
        jobs = adapter.ended_jobs(2)
    assert [(job.state, job.instances) for job in jobs] == [("finished", 1)] * 2


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_configuration_of_the_readme_is_valid(text: str, tmp_path: Path) -> None:
    """A reader may copy any of the README's YAML."""
    assert settings_of(tmp_path, text).ae_titles


def test_every_page_that_the_readme_names_is_there() -> None:
    """No link of the README or of docs/ leads nowhere."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    broken = [
        f"{page.name}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8"))
        if not (page.parent / link).exists()
    ]
    assert broken == []


def test_the_readme_s_commands_are_in_the_makefile() -> None:
    """Each `make` word of the README is a target."""
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    named = re.findall(r"\bmake ([a-z]+)", README)
    assert named
    assert set(named) <= {*targets}
