import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from queue import Queue
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from dicom_adapter.errors import InvalidArgumentError
from dicom_adapter.model import LOCAL, InputFile, JobInput
from dicom_adapter.rpc import convert, server
from dicom_adapter.v1 import jobs_pb2
from tests.platform.harness import part10
from tests.rpc.conftest import Served
from tests.support import PATIENCE

DATA = part10("one")
FILE = InputFile("a-1", sha256(DATA).hexdigest(), "1.2.3")
Message = jobs_pb2.UploadInstanceRequest


def header(file: InputFile = FILE, size: int = len(DATA)) -> Message:
    """Return the first message of an upload."""
    return Message(header=Message.Header(instance=convert.to_reference(file), size=size))


def chunk(data: bytes = DATA) -> Message:
    """Return a message with bytes."""
    return Message(chunk=data)


def test_an_upload_becomes_the_input_of_a_job(served: Served, tmp_path: Path) -> None:
    """What was missing is uploaded, is missing no more, and is what the pipeline gets."""
    (tmp_path / "file").write_bytes(DATA)
    assert served.client.missing([FILE]) == [FILE]
    served.client.upload(FILE, tmp_path / "file")
    assert served.client.missing([FILE]) == []
    served.client.upload(FILE, tmp_path / "file")
    assert served.uploads == [f"a-1-{FILE.sha256}.dcm"]
    inputs = (JobInput("1", "2", "all", (FILE,)),)
    job_id = served.client.submit(served.platform.request(inputs=inputs))
    ended = served.platform.until(served.platform.views.get(LOCAL, job_id))
    (path,) = served.platform.workspaces.of(job_id).input.rglob("*.dcm")
    assert (ended.state, path.read_bytes()) == ("finished", DATA)


def test_a_large_upload_comes_in_chunks(served: Served, tmp_path: Path) -> None:
    """An instance larger than any message is taken whole."""
    data = part10("x" * 70_000_000)
    (tmp_path / "file").write_bytes(data)
    file = InputFile("a-2", sha256(data).hexdigest(), "1.2.3")
    served.client.upload(file, tmp_path / "file")
    assert served.client.missing([file]) == []


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "header"),
        ([chunk()], "header"),
        ([Message()], "header"),
        ([header(), header(), chunk()], "chunk"),
        ([header(), Message(), chunk()], "chunk"),
        ([header()], "chunk"),
        ([header(), chunk(DATA[:-1])], "chunk"),
        ([header(), chunk(), chunk(b"more")], "chunk"),
        ([header(), chunk(DATA[:-1] + b"!")], "chunk"),
        ([header(size=len(DATA) + 1), chunk()], "chunk"),
        ([header(size=-1), chunk()], "header.size"),
        ([header(size=0)], "header.size"),
        ([header(size=131), chunk(DATA[:131])], "header.size"),
        ([header(InputFile("a", sha256(b"x" * 200).hexdigest(), ""), 200), chunk(b"x" * 200)],
         "chunk"),
        ([header(InputFile("../../../x", FILE.sha256, "")), chunk()], "header.instance.id"),
        ([header(InputFile("/etc/x", FILE.sha256, "")), chunk()], "header.instance.id"),
        ([header(InputFile("", FILE.sha256, "")), chunk()], "header.instance.id"),
        ([header(InputFile("a", "../" + FILE.sha256[3:], "")), chunk()], "header.instance.sha256"),
        ([header(InputFile("a", FILE.sha256.upper(), "")), chunk()], "header.instance.sha256"),
    ],
)  # fmt: skip
def test_a_wrong_upload_is_refused_and_leaves_nothing(
    served: Served, messages: list[Message], field: str
) -> None:
    """Missing header, wrong size or sha256, no Part 10, ids that are paths: all refused."""
    before = set(served.platform.folder.rglob("*"))
    with pytest.raises(InvalidArgumentError) as refused, served.client.errors():
        served.client.jobs.UploadInstance(iter(messages))
    assert refused.value.field == field
    assert set(served.platform.folder.rglob("*")) == before
    assert served.client.missing([FILE]) == [FILE]


