import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import dcmread

from dicom_adapter.pipelines import series_report
from dicom_adapter.pipelines.manifest import load_job

from .conftest import SMALL, Bench

PIPELINES = {"series_report": "report.json", "nifti": "nifti.json"}
EXAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"


def run(module: str, *words: Path | str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start the pipeline as the platform does, in an environment without anything of ours."""
    clean = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        [sys.executable, "-m", f"dicom_adapter.pipelines.{module}", *map(str, words)],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def write_manifest(path: Path, inputs: list[list[str]]) -> None:
    """Write a job's manifest with one input for each list of files."""
    series: list[dict[str, Any]] = [
        {
            "study": "1",
            "series": "1",
            "range": "all",
            "files": [{"file": file, "sop_instance_uid": "1", "sha256": ""} for file in files],
        }
        for files in inputs
    ]
    job = {"job": {"id": "7", "name": "seven"}, "pipeline": "p", "inputs": series}
    path.write_text(json.dumps(job))


def examples() -> list[Path]:
    """The example files in pydicom's package that are instances of a study."""
    found = []
    for path in sorted(EXAMPLES.rglob("*")):
        if not path.is_file() or path.read_bytes()[128:132] != b"DICM":
            continue
        header = dcmread(path, stop_before_pixels=True)
        if all(uid in header for uid in ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID")):
            found.append(path)
    return found


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("module", PIPELINES)
def test_every_example_of_pydicom_gives_a_report(tmp_path: Path, module: str) -> None:
    """Whatever instance comes, the pipeline ends well, reports on it and stays silent about it."""
    files = examples()
    assert len(files) > 100
    folder = tmp_path / "in"
    folder.mkdir()
    for number, path in enumerate(files):
        (folder / f"{number}.dcm").write_bytes(path.read_bytes())
    write_manifest(tmp_path / "job.json", [[f"{number}.dcm"] for number in range(len(files))])
    result = run(module, folder, tmp_path / "out", DICOM_ADAPTER_JOB=str(tmp_path / "job.json"))
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads((tmp_path / "out" / PIPELINES[module]).read_bytes())
    assert len(report["series"]) == len(files)
    assert len(result.stdout.splitlines()) == len(files)
    for path in files:
        header = dcmread(path, stop_before_pixels=True)
        for value in (header.StudyInstanceUID, str(header.get("PatientName", ""))):
            assert len(value) < 6 or value not in result.stdout


@pytest.mark.parametrize("module", PIPELINES)
def test_the_environment_stands_in_for_the_words(bench: Bench, module: str) -> None:
    """INPUT and OUTPUT may come from the environment alone."""
    bench.write(SMALL)
    result = run(
        module, DICOM_ADAPTER_INPUT=str(bench.input), DICOM_ADAPTER_OUTPUT=str(bench.output)
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert (bench.output / PIPELINES[module]).is_file()


@pytest.mark.parametrize("module", PIPELINES)
def test_a_missing_input_is_one_clear_line(tmp_path: Path, module: str) -> None:
    """A run that cannot begin says why in one line and exits 1."""
    result = run(module, tmp_path / "none", tmp_path / "out")
    assert result.returncode == 1
    assert result.stderr == "error: the input folder does not exist\n"


def test_missing_words_are_told(tmp_path: Path) -> None:
    """Without INPUT and OUTPUT the command says how it is used."""
    result = run("nifti", tmp_path)
    assert result.returncode == 2
    assert "OUTPUT" in result.stderr


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not what a manifest should be"),
        ("[]", "not what a manifest should be"),
        ('{"job": {"id": "1"}, "inputs": [{}]}', "not what a manifest should be"),
        ('{"job": {"id": "1"}, "inputs": [{"files": [{"file": "x"}]}]}', "not there"),
        ('{"job": {"id": "1"}, "inputs": [{"files": [{"file": "../x"}]}]}', "outside"),
        ('{"job": {"id": "1"}, "inputs": [{"files": [{"file": "/x"}]}]}', "outside"),
    ],
)
def test_a_wrong_manifest_is_one_clear_line(
    bench: Bench, capfd: pytest.CaptureFixture[str], text: str, problem: str
) -> None:
    """A manifest that is broken or leads out of INPUT ends the run at once."""
    job = bench.folder / "job.json"
    job.write_text(text)
    bench.monkeypatch.setenv("DICOM_ADAPTER_JOB", str(job))
    assert series_report.main([str(bench.input), str(bench.output)]) == 1
    error = capfd.readouterr().err
    assert problem in error
    assert error.count("\n") == 1


def test_the_manifest_decides_what_is_read_and_in_which_order(bench: Bench) -> None:
    """Only the manifest's files are read, as the series and in the order that it has them."""
    paths = [path.relative_to(bench.input).as_posix() for path in bench.write(SMALL)]
    job = bench.folder / "job.json"
    write_manifest(job, [[paths[5]], [paths[2], paths[1]]])
    series = load_job(bench.input, {"DICOM_ADAPTER_JOB": str(job)}).series
    assert [[path.name for path in files] for files in series] == [
        ["0006.dcm"],
        ["0003.dcm", "0002.dcm"],
    ]


def test_by_hand_the_folder_is_grouped_by_series(bench: Bench) -> None:
    """Without a manifest the folder's series are found, and what is not DICOM is passed over."""
    bench.write(SMALL, "a")
    bench.write(SMALL, "b")
    (bench.input / "notes.txt").write_text("not DICOM")
    assert [len(series) for series in load_job(bench.input, {}).series] == [8, 8]


def test_an_empty_folder_is_no_failure(bench: Bench) -> None:
    """Nothing to do is done at once."""
    assert bench.report() == []


@pytest.mark.parametrize(
    ("module", "steps"),
    [("series_report", ["read", "measure", "render"]), ("nifti", ["read", "convert"])],
)
def test_progress_is_told_step_by_step(bench: Bench, module: str, steps: list[str]) -> None:
    """Each step grows to 1, one step after the other."""
    bench.write(SMALL)
    progress = bench.folder / "progress"
    run(module, bench.input, bench.output, DICOM_ADAPTER_PROGRESS=str(progress))
    lines = [json.loads(line) for line in progress.read_text().splitlines()]
    assert list(dict.fromkeys(line["step"] for line in lines)) == steps
    for step in steps:
        values = [line["progress"] for line in lines if line["step"] == step]
        assert values == sorted(values)
        assert values[-1] == 1


@pytest.mark.parametrize("module", PIPELINES)
def test_the_log_holds_no_patient_data_and_no_uids(bench: Bench, module: str) -> None:
    """Neither a good nor a broken value of the header reaches the job's log."""
    for path in bench.write(SMALL):
        bench.edit(path, lambda image: image.add_new("SliceThickness", "LO", "Phantom^Secret"))
    result = run(module, bench.input, bench.output)
    log = result.stdout + result.stderr
    assert "series 1 (CT)" in log
    for secret in ("Phantom", "Secret", "PHANTOM", "1.2.826"):
        assert secret not in log


def test_a_full_disk_is_one_clear_line(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    """An output that cannot be written is a failure of the run, in one line."""
    bench.write(SMALL)
    bench.output.write_text("a file where the folder should be")
    assert series_report.main([str(bench.input), str(bench.output)]) == 1
    error = capfd.readouterr().err
    assert error == "error: a file could not be read or written: File exists\n"
