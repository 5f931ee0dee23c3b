"""What differs between two configurations is told by key; what needs a restart is a mistake."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_adapter.config import Settings, changes, load
from dicom_adapter.config.changes import FIXED
from dicom_adapter.errors import ConfigError
from tests.certificates import Authority
from tests.config.conftest import Catalogue

Configured = Callable[[str], Settings]

TEXT = """
dicom: {max_associations: 5}
pipelines: {p: {command: [x], steps: [one]}}
ae_titles:
  A: {settings: {pipeline-a: p}}
  "B.1": {settings: {pipeline-a: p}}
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("dicom: {max", "dicom: {max_pdu: 5000, max", ["dicom.max_pdu changed"]),
        ("[one]", "[two]", ["pipelines.p.steps changed"]),
        ("{A: ", "{C: ", []),
        ("  A: ", "  C: ", ["ae_titles.A removed", "ae_titles.C added"]),
        (
            "A: {settings: {pipeline-a: p}}",
            "A: {settings: {pipeline-b: p, timeout: 10}}",
            [
                "ae_titles.A.settings.timeout changed",
                "ae_titles.A.settings.pipeline-a removed",
                "ae_titles.A.settings.pipeline-b added",
            ],
        ),
        (
            "A: {settings: {pipeline-a: p}}",
            "A: {accepted_sop_classes: [CTImageStorage], settings: {pipeline-a: p}}",
            ["ae_titles.A.accepted_sop_classes changed"],
        ),
        (
            "A: {settings: {pipeline-a: p}}",
            "A: {processor: plain}",
            [
                "ae_titles.A.processor changed",
                *(f"ae_titles.A.settings.{key} removed" for key in ("priority", "timeout")),
                *(f"ae_titles.A.settings.{key} removed" for key in ("max_wait", "group_by")),
                "ae_titles.A.settings.on_mismatch removed",
                "ae_titles.A.settings.pipeline-a removed",
                "ae_titles.A.settings.quiet added",
            ],
        ),
        ("dicom: {max_associations: 5}", "dicom: {max_associations: 5, port: 11112}", []),
    ],
)
def test_each_key_that_differs_is_named(
    configured: Configured, old: str, new: str, expected: list[str]
) -> None:
    """A key that is written with its default, or other words for a value, is no change."""
    before, after = configured(TEXT), configured(TEXT.replace(old, new))
    assert [f"{one.key} {one.change}" for one in changes(before, after)] == expected


def test_the_file_itself_is_no_change(configured: Configured) -> None:
    """The same words in another file say the same."""
    before = configured(TEXT)
    assert changes(before, before.model_copy(update={"file": "another.yaml"})) == ()


def test_what_needs_a_restart_is_named_with_its_line(
    configured: Configured, catalogue: Catalogue, tmp_path: Path
) -> None:
    """Every key that a running service stands on is told, beside every other mistake."""
    running = configured(TEXT)
    file = tmp_path / "adapter.yaml"
    (tmp_path / "token").write_text("secret")
    Authority(tmp_path)
    file.write_text(
        'grpc: {listen: null}\nlog: {format: text, level: debug}\nledger: {url: "sqlite:///other"}'
        "\nstorage: {path: elsewhere, durability: process-crash, require_marker: true}\n"
        'platform: {address: "host:1", token: token, ca: ca.pem, container_runtime: docker, '
        "container_options: [-D]}\n"
        "dicom: {host: 127.0.0.1, processes: 2,\n  prot: 1}\n"
        "ae_titles: {A: {settings: {pipeline-a: p}}}\n",
        "utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        load(file, catalogue, running=running)
    told = [str(mistake).removeprefix(f"{file}:") for mistake in caught.value.mistakes]
    restarts = [line.partition(": needs a restart")[0] for line in told if "restart" in line]
    assert restarts == [
        "1: grpc.listen",
        "2: log.format",
        "2: log.level",
        "3: ledger.url",
        "4: storage.durability",
        "4: storage.path",
        "4: storage.require_marker",
        "5: platform.address",
        "5: platform.ca",
        "5: platform.container_options",
        "5: platform.container_runtime",
        "5: platform.token",
        "6: dicom.host",
        "6: dicom.processes",
    ]
    assert sorted(line.partition(": ")[2] for line in restarts) == sorted(map(".".join, FIXED))
    (other,) = [line for line in told if "restart" not in line]
    assert other.startswith("7: dicom.prot: is an unknown key")


def test_a_key_that_was_taken_out_is_named_too(
    configured: Configured, catalogue: Catalogue, tmp_path: Path
) -> None:
    """Without its line, which is no more, but with its name."""
    running = configured(TEXT + "grpc: {listen: null}\n")
    file = tmp_path / "adapter.yaml"
    file.write_text(TEXT, "utf-8")
    with pytest.raises(ConfigError, match=r"adapter\.yaml:1: grpc\.listen: needs a restart"):
        load(file, catalogue, running=running)


def test_what_needs_no_restart_is_no_mistake(
    configured: Configured, catalogue: Catalogue, tmp_path: Path
) -> None:
    """All the rest may change, and `data` stands in for storage.path as it did at the start."""
    configured(TEXT)
    file = tmp_path / "adapter.yaml"
    running = load(file, catalogue, data=tmp_path / "mine")
    file.write_text("dicom: {port: 104}\nstorage: {path: other, retain: 1d}\n", "utf-8")
    changed = load(file, catalogue, data=tmp_path / "mine", running=running)
    assert changed.storage.path == tmp_path / "mine"
    assert (changed.dicom.port, changed.storage.retain) == (104, 86400)
