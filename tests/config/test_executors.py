"""Executors: where a pipeline runs is named once, and what makes no sense there is told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_adapter.config import Settings
from tests.certificates import Authority

Mistakes = Callable[[str], list[str]]
Configure = Callable[[str], Settings]

FAR = "executors: {far: {address: 'far.example:50051', token: far.token, ca: ca.pem}}\n"


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """A token, and who vouches for the other platform."""
    Authority(tmp_path)
    (tmp_path / "far.token").write_text("dat_far\n")


def test_a_pipeline_runs_where_it_says_or_where_the_platform_says(configured: Configure) -> None:
    """The pipeline's own executor goes before the platform's, which goes before this machine."""
    found = configured(
        FAR + "platform: {executor: far}\n"
        "pipelines: {a: {}, b: {executor: local, command: [x]}, c: {remote_pipeline: other}}"
    )
    assert [(each.executor, each.is_remote) for each in found.pipelines.values()] == [
        ("far", True),
        ("local", False),
        ("far", True),
    ]
    assert found.pipelines["c"].remote_pipeline == "other"
    far = found.executors["far"]
    assert far.token is not None
    assert (far.address, far.token.secret) == ("far.example:50051", "dat_far")
    assert "dat_far" not in repr(found)
    assert configured("pipelines: {a: {command: [x]}}").pipelines["a"].executor == "local"


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "pipelines: {a: {executor: fat}}": (
            "2: pipelines.a.executor: must be local or far, not 'fat'; did you mean 'far'?"
        ),
        "platform: {executor: fat}": (
            "2: platform.executor: must be local or far, not 'fat'; did you mean 'far'?"
        ),
        "pipelines: {a: {executor: far, command: [x]}}": (
            "2: pipelines.a.command: must not be here: the pipeline at the executor far has its "
            "own; take it out here"
        ),
        "pipelines: {a: {executor: far, image: x}}": (
            "2: pipelines.a.image: must not be here: the pipeline at the executor far has its "
            "own; take it out here"
        ),
        "pipelines: {a: {executor: far, silence_timeout: 1m}}": (
            "2: pipelines.a.silence_timeout: must not be here: the pipeline at the executor far "
            "has its own; take it out here"
        ),
        "platform: {executor: far}\npipelines: {a: {command: [x]}}": (
            "3: pipelines.a.command: must not be here: the pipeline at the executor far has its "
            "own; or say executor: local"
        ),
        "pipelines: {a: {command: [x], remote_pipeline: b}}": (
            "2: pipelines.a.remote_pipeline: is for an executor that is another platform, and "
            "this pipeline runs here"
        ),
        "pipelines: {a: {executor: local}}": (
            "2: pipelines.a.command: is missing, and must be given"
        ),
        "platform: {address: 'h:1'}\nae_titles: {A: {settings: {pipeline-a: a}}}": (
            "1: executors: must not be here: executors are configured where jobs are queued"
        ),
    }.items(),
)
def test_one_mistake_of_where_it_runs(mistakes: Mistakes, text: str, said: str) -> None:
    """Each is told with its line and what is allowed."""
    assert mistakes(FAR + text) == [said]


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "local: {address: 'h:1'}": "local: must not be called local, which is this machine",
        "far: {address: 'h:0'}": "far.address: must name the platform's real port, not 0",
        "far: {}": "far.address: is missing, and must be given",
        "far: {address: 'h:1', user: x}": (
            "far.user: is an unknown key; allowed are address, token, ca"
        ),
    }.items(),
)
def test_one_mistake_of_an_executor(mistakes: Mistakes, text: str, said: str) -> None:
    """Each is told with its line and what is allowed."""
    assert mistakes(f"executors: {{{text}}}") == [f"1: executors.{said}"]
