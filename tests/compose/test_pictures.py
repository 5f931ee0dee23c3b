"""Pictures of what is kept, over the API and on the command line."""

import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from dicom_adapter.errors import (
    InvalidArgumentError,
    NoPictureError,
    NotFoundError,
    UnavailableError,
    WrongStateError,
)
from dicom_adapter.pictures import drawing
from dicom_adapter.pictures.drawing import Drawing
from dicom_adapter.v1 import composition_pb2 as messages
from tests.compose.conftest import Cache, part, series_of


def instance_of(cache: Cache, uid: str) -> str:
    """Return the id of the first instance of a series."""
    request = messages.ListInstancesRequest(series_instance_uid=uid)
    return cache.api.ListInstances(request).instances[0].id


def test_any_instance_and_a_montage_of_a_selection_are_drawn(cache: Cache) -> None:
    """As PNG, over the API."""
    cache.keep(series_of("1.2.3.1", range(1, 11)))
    one = messages.RenderInstanceRequest(instance_id=instance_of(cache, "1.2.3.1"), longest=64)
    with Image.open(BytesIO(cache.api.RenderInstance(one).png)) as picture:
        assert (picture.format, picture.size) == ("PNG", (64, 64))
        assert picture.getextrema() != (0, 0)
    some = messages.RenderSelectionRequest(parts=[part("1.2.3.1", "2:8:3")], longest=300)
    with Image.open(BytesIO(cache.api.RenderSelection(some).png)) as picture:
        # Three tiles, in two rows of two.
        assert max(picture.size) <= 300
        assert picture.width == picture.height
    # What no job can be made of can be looked at all the same.
    cache.keep(series_of("1.2.3.2", [1, 1]))
    doubled = messages.RenderSelectionRequest(parts=[part("1.2.3.2", "all")])
    assert cache.api.RenderSelection(doubled).png.startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_told(cache: Cache) -> None:
    """By what it is, and what would help."""
    report = dcmread(str(get_testdata_file("reportsi.dcm", download=False)))
    cache.keep([report, *series_of("1.2.3.1", [1])])
    wrong: list[tuple[messages.RenderInstanceRequest, type[Exception]]] = [
        (messages.RenderInstanceRequest(instance_id="nothing"), NotFoundError),
        (
            messages.RenderInstanceRequest(
                instance_id=instance_of(cache, str(report.SeriesInstanceUID))
            ),
            WrongStateError,
        ),
        (
            messages.RenderInstanceRequest(instance_id=instance_of(cache, "1.2.3.1"), frame=9),
            InvalidArgumentError,
        ),
        (
            messages.RenderInstanceRequest(instance_id=instance_of(cache, "1.2.3.1"), longest=9),
            InvalidArgumentError,
        ),
    ]
    for request, kind in wrong:
        with pytest.raises(kind), cache.client.errors():
            cache.api.RenderInstance(request)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file with a picture."""
    file = tmp_path / "image.dcm"
    file.write_bytes(Path(str(get_testdata_file("CT_small.dcm"))).read_bytes())
    return file


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str) -> None:
    """Have another program draw."""
    (folder / "stand_in.py").write_text(program)
    monkeypatch.setattr(drawing, "_MODULE", "stand_in")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_decoder_that_dies_ends_nothing_else(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an answer, as any other."""
    stand_in(monkeypatch, tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(NoPictureError, match="brought the decoder down"):
        Drawing().instance(image)


def test_a_decoder_that_never_ends_is_ended(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while, and its process is gone."""
    stand_in(monkeypatch, tmp_path, "import time; time.sleep(600)  # stand-in that hangs")
    monkeypatch.setattr(drawing, "PATIENCE_SECONDS", 0.5)
    with pytest.raises(NoPictureError, match="not drawn within"):
        Drawing().instance(image)
    listed = subprocess.run(["pgrep", "-f", "-m stand_in"], capture_output=True, check=False)
    assert not listed.stdout


def test_a_broken_image_is_told_and_spoils_no_montage(image: Path, tmp_path: Path) -> None:
    """What the log says of it is no part of the answer."""
    dataset = dcmread(image)
    dataset.PixelData = dataset.PixelData[:20]
    broken = tmp_path / "broken.dcm"
    dataset.save_as(broken)
    with pytest.raises(NoPictureError, match="damaged or incomplete"):
        Drawing().instance(broken)
    with Image.open(BytesIO(Drawing().montage([image, broken]))) as picture:
        assert picture.format == "PNG"


def test_no_more_are_drawn_at_a_time_than_may_be(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits too long is told to come again."""
    monkeypatch.setattr(drawing, "AT_A_TIME", 0)
    monkeypatch.setattr(drawing, "PATIENCE_SECONDS", 0.1)
    with pytest.raises(UnavailableError, match="try again later"):
        Drawing().instance(image)
