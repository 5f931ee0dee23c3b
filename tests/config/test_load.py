"""Which file is read, and what becomes of a right one."""

import base64
import json
import os
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from sqlalchemy import make_url

from dicom_adapter.config import ProcessorCatalogue, Settings, Source, load
from dicom_adapter.errors import ConfigError
from dicom_adapter.model import Bounds, Operator, Plane, Requirements, TagCondition
from tests.certificates import Authority

ROOT = Path(__file__).parents[2]

Configure = Callable[[str], Settings]

WHOLE = """
dicom:
  host: 127.0.0.1
  port: 104
  processes: 3
  max_associations: 5
  max_pdu: 16384
  reject_unknown_sources: true
  timeouts: {association: 10, idle: 2m, progress: 5}
  min_rate: 2KiB
  max_instance: 1GiB
  max_per_calling_ae: 2
  max_per_address: 3
  private_sop_classes: [1.2.3.4]
storage: {path: spool, durability: process-crash, watermark: 70%, reserve: 1GB, retain: 1h,
  require_marker: true}
ledger: {url: "sqlite:///other/ledger.db"}
platform:
  address: embedded
  executor: local
  container_runtime: podman
  container_options: [--log-level, error]
  max_jobs: 1
  ageing: 30m
  on_lost: fail
  capacity: {cpus: 8, memory: 64GiB, gpus: 2}
  keep: {inputs: 1d, outputs: 2d, logs: 0s}
grpc: {listen: "[::1]:0"}
log: {format: json, level: debug}
executors:
  far: {address: "far.example:50051", token: far.token, ca: ca.pem}
pipelines:
  elsewhere: {executor: far, remote_pipeline: lung-3, timeout: 1h}
  lung.v2:
    description: Lung
    command: [run, "{input}", "--out={output}", "{job}", "{progress}", "{{literal}}"]
    resources: {cpus: 8, memory: 64GiB, gpus: 2}
    requires:
      modality: [ct, PT]
      sop_class: [CTImageStorage, 1.2.3.4]
      transfer_syntax: [ExplicitVRLittleEndian, 1.2.840.10008.1.2]
      body_part: [chest]
      min_instances: 20
      max_instances: 500
      min_series: 1
      max_series: 2
      patients: several
      slice_thickness: {min: 0.5, max: 3}
      slice_spacing: {max: 2.5}
      orientation: [axial, oblique]
      contrast: false
      tags: ["KVP >= 100", "(0018,1210) in [b30f, 'B,40f']"]
    limits: {running: 1, waiting: 100, daily: 50}
    timeout: 30m
    steps: [one, two]
ae_titles:
  " CT 1 ":
    processor: ae_title
    port: 104
    project: trial
    ignored_sop_classes: [MRImageStorage, 1.2.3]
    accepted_sop_classes: [CTImageStorage, 1.2.840.10008.5.1.4.1.1.4, 1.2.3.4]
    settings: {priority: higher, timeout: 60, max_wait: 1h, pipeline-x: lung.v2}
projects:
  trial: {description: Liver, limits: {running: 2, daily: 9}}
sources:
  any: {ae_title: CT1, host: "::/0"}
  one: {ae_title: " MR ", host: 10.1.2.3}
webhooks:
  ris:
    url: https://ris.example:8443/jobs
    secret: ris.keys
    on: [finished, requeue]
    pipelines: [lung.v2]
    ae_titles: [" CT 1"]
    timeout: 5s
    ca: ca.pem
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """The files that WHOLE names."""
    Authority(tmp_path)
    (tmp_path / "far.token").write_text("dat_far\n")
    (tmp_path / "ris.keys").write_text(f"whsec_{base64.b64encode(b'k' * 24).decode()}\n")


def test_every_key(configured: Configure, tmp_path: Path) -> None:
    """Every key arrives in the settings, with units made numbers and paths made absolute."""
    found = configured(WHOLE)
    assert found.file == str(tmp_path / "adapter.yaml")
    assert found.dicom.model_dump() == {
        "host": "127.0.0.1",
        "port": 104,
        "processes": 3,
        "max_associations": 5,
        "max_pdu": 16384,
        "reject_unknown_sources": True,
        "tls": None,
        "users": {},
        "jwt": None,
        "require_user": False,
        "timeouts": {"association": 10.0, "idle": 120.0, "progress": 5.0},
        "min_rate": 2048,
        "max_instance": 2**30,
        "max_per_calling_ae": 2,
        "max_per_address": 3,
        "private_sop_classes": ("1.2.3.4",),
    }
    assert found.storage.model_dump() == {
        "path": tmp_path / "spool",
        "durability": "process-crash",
        "watermark": 0.7,
        "reserve": 10**9,
        "require_marker": True,
        "retain": 3600.0,
    }
    assert found.ledger.url == f"sqlite:///{tmp_path}/other/ledger.db"
    assert found.platform.model_dump() == {
        "address": "embedded",
        "token": None,
        "ca": None,
        "executor": "local",
        "container_runtime": "podman",
        "container_options": ("--log-level", "error"),
        "max_jobs": 1,
        "ageing": 1800.0,
        "on_lost": "fail",
        "capacity": {"cpus": 8, "memory": 64 * 1024**3, "gpus": 2},
        "keep": {"inputs": 86_400.0, "outputs": 172_800.0, "logs": 0.0},
    }
    assert make_url(found.ledger.url).database == f"{tmp_path}/other/ledger.db"
    assert found.grpc.listen == "[::1]:0"
    assert found.log.model_dump() == {"format": "json", "level": "debug"}


def test_every_key_of_the_named_sections(configured: Configure, tmp_path: Path) -> None:
    """Pipelines, AE titles and sources know their own names."""
    found = configured(WHOLE)
    pipeline = found.pipelines["lung.v2"]
    assert pipeline.name == "lung.v2"
    assert pipeline.command[1:3] == ("{input}", "--out={output}")
    assert pipeline.requires is not None
    assert pipeline.requires.frozen == Requirements(
        modality=("CT", "PT"),
        sop_class=("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"),
        transfer_syntax=("1.2.840.10008.1.2.1", "1.2.840.10008.1.2"),
        body_part=("CHEST",),
        instances=Bounds(20, 500),
        series=Bounds(1, 2),
        several_patients=True,
        slice_thickness=Bounds(0.5, 3),
        slice_spacing=Bounds(None, 2.5),
        orientation=(Plane.AXIAL, Plane.OBLIQUE),
        contrast=False,
        tags=(
            TagCondition(0x0018_0060, "KVP", Operator.MORE_OR_EQUAL, ("100",)),
            TagCondition(0x0018_1210, "ConvolutionKernel", Operator.IN, ("b30f", "B,40f")),
        ),
    )
    assert pipeline.limits.model_dump() == {"running": 1, "waiting": 100, "daily": 50}
    assert pipeline.timeout == 1800
    assert pipeline.steps == ("one", "two")
    assert pipeline.executor == "local"
    elsewhere = found.pipelines["elsewhere"]
    assert (elsewhere.executor, elsewhere.remote_pipeline) == ("far", "lung-3")
    far = found.executors["far"]
    assert (far.address, str(far.token)) == ("far.example:50051", str(tmp_path / "far.token"))
    assert str(far.ca) == str(tmp_path / "ca.pem")
    ae_title = found.ae_titles["CT 1"]
    assert ae_title.title == "CT 1"
    assert ae_title.port == 104
    assert ae_title.project == "trial"
    trial = found.projects["trial"]
    assert trial.description == "Liver"
    assert trial.limits.model_dump() == {"running": 2, "waiting": None, "daily": 9}
    assert ae_title.ignored_sop_classes == ("1.2.840.10008.5.1.4.1.1.4", "1.2.3")
    assert ae_title.accepted_sop_classes == (
        "1.2.840.10008.5.1.4.1.1.2",
        "1.2.840.10008.5.1.4.1.1.4",
        "1.2.3.4",
    )
    assert ae_title.settings.model_dump() == {
        "priority": "higher",
        "timeout": 60.0,
        "max_wait": 3600.0,
        "group_by": "study",
        "on_mismatch": "park",
        "pipeline-x": "lung.v2",
    }
    assert found.model_dump()["ae_titles"]["CT 1"]["settings"]["priority"] == "higher"
    anybody, one = found.sources["any"], found.sources["one"]
    assert isinstance(anybody, Source)
    assert isinstance(one, Source)
    assert anybody.host == ip_network("::/0")
    assert (one.host, one.ae_title) == (ip_network("10.1.2.3/32"), "MR")
    webhook = found.webhooks["ris"]
    assert webhook.url == "https://ris.example:8443/jobs"
    assert webhook.secret.keys == (b"k" * 24,)
    assert (webhook.on, webhook.timeout) == (("finished", "requeue"), 5)
    assert (webhook.pipelines, webhook.ae_titles) == (("lung.v2",), ("CT 1",))
    assert str(webhook.ca) == str(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    "text", ["", "dicom:\nplatform:\n  capacity:\nae_titles:\npipelines:\nsources:\nlog:\n"]
)
def test_defaults(configured: Configure, tmp_path: Path, text: str) -> None:
    """What is not given, or given without a value, has its default."""
    found = configured(text)
    assert (found.dicom.host, found.dicom.port) == ("0.0.0.0", 11112)  # noqa: S104 - the default
    assert found.dicom.max_associations == 200
    assert not found.dicom.reject_unknown_sources
    assert found.storage.path == tmp_path / "data"
    assert found.storage.durability == "power-loss"
    assert found.storage.watermark == 0.85
    assert found.storage.reserve == 5 * 1024**3
    assert found.ledger.url == f"sqlite:///{tmp_path}/data/ledger.db"
    assert found.platform.capacity.cpus == len(os.sched_getaffinity(0))
    assert found.platform.capacity.memory == psutil.virtual_memory().total
    assert found.grpc.listen == "127.0.0.1:50051"
    assert found.log.format == "auto"
    assert (found.pipelines, found.ae_titles, found.sources) == ({}, {}, {})
    assert found.webhooks == {}


def test_tcp_can_be_off(configured: Configure) -> None:
    """An explicit null serves gRPC on the Unix socket alone."""
    assert configured("grpc: {listen: null}").grpc.listen is None


def test_settings_are_frozen(configured: Configure) -> None:
    """Nothing can be changed once it is read."""
    found = configured(WHOLE)
    with pytest.raises(ValidationError, match="frozen"):
        found.dicom.port = 1
    with pytest.raises(TypeError):
        found.pipelines["x"] = found.pipelines["lung.v2"]  # type: ignore[index]


@pytest.mark.parametrize("title", ["NO", "ON", "007", "1234", "null", "A B", "a.b", "x" * 16, "~!"])
def test_ae_titles_that_yaml_would_spoil(configured: Configure, title: str) -> None:
    """An AE title is the text that was written, be it a flag or number to YAML."""
    text = f"pipelines: {{p: {{command: [x]}}}}\nae_titles:\n  {title}:\n    settings: {{a: p}}"
    assert list(configured(text).ae_titles) == [title]


def test_data_replaces_the_path(
    tmp_path: Path, catalogue: ProcessorCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The --data folder is relative to the working folder, and the ledger moves with it."""
    file = tmp_path / "conf" / "f.yaml"
    file.parent.mkdir()
    file.write_text("storage: {path: there}", "utf-8")
    monkeypatch.chdir(tmp_path)
    found = load(file, catalogue, data=Path("here"))
    assert found.storage.path == tmp_path / "here"
    assert found.ledger.url == f"sqlite:///{tmp_path}/here/ledger.db"
    assert load(Path("conf/f.yaml"), catalogue).storage.path == tmp_path / "conf/there"


