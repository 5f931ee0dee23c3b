"""Series as scanners and networks really make them, sent by DCMTK, and what is chosen of them."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_adapter.phantom import CORONAL, SAGITTAL, PhantomSeries, write_series
from dicom_adapter.v1 import composition_pb2 as messages
from dicom_adapter.v1 import jobs_pb2
from tests.compose.conftest import Cache, part

SMALL = PhantomSeries(slices=8, rows=16, columns=16, pixel_spacing=(24, 24))


def sent(cache: Cache, folder: Path, series: PhantomSeries, uid: str) -> list[Path]:
    """Make a series of a UID and send it with storescu, in the order in which it is written."""
    files = write_series(folder / uid, replace(series, series_instance_uid=uid))
    before = cache.indexed()
    words = ["storescu", "-aec", "CACHE", "127.0.0.1", str(cache.here.port), *map(str, files)]
    subprocess.run(words, check=True, capture_output=True)
    cache.here.wait_for(lambda: cache.indexed() == before + len(files))
    return files


def chosen(cache: Cache, uid: str, wanted: str, order: str = "") -> messages.SelectedSeries:
    """Return what a range chooses of a series."""
    (one,) = cache.preview(part(uid, wanted, order)).items[0].series
    return one


def numbers(selected: messages.SelectedSeries) -> list[int]:
    """Return the numbers of what was chosen, in order."""
    return [one.instance_number for one in selected.instances]


@pytest.mark.dcmtk
def test_each_planted_defect_is_met(cache: Cache, tmp_path: Path) -> None:
    """Missing and doubled images, a localizer before them, two orientations, a tilted gantry."""
    sent(cache, tmp_path, replace(SMALL, missing_slices=(3,)), "1.2.1")
    assert numbers(chosen(cache, "1.2.1", "auto")) == [1, 2, 3]
    assert numbers(chosen(cache, "1.2.1", "auto=longest")) == [5, 6, 7, 8]
    assert list(chosen(cache, "1.2.1", "all").missing) == [4]
    assert chosen(cache, "1.2.1", "1:8").problems[0].startswith("1:8:1: there is no instance 4")

    sent(cache, tmp_path, replace(SMALL, doubled_instance_numbers=(5,)), "1.2.2")
    assert list(chosen(cache, "1.2.2", "all").doubled) == [5]
    assert "several instances have the number 5" in chosen(cache, "1.2.2", "auto").problems[0]
    # Along the stack each has a place of its own, and nothing is guessed.
    along = chosen(cache, "1.2.2", "auto", "position")
    assert numbers(along) == [1, 2, 3, 4, 5, 5, 7, 8]
    assert not along.notes

    sent(cache, tmp_path, replace(SMALL, localizer=True), "1.2.3")
    assert numbers(chosen(cache, "1.2.3", "2:9")) == list(range(2, 10))
    assert chosen(cache, "1.2.3", "all", "position").notes == [
        "the instances lie in several directions, so they are in the order of their numbers"
    ]

    sent(cache, tmp_path, replace(SMALL, second_orientation=CORONAL), "1.2.4")
    two = chosen(cache, "1.2.4", "9:16", "position")
    assert numbers(two) == list(range(9, 17))
    assert "several directions" in two.notes[0]

    sent(cache, tmp_path, replace(SMALL, shear=4.0), "1.2.5")
    assert numbers(chosen(cache, "1.2.5", "8:1:-1", "position")) == list(range(8, 0, -1))


@pytest.mark.dcmtk
def test_reverse_and_interleaved_series_reach_the_pipeline_in_their_order(
    cache: Cache, tmp_path: Path
) -> None:
    """S27 and S28, to the manifest: the files themselves are what was asked for."""
    files = sent(cache, tmp_path, replace(SMALL, orientation=SAGITTAL), "1.2.6")
    uids = [str(dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for file in files]
    job = cache.compose(part("1.2.6", "8:1:-1"), part("1.2.6", "1:7:3"))
    cache.here.ended_jobs(1)
    found = cache.client.jobs.GetJob(jobs_pb2.GetJobRequest(job=job.id))
    output = Path(found.output_folder)
    backwards, third = json.loads((output / "job.json").read_text())["inputs"]
    assert [file["sop_instance_uid"] for file in backwards["files"]] == uids[::-1]
    assert [file["sop_instance_uid"] for file in third["files"]] == uids[::3]


@pytest.mark.dcmtk
def test_an_enhanced_multi_frame_instance_is_one_instance(cache: Cache, tmp_path: Path) -> None:
    """With as many frames as it says."""
    (file,) = write_series(tmp_path, replace(SMALL, slices=1, series_instance_uid="1.2.7"))
    dataset = dcmread(file)
    dataset.NumberOfFrames = 20
    dataset.PixelData *= 20
    dataset.save_as(file)
    words = ["storescu", "-aec", "CACHE", "127.0.0.1", str(cache.here.port), str(file)]
    subprocess.run(words, check=True, capture_output=True)
    cache.here.wait_for(lambda: cache.indexed() == 1)
    (one,) = cache.series()
    assert (one.instances, one.frames) == (1, 20)
    assert len(chosen(cache, "1.2.7", "auto").instances) == 1
