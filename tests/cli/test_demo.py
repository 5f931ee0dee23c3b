"""`demo`: a newcomer's first minute, and that no patient data is in the log of it."""

import json
import re
from pathlib import Path
from typing import Any

from PIL import Image

from dicom_adapter.cli.demo import _share
from dicom_adapter.phantom import PhantomSeries, write_series
from dicom_adapter.v1 import jobs_pb2
from tests.cli.shell import Answer, as_process, serving
from tests.support import CONFIG, make_instance, send

NAME = "ZWETSCHGENBAUM^ADALBERT"
IDENTIFIER = "PID-8472-Q"


def outputs(answer: Answer, folder: Path) -> list[Path]:
    """Return the files that a demo names."""
    found, parent = [], folder
    for line in answer.out.splitlines():
        if line.startswith("  in "):
            parent = folder / line.removeprefix("  in ")
        elif named := re.fullmatch(r"    (\S+) +[\d.]+ .?i?B", line):
            found.append(parent / named[1])
    return found


def test_demo_twice(tmp_path: Path) -> None:
    """It exits 0 and names what it made, which exists; in the same folder it works again."""
    first = as_process("demo", "--data", "demo", folder=tmp_path)
    assert (first.code, first.err) == (0, "")
    assert "$ dicom-adapter send demo/study --to ADAPTER@localhost:" in first.out
    assert "40 of 40 instances sent" in first.out
    assert len(re.findall(r": finished, from 40 instances", first.out)) == 2
    second = as_process("demo", "--data", "demo", folder=tmp_path)
    assert (second.code, second.err) == (0, "")
    made = [set(outputs(answer, tmp_path)) for answer in (first, second)]
    for files in made:
        assert {path.suffix for path in files} == {".json", ".png", ".dcm", ".gz"}
        assert all(path.stat().st_size for path in files)
    assert not made[0] & made[1]
    (montage,) = [path for path in made[1] if path.suffix == ".png"]
    with Image.open(montage) as image:
        assert min(image.size) > 500
        assert image.convert("L").getextrema()[1] == 255
    log = (tmp_path / "demo" / "serve.log").read_text("utf-8")
    assert {json.loads(line)["level"] for line in log.splitlines()} == {"info"}


def test_share() -> None:
    """A job's bar follows its steps, and is full once it has finished, also without any."""
    half = jobs_pb2.Job(steps=[jobs_pb2.JobStep(progress=1), jobs_pb2.JobStep()])
    assert _share(half) == 0.5
    assert _share(jobs_pb2.Job(state=jobs_pb2.JOB_STATE_PROCESSING)) == 0
    assert _share(jobs_pb2.Job(state=jobs_pb2.JOB_STATE_FINISHED)) == 1


def test_demo_that_cannot_start(tmp_path: Path) -> None:
    """If its adapter does not start, the reason of its log is told in one line."""
    answer = as_process("demo", "--data", "x" * 100, folder=tmp_path)
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert answer.err.startswith("dicom-adapter: the adapter did not start: ")
    assert "too long for a Unix socket" in answer.err


def test_demo_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A folder that cannot be made is one line."""
    (tmp_path / "file").write_text("", "utf-8")
    answer = as_process("demo", "--data", "file/demo", folder=tmp_path)
    assert answer.code == 1
    assert answer.err == f"dicom-adapter: {tmp_path}/file/demo: Not a directory\n"


def test_no_patient_data_in_the_log(tmp_path: Path) -> None:
    """Whatever happens to a patient's images, at the finest level, the log never names them."""
    text = CONFIG.replace("TEST: {", "NAMES: {settings: {pipeline-copy: copy, group_by: "
                          "PatientName, timeout: 5}}\n  TEST: {")  # fmt: skip
    study = tmp_path / "study"
    write_series(study, PhantomSeries(slices=3))
    with serving(tmp_path, text + "log: {format: json, level: debug}\n") as service:
        own: dict[str, Any] = {
            "PatientName": NAME,
            "PatientID": IDENTIFIER,
            "study": "1.2.840.987654.1",
        }
        for title in ("TEST", "NAMES"):
            assert send(service.dicom[-1], [make_instance(**own)], called=title) == [0]
        # Refused, quarantined, and rejected: the ways that are rarely gone.
        assert send(service.dicom[-1], [make_instance(**{**own, "series": None})]) != [0]
        odd = make_instance(**{**own, "PatientName": f"{NAME}\x07"})
        assert send(service.dicom[-1], [odd], called="NAMES") == [0]
        peer = f"localhost:{service.dicom[-1]}"
        assert as_process("send", "study", "--to", f"WRONG@{peer}", folder=tmp_path).code == 1
        assert as_process("send", "study", "--to", f"TEST@{peer}", folder=tmp_path).code == 0
        for words in (["groups", "complete", "--all"], ["groups", "list"], ["status"]):
            assert as_process(*words, folder=tmp_path).code == 0
        service.end()
        lines = service.logged()
    actions = {line["action"] for line in lines}
    assert actions >= {"association.accepted", "association.rejected", "instance.refused"}
    for secret in (NAME, "ZWETSCHGENBAUM", IDENTIFIER, "1.2.840.987654.1"):
        assert secret not in service.log
