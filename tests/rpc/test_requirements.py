"""What a pipeline requires goes over the wire whole, also past servers that say nothing of it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_adapter.config import Pipeline
from dicom_adapter.config import Requirements as Declared
from dicom_adapter.errors import DicomAdapterError, NotFoundError
from dicom_adapter.model import Bounds, Plane, Requirements
from dicom_adapter.model.expressions import parse
from dicom_adapter.platform.pipelines import Definition
from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.convert_requirements import from_requirements, to_requirements
from dicom_adapter.v1 import pipelines_pb2
from tests.platform.harness import platform, sh
from tests.rpc.conftest import serve

COUNTS = st.none() | st.integers(1, 1000)
LENGTHS = st.none() | st.floats(0, 1000)
WORDS = st.lists(st.sampled_from(["CT", "MR", "1.2.3"]), max_size=3).map(tuple)
TAGS = st.lists(st.sampled_from(["KVP >= 100", "ImageType in A, 'B,C'", "0009,1010 present"]))

REQUIREMENTS = st.builds(
    Requirements,
    modality=WORDS,
    sop_class=WORDS,
    transfer_syntax=WORDS,
    body_part=WORDS,
    instances=st.builds(Bounds, COUNTS, COUNTS),
    series=st.builds(Bounds, COUNTS, COUNTS),
    several_patients=st.booleans(),
    slice_thickness=st.builds(Bounds, LENGTHS, LENGTHS),
    slice_spacing=st.builds(Bounds, LENGTHS, LENGTHS),
    orientation=st.lists(st.sampled_from(Plane)).map(tuple),
    contrast=st.none() | st.booleans(),
    tags=TAGS.map(lambda texts: tuple(map(parse, texts))),
)


@given(REQUIREMENTS)
def test_every_condition_survives_the_wire(requires: Requirements) -> None:
    """What comes out at the other end is what went in."""
    data = to_requirements(requires).SerializeToString()
    assert from_requirements(pipelines_pb2.Requirements.FromString(data)) == requires


@pytest.mark.parametrize("said", [{"tags": ["KVP approximately 3"]}, {"orientation": ["upright"]}])
def test_what_a_later_server_requires_is_not_passed_over(said: dict[str, list[str]]) -> None:
    """A condition that is not known here cannot be checked: nothing is submitted past it."""
    with pytest.raises(DicomAdapterError, match="requires what is not known here"):
        from_requirements(pipelines_pb2.Requirements(**said))  # type: ignore[arg-type]


def test_a_client_asks_what_a_pipeline_requires(tmp_path: Path) -> None:
    """It is answered what is declared, or that nothing is, or that there is no such pipeline."""
    requires = Declared(modality=("CT",), min_instances=20)
    pipelines = (sh("true"), sh("true", "ct", requires=requires))
    with platform(tmp_path, *pipelines) as made, serve(made) as served:
        assert served.client.requirements("test") is None
        assert served.client.requirements("ct") == Requirements(
            modality=("CT",), instances=Bounds(20, None)
        )
        with pytest.raises(NotFoundError):
            served.client.requirements("none")


def test_a_server_of_jobs_alone_requires_nothing() -> None:
    """One that does not serve PipelineService has no way to say what it requires."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}") as client:
        assert client.requirements("any") is None
    server.stop(0)


def test_what_is_required_is_no_part_of_the_version() -> None:
    """A version is what runs: that another series is let in changes nothing of it."""
    plain = Pipeline.model_validate({"name": "a", "command": ["true"]})
    picky = Pipeline.model_validate(
        {"name": "a", "command": ["true"], "requires": {"modality": ["CT"]}}
    )
    assert Definition(plain, "").version == Definition(picky, "").version