def test_an_upload_that_breaks_off_leaves_nothing(served: Served) -> None:
    """When the sender goes in the middle, what it sent is removed."""
    messages: Queue[Message | None] = Queue()

    def stream() -> Iterator[Message]:
        while (message := messages.get()) is not None:
            yield message

    call: Any = served.client.jobs.UploadInstance.future(stream())
    messages.put(header(size=10_000_000))
    messages.put(chunk())
    folder = served.platform.folder / "platform" / "uploads"
    _wait_until(lambda: any(folder.iterdir()))
    call.cancel()
    messages.put(None)
    _wait_until(lambda: not any(folder.iterdir()))
    assert served.client.missing([FILE]) == [FILE]


@pytest.mark.parametrize("kind", ["upload", "reflection"])
def test_callers_who_stall_leave_threads_for_the_others(
    served: Served, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """However many uploads or reflections stand still, the other calls are served."""
    ended = threading.Event()

    def stalled(*messages: object) -> Iterator[Any]:
        yield from messages
        ended.wait()

    folder = served.platform.folder / "platform" / "uploads"
    with grpc.insecure_channel(served.client.address) as channel:
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        calls: list[Any] = [
            served.client.jobs.UploadInstance.future(stalled(header(), chunk(b"x")))
            if kind == "upload"
            else reflection.ServerReflectionInfo(stalled(question))
            for _ in range(server.THREADS)
        ]
        if kind == "upload":
            _wait_until(lambda: len(list(folder.iterdir())) >= server.STREAMS)
        else:
            _wait_until(lambda: sum(map(_answers, calls)) >= server.STREAMS)
        request = jobs_pb2.ListJobsRequest()
        assert not served.client.jobs.ListJobs(request, timeout=PATIENCE).jobs
        for call in calls:
            call.cancel()
        ended.set()
        _wait_until(lambda: not any(folder.iterdir()))
    assert "rpc.failed" not in capfd.readouterr().out


def _answers(call: Iterator[object]) -> bool:
    try:
        return next(call) is not None
    except grpc.RpcError:
        return False


def test_broken_off_uploads_are_swept_at_the_start(served: Served) -> None:
    """What a crash left in the folder, without a row or without its end, goes."""
    folder = served.platform.folder / "platform" / "uploads"
    for name in ("x.part", f"a-{FILE.sha256}.dcm"):
        (folder / name).touch()
    served.platform.uploads.receive(FILE, len(DATA), [DATA])
    served.platform.uploads.open()
    assert served.uploads == [f"a-1-{FILE.sha256}.dcm"]


def test_an_upload_whose_file_is_gone_is_missing(served: Served, tmp_path: Path) -> None:
    """A row without a file counts for nothing: the instance is asked for and taken again."""
    (tmp_path / "file").write_bytes(DATA)
    served.client.upload(FILE, tmp_path / "file")
    (served.platform.folder / "platform" / "uploads" / served.uploads[0]).unlink()
    assert served.client.missing([FILE]) == [FILE]
    served.client.upload(FILE, tmp_path / "file")
    assert served.client.missing([FILE]) == []


def test_a_file_that_cannot_be_read_is_the_senders_own_error(
    served: Served, tmp_path: Path
) -> None:
    """The client raises OSError for its own file, before it troubles the server."""
    with pytest.raises(FileNotFoundError):
        served.client.upload(FILE, tmp_path / "none")
    assert served.uploads == []


def _wait_until(look: Callable[[], bool]) -> None:
    # Nothing tells of a file that is no upload yet.
    for _ in range(int(PATIENCE * 100)):
        if look():
            return
        threading.Event().wait(0.01)
    raise TimeoutError


def test_upload_status(served: Served) -> None:
    """The refusal of an upload is INVALID_ARGUMENT: the same bytes will not do better."""
    with pytest.raises(grpc.RpcError) as refused:
        served.client.jobs.UploadInstance(iter([chunk()]))
    error: Any = refused.value
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
