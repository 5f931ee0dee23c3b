"""`status`: what needs a person comes first, and everything kept has its reason."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dicom_adapter.cli.output import human_size, human_span, human_time
from dicom_adapter.cli.status import told
from dicom_adapter.logs import printable
from tests.cli.conftest import Command, Work
from tests.support import association

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STATUS: dict[str, Any] = {
    "version": "1.2.3",
    "started_at": "2026-01-01T01:04:05Z",
    "dicom": ["0.0.0.0:11112", "0.0.0.0:11113"],
    "grpc": ["127.0.0.1:50051"],
    "associations": 1,
    "keeping": [
        {
            "reason": "in an open group",
            "instances": 1200,
            "size": 629145600,
            "oldest": "2026-01-02T03:03:35Z",
        }
    ],
    "disk": {"free": 5 * 1024**3, "used_fraction": 0.9, "watermark": 0.85, "reserve": 1024**3},
    "durability": "power-loss",
    "platform": "embedded",
    "jobs": {"finished": 7, "in_queue": 2},
    "attention": ["2 groups are parked: see `groups list`"],
    "rejections": [
        {
            "called_ae_title": "CHESTT",
            "calling_ae_title": "CT\x1b1",
            "address": "10.1.2.3",
            "why": "called AE title not recognized",
            "count": 3,
            "last_at": "2026-01-02T02:59:05Z",
        }
    ],
}
TOLD = """\
DICOM Adapter 1.2.3, started 1 d 2 h ago

NEEDS A PERSON
  ! 2 groups are parked: see `groups list`

rejected or refused since the start
  CT\\x1b1 at 10.1.2.3 calling CHESTT: called AE title not recognized (3 times, last 5 min ago)

listening
  DICOM     0.0.0.0:11112, 0.0.0.0:11113  (1 association open)
  gRPC      127.0.0.1:50051
  platform  embedded

kept in the spool
  1200 instances in an open group: 600.0 MiB, the oldest came 30 s ago

disk
  5.0 GiB free; 90% full, watermark 85%; reserve 1.0 GiB
  durability power-loss

jobs
  2 in queue, 7 finished"""


def test_for_people() -> None:
    """A person at night reads first what to do, then what runs, all in words and round numbers."""
    assert "\n".join(told(STATUS, NOW)) == TOLD


def test_all_is_well() -> None:
    """Where nothing needs a person, it says so, and leaves out what there is none of."""
    calm = {**STATUS, "attention": [], "rejections": [], "keeping": [], "jobs": {}, "dicom": []}
    text = "\n".join(told(calm, NOW))
    assert "nothing needs a person" in text
    assert "kept in the spool\n  nothing" in text
    for absent in ("NEEDS", "rejected", "jobs", "DICOM  "):
        assert absent not in text


def test_of_a_service(cli: Command, work: Work) -> None:
    """A running service tells what is open, kept, done and asks for a person."""
    with association(work.running.port) as opened:
        assert opened.is_established
        (status,) = cli("status", "--json", folder=work.folder).rows
        text = cli("status", folder=work.folder).out
    assert status["dicom"] == list(work.running.ready.dicom)
    assert status["associations"] == 1
    assert status["durability"] == "power-loss"
    assert status["jobs"] == {"finished": 1, "failed": 1}
    assert {kept["reason"] for kept in status["keeping"]} >= {"in an open group", "in quarantine"}
    assert all(kept["instances"] and kept["size"] for kept in status["keeping"])
    assert any("quarantine" in line for line in status["attention"])
    assert text.index("quarantine list") < text.index("listening")
    assert "(1 association open)" in text
    assert "1 finished, 1 failed" in text


def test_by_server(cli: Command, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """--server names a service, whatever is configured here."""
    (address,) = work.running.ready.grpc
    monkeypatch.setenv("DICOM_ADAPTER_TOKEN", work.running.token())
    (status,) = cli("status", "--json", "--server", address).rows
    assert status["grpc"][0] == address


def test_socket_beside_a_port(cli: Command, work: Work) -> None:
    """Where gRPC has a TCP port, the Unix socket that this machine's commands use is told too."""
    (address,) = work.running.ready.grpc
    shown = f"gRPC      {address}, unix:{work.folder}/data/run/grpc.sock"
    assert shown in cli("status", folder=work.folder).out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (601, "10 min"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (86_400 * 12 + 3600, "12 d"),
    ],
)
def test_spans(seconds: int, text: str) -> None:
    """A span has its largest unit, and the next one only where it matters."""
    assert human_span(timedelta(seconds=seconds)) == text


def test_times() -> None:
    """A time is told by how long ago it was, or how soon it will be."""
    assert human_time("2026-01-02T03:04:05.5Z", NOW) == "now"
    assert human_time("2026-01-02T02:04:05Z", NOW) == "1 h ago"
    assert human_time("2026-01-02T03:04:47Z", NOW) == "in 42 s"


def test_sizes() -> None:
    """A size has the unit that leaves a short number."""
    sizes = [human_size(size) for size in (0, 1023, 1024, 1024**3 * 1.5, 1024**5)]
    assert sizes == ["0 B", "1023 B", "1.0 KiB", "1.5 GiB", "1024.0 TiB"]


def test_printable() -> None:
    """Letters of every script stay, and whatever a terminal would obey is written out."""
    assert printable("山田　太郎 Müller\u00a0") == "山田　太郎 Müller\u00a0"
    assert printable("\x1b[2J\r\n\x07\x9b\x7f\u202e\u2028") == (
        r"\x1b[2J\r\n\x07\x9b\x7f\u202e\u2028"
    )
