"""Items of a job as a user names them."""

import hashlib
import uuid
from pathlib import Path

import pytest

from dicom_adapter.addresses import socket_address
from dicom_adapter.model import InputFile, JobInput, JobRequest, Priority
from dicom_adapter.rpc.client import Client
from tests.cli.conftest import Command
from tests.support import CONFIG, make_instance, running

#: Fails for a second item while a file is not there.
MOODY = r"""command: [sh, -c, 'case $0 in */0002) [ -e ../../../good ];; esac', "{input}"]"""
TEXT = CONFIG.replace("""command: [sh, -c, 'cp -r "$0"/. "$1"', "{input}", "{output}"]""", MOODY)


def submit(address: str, folder: Path, count: int) -> None:
    """Make a job of so many items."""
    path = folder / "one.dcm"
    make_instance().save_as(path)
    file = InputFile(uuid.uuid4().hex, hashlib.sha256(path.read_bytes()).hexdigest(), "1.2.3.4.5")
    with Client(address) as client:
        client.upload(file, path)
        inputs = (JobInput("1.2", "1.2.3", "all", (file,)),)
        request = JobRequest("r", "batch", "copy", Priority.NORMAL, "", (inputs,) * count)
        client.submit(request)


def test_items_in_order(cli: Command, tmp_path: Path) -> None:
    """They are shown, chosen by number and state, and repeated where that is meant."""
    with running(tmp_path, TEXT) as service:
        submit(socket_address(service.service.settings), tmp_path, 3)
        service.ended_jobs(1)
        (shown,) = cli("jobs", "show", "batch", "--json").rows
        assert [(item["number"], item["state"]) for item in shown["items"]] == [
            (1, "finished"),
            (2, "failed"),
            (3, "finished"),
        ]
        assert (shown["failing"], shown["item_counts"]) == (True, {"failed": 1, "finished": 2})
        assert [record["item"]["number"] for record in shown["provenance"]] == [1, 3]
        dry = cli("jobs", "retry", "batch", "--dry-run")
        assert dry.out == "batch would run again; items 1 3 finished, 2 in_queue\n"
        refused = cli("jobs", "retry", "batch", "--item", "3")
        assert (refused.code, refused.out) == (1, "")
        assert "items 3 of batch are finished" in refused.err
        (tmp_path / "data" / "platform" / "good").touch()
        again = cli("jobs", "retry", "batch", "--item-state", "failed")
        assert again.out == "batch is in the queue again; items 1 3 finished, 2 in_queue\n"
        service.wait_for(lambda: service.jobs()[0].state == "finished")
        late = cli("jobs", "cancel", "batch", "--item", "1")
        assert (late.code, "item 1 of batch has ended: it is finished" in late.err) == (1, True)


@pytest.mark.parametrize("words", ["cancel a b --item 1", "retry --pipeline copy --item 1 --yes"])
def test_items_are_of_one_job(cli: Command, tmp_path: Path, words: str) -> None:
    """Which job's would be meant is not guessed."""
    with running(tmp_path, TEXT) as service:
        submit(socket_address(service.service.settings), tmp_path, 2)
        service.ended_jobs(1)
        answer = cli("jobs", *words.split())
        assert (answer.code, answer.out) == (2, "")
        assert "--item is of one job: name it." in answer.err