def test_which_file_is_read(
    tmp_path: Path, catalogue: ProcessorCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The given file goes first, then the environment's, the usual one, and the built-in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DICOM_ADAPTER_CONFIG", raising=False)
    built_in = load(None, catalogue)
    assert list(built_in.ae_titles) == ["ADAPTER"]
    assert built_in.dicom.port == 11112
    assert built_in.storage.path == tmp_path / "data"
    for number, name in enumerate(["dicom-adapter.yaml", "named.yaml", "given.yaml"], start=1):
        Path(name).write_text(f"dicom: {{port: {number}}}", "utf-8")
    assert load(None, catalogue).dicom.port == 1
    monkeypatch.setenv("DICOM_ADAPTER_CONFIG", "named.yaml")
    assert load(None, catalogue).dicom.port == 2
    assert load(Path("given.yaml"), catalogue).dicom.port == 3
    monkeypatch.setenv("DICOM_ADAPTER_CONFIG", "missing.yaml")
    with pytest.raises(ConfigError) as caught:
        load(None, catalogue)
    assert str(caught.value) == (
        "missing.yaml:1: file: cannot be read (DICOM_ADAPTER_CONFIG names it): "
        "No such file or directory"
    )


@pytest.mark.parametrize("name", ["minimal", "hospital", "scenario-1", "scenario-2"])
def test_examples(catalogue: ProcessorCatalogue, name: str) -> None:
    """Every example is valid, and has an AE title that starts a pipeline."""
    found = load(ROOT / "config" / f"{name}.yaml", catalogue)
    assert found.storage.path == ROOT / "config/data"
    assert all(title.settings.model_extra for title in found.ae_titles.values())


def test_a_remote_platform_knows_its_own_pipelines(configured: Configure) -> None:
    """Pipelines of a platform elsewhere cannot be checked here, and are taken as they are."""
    found = configured(
        "platform: {address: 'gpu.hospital:50051'}\nae_titles: {A: {settings: {a: whatever}}}"
    )
    assert found.platform.address == "gpu.hospital:50051"
    assert isinstance(found.ae_titles["A"].settings, BaseModel)


_KEYS = st.sampled_from(
    [
        "dicom",
        "storage",
        "ledger",
        "platform",
        "grpc",
        "log",
        "pipelines",
        "ae_titles",
        "sources",
        "webhooks",
        "secret",
        "on",
        "port",
        "host",
        "path",
        "url",
        "address",
        "capacity",
        "keep",
        "command",
        "resources",
        "A",
        "settings",
        "processor",
        "accepted_sop_classes",
        "ae_title",
        "<<",
        "listen",
        "timeouts",
    ]
)
_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(
            ["ae_title", "union", "strange", "sqlite:///x", "1.2.3", "h:1", "{x}", "~"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(_KEYS, st.text(max_size=3)), inner)
    ),
    max_leaves=25,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.one_of(st.text(), st.dictionaries(_KEYS, _VALUES).map(json.dumps)))
def test_any_text_is_settings_or_mistakes(
    tmp_path: Path, catalogue: ProcessorCatalogue, text: str
) -> None:
    """Whatever stands in the file, it is valid, or every mistake is one line that names it."""
    file = tmp_path / "any.yaml"
    file.write_text(text, "utf-8")
    try:
        load(file, catalogue)
    except ConfigError as error:
        lines = str(error).split("\n")
        assert len(lines) == len(error.mistakes)  # noqa: PT017 - some texts are valid
        assert all(line.startswith(f"{file}:") for line in lines)
