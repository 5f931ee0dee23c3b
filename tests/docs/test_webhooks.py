"""What docs/webhooks.md shows is run, word for word."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_adapter.config import Settings
from dicom_adapter.lifecycle import JobState
from dicom_adapter.model import DeliveryState
from tests.certificates import Authority
from tests.support import PATIENCE, settings_of
from tests.webhooks.harness import SECRET, receiving, telling, webhook

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text("utf-8")
REST = "pipelines: {lung: {command: [x]}}\nae_titles: {CHEST: {settings: {pipeline-a: lung}}}\n"


def block(language: str) -> str:
    """Return the page's one code block of a language."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return str(text)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """The page's receiver, as a process of its own, and its port."""
    (tmp_path / "receiver.py").write_text(block("python"), "utf-8")
    (tmp_path / "ris.keys").write_text(f"{SECRET}\n", "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "receiver.py", "ris.keys", str(port)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield process, port
    process.kill()
    process.communicate()


def test_the_receiver_of_the_page_takes_what_is_signed_and_nothing_else(
    tmp_path: Path, receiver: tuple["subprocess.Popen[str]", int]
) -> None:
    """It is short, it prints each message once, and refuses a signature by another key."""
    process, port = receiver
    code = [line for line in block("python").splitlines() if line.strip()]
    assert len(code) <= 15
    url = f"http://127.0.0.1:{port}/"
    forged = webhook(url).secret.__class__(Path("keys"), (b"a key that it has never seen",))
    hooks = {"ris": webhook(url), "forged": webhook(url, secret=forged)}
    with telling(tmp_path, hooks) as told:
        # It checks the time, and the clock of the tests stands still somewhere else.
        told.clock.advance((datetime.now(UTC) - told.clock.now()).total_seconds())
        (job,) = told.cancelled()

        def settled() -> bool:
            # It may not listen yet.
            told.clock.advance(1)
            return len(told.listed(DeliveryState.SENT, DeliveryState.PARKED)) == 2

        told.ledger.wait_for(settled, PATIENCE)
        (refused,) = told.listed(DeliveryState.PARKED)
    assert (refused.webhook, refused.status) == ("forged", 401)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["data"]["id"] == job.id


def test_the_configuration_of_the_page_is_valid(tmp_path: Path) -> None:
    """A reader may copy it."""
    Authority(tmp_path, "hospital-ca")
    (tmp_path / "ris.keys").write_text(SECRET, "utf-8")
    found: Settings = settings_of(tmp_path, REST + block("yaml"))
    assert found.webhooks["ris"].on == (JobState.FINISHED, JobState.FAILED)


def test_the_message_of_the_page_has_the_names_of_a_real_one(tmp_path: Path) -> None:
    """None is missing, and none is more."""
    with receiving() as receiver, telling(tmp_path, {"ris": webhook(receiver.url)}) as told:
        told.cancelled()
        (got,) = receiver.wait_for(1)
        told.until(DeliveryState.SENT)
    shown = json.loads(block("json"))
    assert list(shown) == list(got.body)
    assert list(shown["data"]) == list(got.body["data"])


def test_the_key_of_the_page_is_one(tmp_path: Path) -> None:
    """The command makes a file that the configuration takes, and that nobody else can read."""
    (line,) = re.findall(r"^\(umask.*\)$", PAGE, flags=re.MULTILINE)
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)
    assert (tmp_path / "ris.keys").stat().st_mode & 0o777 == 0o600
    text = REST + "webhooks: {ris: {url: 'https://ris/', secret: ris.keys}}"
    assert len(settings_of(tmp_path, text).webhooks["ris"].secret.keys[0]) == 32
