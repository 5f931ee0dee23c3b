"""What the receiver of a real service gets, whatever ends that service, or itself."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import adapter_pb2, webhooks_pb2
from tests.submit.servers import Served, serving
from tests.support import PATIENCE, make_instance, send
from tests.webhooks.harness import KEY, SECRET, Receiver, Reply, receiving

TEXT = """
dicom: {host: 127.0.0.1, port: 0}
grpc: {listen: null}
storage: {reserve: 0, watermark: 100%}
log: {format: json}
pipelines:
  good: {command: [sh, -c, "true"], resources: {memory: 1MiB}}
ae_titles:
  TEST: {settings: {pipeline-good: good}}
webhooks:
  his: {url: "URL", secret: keys, timeout: 30}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the key in it."""
    (tmp_path / "keys").write_text(f"{SECRET}\n", "utf-8")
    return tmp_path


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver."""
    with receiving() as started:
        yield started


def submit(served: Served, study: int = 1) -> None:
    """Send a study and have its job made at once."""
    assert send(served.port, [make_instance(study=f"1.2.{study}")]) == [0]
    with Client(served.grpc) as client, client.errors():
        while not (groups := client.adapter.ListGroups(adapter_pb2.ListGroupsRequest()).groups):
            time.sleep(0.02)
        client.adapter.CompleteGroups(adapter_pb2.ChosenRequest(ids=[g.id for g in groups]))


def tried(served: Served, attempts: int) -> webhooks_pb2.Delivery:
    """Wait until a message has been tried so often, and return it."""
    request = webhooks_pb2.ListDeliveriesRequest()
    ends_at = time.monotonic() + PATIENCE
    with Client(served.grpc) as client, client.errors():
        while time.monotonic() < ends_at:
            for delivery in client.webhooks.ListDeliveries(request).deliveries:
                if delivery.attempts >= attempts:
                    return delivery
            time.sleep(0.02)
    raise TimeoutError(f"no message was tried {attempts} times")


def test_a_kill_before_the_answer_sends_it_again(folder: Path, receiver: Receiver) -> None:
    """The message had arrived, and nobody knows: it comes again, under the same id."""
    stalls = Reply(after=receiver.closing)
    receiver.replies += [stalls, stalls]
    text = TEXT.replace("URL", receiver.url)
    with serving(folder, text) as served:
        submit(served)
        receiver.wait_for(1)
        served.kill()
    with serving(folder, text) as served:
        receiver.wait_for(2)
        # Who stalls again is waited for as long as for everything that drains, and no longer.
        began = time.monotonic()
        served.process.terminate()
        assert served.process.wait(PATIENCE) == 0
        assert time.monotonic() - began < 10
    messages = receiver.got
    assert len({message.id for message in messages}) == 1
    assert len({message.raw for message in messages}) == 1
    assert all(message.is_signed_by(KEY) for message in messages)
    assert messages[0].body["type"] == "job.finished"


def test_a_receiver_that_is_away_is_told_later(folder: Path) -> None:
    """Over a kill of the service, and without a word of the secret in its log."""
    with receiving() as away:
        text = TEXT.replace("URL", away.url)
    with serving(folder, text) as served:
        submit(served)
        waiting = tried(served, 2)
        assert (waiting.state, waiting.error) == ("pending", "no connection: Connection refused")
        served.kill()
    with receiving(away.server_port) as back, serving(folder, text) as served:
        (got,) = back.wait_for(1)
        assert tried(served, 3).state == "sent"
        logged = served.log()
    assert got.id == waiting.id
    assert got.is_signed_by(KEY)
    told = [json.loads(line)["action"] for line in logged.splitlines()]
    assert told.count("webhook.postponed") == 2
    assert told.count("webhook.sent") == 1
    for secret in (SECRET, SECRET.removeprefix("whsec_"), "token=hidden"):
        assert secret not in logged, secret
