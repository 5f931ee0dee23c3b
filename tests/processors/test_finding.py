"""How a job processor is found, and what is said of one that cannot be used."""

import tomllib
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from dicom_adapter.errors import NotFoundError, StartError
from dicom_adapter.processor.catalogue import Catalogue
from processors.ae_title import AETitleProcessor
from tests.processors.tools import HEAD
from tests.support import command, make_instance, running, send

STRANGER = Path(__file__).parent / "stranger"
PIPELINES = """
pipelines:
  none: {command: ["true"], resources: {memory: 1}}
"""


def config(processor: str, settings: str = "{}") -> str:
    """Return a configuration with one AE title of a processor."""
    title = f"  TEST: {{processor: '{processor}', settings: {settings}}}\n"
    return f"{HEAD}{PIPELINES}ae_titles:\n{title}"


def install(folder: Path, *values: str) -> Path:
    """Install the stranger's package into a folder, as pip would note it, with its entry point."""
    project = tomllib.loads((STRANGER / "pyproject.toml").read_text("utf-8"))["project"]
    ((name, value),) = project["entry-points"]["dicom_adapter.processors"].items()
    for number, place in enumerate(values or [value]):
        info = folder / f"by_sender{number}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}-{number}\n"
            f"Version: {project['version']}\n",
            "utf-8",
        )
        points = f"[dicom_adapter.processors]\n{name} = {place}\n"
        (info / "entry_points.txt").write_text(points, "utf-8")
    (folder / "by_sender").symlink_to(STRANGER / "by_sender")
    return folder


def test_s86_an_installed_processor_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry point of an installed package makes its processor known by name everywhere."""
    site = install(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(site))
    file = tmp_path / "dicom-adapter.yaml"
    file.write_text(config("by_sender", "{pipeline: none}"), "utf-8")
    good = command("check", folder=tmp_path)
    file.write_text(config("by_sender", "{pipelin: none, quiet: soon}"), "utf-8")
    bad = command("check", folder=tmp_path)
    monkeypatch.syspath_prepend(str(site))
    with running(tmp_path, config("by_sender", "{pipeline: none, quiet: 0}")) as adapter:
        send(adapter.port, [make_instance()])
        (job,) = adapter.ended_jobs(1)
    assert (good.returncode, good.stderr) == (0, "")
    assert bad.returncode == 2
    assert sorted(line.split(": ")[1] for line in bad.stderr.splitlines()) == [
        "ae_titles.TEST.settings.pipelin",
        "ae_titles.TEST.settings.pipeline",
        "ae_titles.TEST.settings.quiet",
    ]
    assert job.name.startswith("test-scu-")


def test_two_packages_of_one_name_are_not_chosen_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two packages call their processors alike, the one that is meant must be named."""
    monkeypatch.syspath_prepend(str(install(tmp_path, "by_sender:BySender", "other:Other")))
    with pytest.raises(NotFoundError, match="by_sender:BySender, other:Other"):
        Catalogue().load("by_sender")


def test_s72_ours_is_an_entry_point_like_any_other() -> None:
    """The default processor is found by its entry point, and by module and class."""
    assert Catalogue().load("ae_title") is AETitleProcessor
    assert Catalogue().load("processors.ae_title:AETitleProcessor") is AETitleProcessor


HERE = "tests.processors.broken"
UNUSABLE = {
    "ae_titel": "no job processor is called 'ae_titel': use one of ae_title",
    "nowhere:Class": "there is no module 'nowhere': install it, or put its folder on PYTHONPATH",
    "tests.nowhere:Class": "there is no module 'tests.nowhere': install it, or",
    f"{HERE}:Missing": f"module '{HERE}' has no 'Missing'",
    f"{HERE}:": f"'{HERE}:' must be module:Class, with a name on both sides",
    ":Class": "':Class' must be module:Class, with a name on both sides",
    f"{HERE}:NOT_A_CLASS": "is not a subclass of dicom_adapter.JobProcessorBase",
    f"{HERE}:NoProcessor": "is not a subclass of dicom_adapter.JobProcessorBase",
    f"{HERE}:Abstract": f"'{HERE}:Abstract' does not implement handle_instance",
    f"{HERE}:Nameless": f"'{HERE}:Nameless' has no `name`: give the class a text of that name",
    f"{HERE}:Blank": f"'{HERE}:Blank' has no `name`: give the class a text of that name",
    f"{HERE}:WrongSettings": f"`Settings` of '{HERE}:WrongSettings' is not a pydantic model",
    "fails:Class": "module 'fails' cannot be imported: ZeroDivisionError: division by zero",
    "needs:Class": "module 'needs' cannot be imported: it needs the module 'not_installed'",
    "leaves:Class": "module 'leaves' cannot be imported: SystemExit: 3",
    "typo:Class": "module 'typo' cannot be imported: SyntaxError: ",
}


@pytest.mark.parametrize(("name", "said"), UNUSABLE.items(), ids=list(UNUSABLE))
def test_s86_what_is_no_processor_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    """What cannot be used as a processor is refused with the configuration, and says why."""
    modules = {
        "fails": "1 / 0",
        "needs": "import not_installed",
        "leaves": "raise SystemExit(3)",
        "typo": "def",
    }
    for module, text in modules.items():
        (tmp_path / f"{module}.py").write_text(f"{text}\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(NotFoundError) as raised:
        Catalogue().load(name)
    assert said in str(raised.value)


def test_check_tells_line_and_key_of_a_wrong_processor(tmp_path: Path) -> None:
    """`check` and `serve` say the same line of a processor that cannot be used, and exit 2."""
    (tmp_path / "wrong.py").write_text("1 / 0\n", "utf-8")
    file = tmp_path / "dicom-adapter.yaml"
    file.write_text(config("wrong:Class"), "utf-8")
    line = file.read_text("utf-8").splitlines().index("ae_titles:") + 2
    told = [command(word, folder=tmp_path) for word in ("check", "serve")]
    assert [answer.returncode for answer in told] == [2, 2]
    assert told[0].stderr == told[1].stderr
    assert told[0].stderr == (
        f"dicom-adapter.yaml:{line}: ae_titles.TEST.processor: module 'wrong' cannot be imported: "
        "ZeroDivisionError: division by zero\n"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [("CannotBeMade", "RuntimeError: no licence"), ("CannotStart", "OSError: no model file")],
)
def test_a_processor_that_cannot_start_keeps_the_service_from_starting(
    tmp_path: Path, name: str, said: str
) -> None:
    """A processor that raises before its first call is told in a line, and nothing runs."""
    with (
        pytest.raises(StartError, match=f"AE title TEST: its job processor 'un.*{said}$"),
        running(tmp_path, config(f"{HERE}:{name}")),
    ):
        pass


def test_s89_a_processor_that_fails_to_stop_keeps_nobody_from_stopping(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    """What `stop` raises is logged, without its message, and everything else is stopped."""
    with running(tmp_path, config(f"{HERE}:CannotStop")):
        pass
    (told,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert (told["action"], told["error"]) == ("processor.stop", "RuntimeError")
    assert "DOE" not in str(logs)
