"""What the tests of job processors share."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dicom_adapter.addresses import socket_address
from dicom_adapter.cli import main
from dicom_adapter.ledger import events, instances, submissions
from dicom_adapter.model import (
    Event,
    QuarantinedInstance,
    StoredInstance,
    Submission,
    SubmissionState,
)
from dicom_adapter.rpc.client import Client
from dicom_adapter.v1 import adapter_pb2
from tests.support import Running

ROOT = Path(__file__).parents[2]
HEAD = """
dicom: {host: 127.0.0.1, port: 0}
grpc: {listen: null}
storage: {reserve: 0, watermark: 100%}
"""


@dataclass(frozen=True)
class Submitted:
    """A submission with its instances."""

    submission: Submission
    instances: tuple[StoredInstance, ...]

    @property
    def uids(self) -> list[str]:
        """The SOP Instance UIDs, sorted."""
        return sorted(instance.sop_instance_uid for instance in self.instances)


def config(*titles: str, pipelines: tuple[str, ...] = ("none",)) -> str:
    """Return a configuration of these AE titles, whose pipelines do nothing."""
    return "\n".join(
        [
            HEAD,
            "pipelines:",
            *[f"  {name}: {{command: ['true'], resources: {{memory: 1}}}}" for name in pipelines],
            "ae_titles:",
            *[f"  {title}" for title in titles],
        ]
    )


def title(name: str, **settings: object) -> str:
    """Return an AE title of the default processor that makes one job per group."""
    return f"{name}: {{settings: {json.dumps({**settings, 'pipeline-none': 'none'})}}}"


def submitted(adapter: Running) -> list[Submitted]:
    """Return every submission that there ever was, oldest first."""
    locate = Path
    with adapter.service.ledger.read() as tx:
        return [
            Submitted(found, instances.of_submission(tx, found.id, locate))
            for found in submissions.listed(tx, list(SubmissionState))
        ]


def wait_submitted(adapter: Running, count: int) -> list[Submitted]:
    """Wait until there are so many submissions, and return all."""

    def look() -> list[Submitted]:
        found = submitted(adapter)
        return found if len(found) >= count else []

    return adapter.wait_for(look)


def quarantined(adapter: Running) -> list[QuarantinedInstance]:
    """Return what is in quarantine."""
    with adapter.service.ledger.read() as tx:
        return instances.quarantined(tx, Path)


def wait_quarantined(adapter: Running, count: int) -> list[QuarantinedInstance]:
    """Wait until so many instances are in quarantine, and return them."""
    return adapter.wait_for(lambda: found if len(found := quarantined(adapter)) == count else [])


def history(adapter: Running, subject: str) -> list[Event]:
    """Return the audit trail of one thing."""
    with adapter.service.ledger.read() as tx:
        return events.of_subject(tx, subject)


def kept(adapter: Running) -> dict[str, int]:
    """Return how many instances are kept for which reason."""
    return {keeping.reason: keeping.instances for keeping in adapter.service.status().keeping}


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The JSON Lines of it."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class CommandLine:
    """The command line, run in this process against a service that runs in it too."""

    capsys: Any

    def __call__(self, adapter: Running, *words: str) -> Answer:
        """Run a command for a service."""
        self.capsys.readouterr()
        code = main([*words, "--server", socket_address(adapter.service.settings)])
        return Answer(code, *self.capsys.readouterr())


def decide(adapter: Running, method: str, *ids: str) -> None:
    """Decide over the API, as the command line does; raises the service's own errors."""
    with Client(socket_address(adapter.service.settings)) as client, client.errors():
        getattr(client.adapter, method)(adapter_pb2.ChosenRequest(ids=ids))


@contextmanager
def serving(file: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Run `dicom-adapter serve` as its own process; yield it and its DICOM port."""
    with file.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicom_adapter", "serve", "--config", str(file)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )
    try:
        line = process.stdout.readline() if process.stdout else ""
        assert line.startswith("ready "), file.with_suffix(".log").read_text("utf-8")
        places = dict(part.split("=", 1) for part in line.split()[1:])
        yield process, int(places["dicom"].rpartition(":")[2])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        if process.stdout:
            process.stdout.close()


def shipped(file: Path, *, idle: bool = False) -> str:
    """Return a configuration of config/ with free ports, from any source of this machine.

    Args:
        file: The configuration.
        idle: Have its pipelines do nothing.
    """
    text = file.read_text("utf-8")
    if idle:
        text = re.sub(r"command: \[python.*\]", "command: ['true']", text)
    values = yaml.safe_load(text)
    ports = {11112: 0}
    dicom = values.setdefault("dicom", {})
    dicom.update(host="127.0.0.1", port=0)
    for ae_title in values["ae_titles"].values():
        if "port" in ae_title:
            # One of its own stays one of its own.
            ae_title["port"] = ports.setdefault(ae_title["port"], free_port())
    for source in values.get("sources", {}).values():
        source["host"] = "127.0.0.1"
    values["grpc"] = {"listen": None}
    storage = {**values.get("storage", {}), "path": "data", "reserve": 0, "watermark": "100%"}
    return yaml.safe_dump({**values, "storage": storage}, sort_keys=False)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
