"""Every configuration in config/ is valid as it is, and runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pydicom import Dataset, dcmread

from dicom_adapter.cli import main
from dicom_adapter.config import Settings, Source, load
from dicom_adapter.phantom import PhantomSeries, write_series
from dicom_adapter.processor.catalogue import Catalogue
from tests.platform.images import Images
from tests.processors.tools import shipped
from tests.support import SUCCESS, ManualClock, Running, association, running, send

CONFIG = Path(__file__).parents[2] / "config"
FILES = sorted(CONFIG.glob("*.yaml"))
EXAMPLES = [
    pytest.param(file, id=file.stem, marks=[pytest.mark.podman] * (file.stem == "container"))
    for file in FILES
]
SMALL = PhantomSeries(slices=3, rows=32, columns=32, slice_spacing=50.0)

#: The jobs that one study at each AE title becomes, by AE title and pipeline.
JOBS = {
    "minimal": [("ADAPTER", "series-report")],
    "cache": [("CACHE", "report")],
    "container": [("SEGMENT", "segment")],
    "hospital": [
        ("CHEST", "nifti"),
        ("CHEST", "report"),
        ("CT_STROKE", "report"),
        ("RESEARCH", "volumes"),
    ],
    "scenario-1": [("CHEST", "breast"), ("CHEST", "heart"), ("CHEST", "lung")],
    "scenario-2": [("BREAST", "breast")],
}


def read(file: Path) -> Settings:
    """Return the settings of a shipped file, exactly as it is."""
    return load(file, Catalogue())


def study(folder: Path) -> list[Dataset]:
    """Return the images of a small CT study."""
    return [dcmread(path) for path in write_series(folder / "study", replace(SMALL))]


def ports(adapter: Running) -> list[int]:
    """Return the ports that the AE titles listen on, in the order of the configuration."""
    return [int(address.rpartition(":")[2]) for address in adapter.ready.dicom]


def with_images(images: Images) -> str:
    """Return what has a service run the images that are made for tests."""
    platform = {"container_runtime": "podman", "container_options": list(images.options)}
    return yaml.safe_dump({"platform": platform})


def test_every_example_is_run_here() -> None:
    """No configuration is shipped that no test runs."""
    assert [file.stem for file in FILES] == sorted(JOBS)


@pytest.mark.parametrize("file", EXAMPLES)
def test_an_example_is_valid_as_it_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shipped configuration has no mistake, and every AE title of it has something to do."""
    settings = read(file)
    assert settings.ae_titles
    assert settings.storage.path == CONFIG / "data"
    assert main(["check", "--config", str(file)]) == 0
    assert capsys.readouterr().err == ""
    assert not (CONFIG / "data").exists()


@pytest.mark.parametrize("file", EXAMPLES)
def test_an_example_runs(file: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A study at each AE title becomes finished jobs of the pipelines that the file names."""
    clock = ManualClock()
    settings = read(file)
    text = shipped(file)
    if any(pipeline.image for pipeline in settings.pipelines.values()):
        text += with_images(request.getfixturevalue("images"))
    senders = (s.ae_title for s in settings.sources.values() if isinstance(s, Source))
    calling = next(senders, "SCU")
    images = study(tmp_path)
    with running(tmp_path, text, clock) as adapter:
        listening = ports(adapter)
        own = [title.title for title in settings.ae_titles.values() if title.port]
        for name in settings.ae_titles:
            port = listening[-1] if name in own else listening[0]
            assert send(port, images, called=name, calling=calling) == [SUCCESS] * 3
        adapter.grouped(3 * len(settings.ae_titles))
        clock.advance(max(group_timeout(settings, name) for name in settings.ae_titles))
        jobs = adapter.ended_jobs(len(JOBS[file.stem]))
        assert adapter.groups() == []
    assert sorted((job.ae_title, job.pipeline) for job in jobs) == JOBS[file.stem]
    assert [(job.state, job.error, job.instances) for job in jobs] == [("finished", "", 3)] * len(
        jobs
    )
    assert all(job.outputs for job in jobs)
    assert all(step.state == "done" for job in jobs for step in job.steps)


def group_timeout(settings: Settings, name: str) -> float:
    """Return how long an AE title waits for more."""
    timeout: float = settings.ae_titles[name].settings.model_dump()["timeout"]
    return timeout


def test_the_cache_keeps_what_its_job_was_made_of(tmp_path: Path) -> None:
    """And another job is composed of it, by the words of the file's own head."""
    clock, images = ManualClock(), study(tmp_path)
    with running(tmp_path, shipped(CONFIG / "cache.yaml"), clock) as adapter:
        assert send(adapter.port, images, called="CACHE") == [SUCCESS] * 3
        adapter.grouped(3)
        clock.advance(60)
        adapter.ended_jobs(1)
        file = str(tmp_path / "dicom-adapter.yaml")
        uid = images[0].SeriesInstanceUID
        assert main(["compose", "nifti", "--series", uid, "--config", file]) == 0
        jobs = adapter.ended_jobs(2)
    assert [(job.pipeline, job.state, job.instances) for job in jobs] == [
        ("report", "finished", 3),
        ("nifti", "finished", 3),
    ]


def test_the_hospital_lets_nobody_else_in(tmp_path: Path) -> None:
    """With `reject_unknown_sources` a caller that is no source is rejected, and stores nothing."""
    with (
        running(tmp_path, shipped(CONFIG / "hospital.yaml"), ManualClock()) as adapter,
        association(adapter.port, called="CHEST", calling="STRANGER") as opened,
    ):
        assert opened.is_rejected
        (told,) = adapter.service.status().rejections
    assert (told.calling_ae_title, told.called_ae_title) == ("STRANGER", "CHEST")


def test_the_hospital_s_settings_are_what_they_say() -> None:
    """The hospital's AE titles differ in priority, grouping, timeout, port and SOP classes."""
    settings = read(CONFIG / "hospital.yaml")
    chosen = {
        name: (title.settings.model_dump(include={"priority", "group_by", "timeout", "max_wait"}))
        for name, title in settings.ae_titles.items()
    }
    assert chosen == {
        "CT_STROKE": {
            "priority": "immediate",
            "group_by": "study",
            "timeout": 10.0,
            "max_wait": 300.0,
        },
        "CHEST": {
            "priority": "normal",
            "group_by": "patient",
            "timeout": 60.0,
            "max_wait": 3600.0,
        },
        "RESEARCH": {"priority": "lower", "group_by": "series", "timeout": 5.0, "max_wait": None},
    }
