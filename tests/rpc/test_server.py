import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from dicom_adapter.errors import (
    AlreadyExistsError,
    DicomAdapterError,
    InvalidArgumentError,
    NotFoundError,
    StartError,
    UnavailableError,
    WrongStateError,
)
from dicom_adapter.rpc.client import Client, options
from dicom_adapter.rpc.server import Server
from dicom_adapter.rpc.status import to_status
from dicom_adapter.v1 import adapter_pb2, jobs_pb2
from tests.platform.harness import platform
from tests.rpc.conftest import Served
from tests.support import CONFIG, running

ROOT = Path(__file__).parents[2]
SERVICES = ["dicom_adapter.v1.JobService", "dicom_adapter.v1.PipelineService"]


def test_health_is_told_for_each_service(served: Served) -> None:
    """The standard health service answers for the whole and for each service."""
    with grpc.insecure_channel(served.client.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", *SERVICES):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            stub.Check(health_pb2.HealthCheckRequest(service="dicom_adapter.v1.AdapterService"))


def test_reflection_describes_the_services(served: Served) -> None:
    """A tool that knows nothing of us learns services, methods and messages."""
    with grpc.insecure_channel(served.client.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) >= {*SERVICES, "grpc.health.v1.Health"}
        service = DescriptorPool(database).FindServiceByName(SERVICES[0])
        assert "SubmitJob" in service.methods_by_name
        assert "request_id" in service.methods_by_name["SubmitJob"].input_type.fields_by_name


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_an_address_that_is_taken_is_refused(tmp_path: Path, kind: str) -> None:
    """A second server gets no share of another's port; the message says what to change."""
    with platform(tmp_path) as made:
        first, second = Server(None, None, made.access), Server(None, None, made.access)
    address = f"127.0.0.1:{first.listen('127.0.0.1:0')}"
    if kind == "unix":
        address = f"unix:{tmp_path / 'missing' / 'grpc.sock'}"
    with pytest.raises(StartError, match=rf"cannot listen on {address}: .* change grpc\.listen"):
        second.listen(address)
    first.stop(0)
    second.stop(0)


def test_the_socket_is_the_services_alone(tmp_path: Path) -> None:
    """The Unix socket is 0600 in a folder of 0700, and goes with the service."""
    with running(tmp_path, CONFIG) as adapter:
        path = tmp_path / "data" / "run" / "grpc.sock"
        assert adapter.ready.grpc == (f"unix:{path}",)
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        with Client(f"unix:{path}") as client, client.errors():
            assert not client.jobs.ListJobs(jobs_pb2.ListJobsRequest()).jobs


def test_a_path_that_is_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    """Where the system cannot hold a socket's path, the start says to choose a shorter one."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    with (
        pytest.raises(StartError, match=r"choose a shorter storage\.path"),
        running(folder, CONFIG),
    ):
        pass


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgumentError("items[0].inputs", "must not be empty"),
        NotFoundError("no such job"),
        AlreadyExistsError("there is one"),
        WrongStateError("it runs"),
    ],
)
def test_an_exception_goes_over_the_wire_and_back(error: DicomAdapterError) -> None:
    """What a server raises is what its client raises, with its text and field."""
    code = to_status(error).code
    assert code == {
        InvalidArgumentError: 3,
        NotFoundError: 5,
        AlreadyExistsError: 6,
        WrongStateError: 9,
    }.get(type(error))


def test_a_server_that_is_not_there_is_unavailable() -> None:
    """A call to nobody raises UnavailableError, which names the address."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with Client(f"127.0.0.1:{port}") as client, pytest.raises(UnavailableError, match=f"{port}"):
        client.missing([])


def test_a_service_that_is_not_offered_is_refused(served: Served) -> None:
    """A platform alone has no adapter's service; that is no reason to try again."""
    with pytest.raises(DicomAdapterError, match="UNIMPLEMENTED") as refused, served.client.errors():
        served.client.adapter.GetStatus(adapter_pb2.GetStatusRequest())
    assert not isinstance(refused.value, UnavailableError)


def test_messages_may_be_64_mib() -> None:
    """Both ends allow what a job of a few hundred thousand instances needs."""
    assert dict(options())["grpc.max_receive_message_length"] == 64 * 1024**2


def test_the_generated_code_is_in_step_with_proto(tmp_path: Path) -> None:
    """What `make proto` makes is what lies in dicom_adapter/v1."""
    places = Path(sys.executable).parent
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            "--proto_path=proto",
            f"--python_out={tmp_path}",
            f"--grpc_python_out={tmp_path}",
            f"--plugin=protoc-gen-mypy={places / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={places / 'protoc-gen-mypy_grpc'}",
            f"--mypy_out={tmp_path}",
            f"--mypy_grpc_out={tmp_path}",
            *(str(path.relative_to(ROOT)) for path in (ROOT / "proto").rglob("*.proto")),
        ],
        check=True,
        cwd=ROOT,
    )
    made = {path.name: path.read_text() for path in (tmp_path / "dicom_adapter" / "v1").iterdir()}
    kept = {path.name: path.read_text() for path in (ROOT / "dicom_adapter" / "v1").glob("*_pb2*")}
    assert made.keys() == kept.keys()
    for name, text in made.items():
        assert kept[name] == text, f"{name}: run `make proto`"
