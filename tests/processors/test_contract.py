"""The public contract, as a stranger's processor uses it."""

import ast
import sqlite3
import threading
from pathlib import Path

import pytest

import dicom_adapter
from dicom_adapter import InstanceGroup, JobProcessorBase, Priority, StoredInstance
from dicom_adapter.errors import InvalidArgumentError
from dicom_adapter.model import SubmissionState
from tests.processors.scripted import CONFIG, Script, deliver
from tests.processors.tools import (
    HEAD,
    ROOT,
    free_port,
    kept,
    quarantined,
    submitted,
    wait_quarantined,
    wait_submitted,
)
from tests.support import SUCCESS, ManualClock, Running, files_in, make_instance, running, send

STRANGER = Path(__file__).parent / "stranger"
BY_CLASS = f"""{HEAD}
pipelines:
  none: {{command: ["true"], resources: {{memory: 1}}}}
ae_titles:
  NIGHT: {{processor: "by_sender:BySender", settings: {{pipeline: none, quiet: 30}}}}
"""


def keep(processor: JobProcessorBase, instance: StoredInstance) -> None:
    """Neither group nor remove an instance."""


def submit(processor: JobProcessorBase, group: InstanceGroup) -> None:
    """Submit a group, and keep its instances."""
    processor.submit_pipeline_job("job", "none", Priority.NORMAL, group.instances)


def spooled(adapter: Running) -> int:
    """Return how many files are in the spool."""
    return len(files_in(adapter.service.settings.storage.path / "spool"))


def test_s85_a_stranger_needs_the_public_names_alone() -> None:
    """The stranger's processor and ours import nothing but `dicom_adapter` itself of ours."""
    files = [STRANGER / "by_sender/__init__.py", *(ROOT / "processors").glob("*.py")]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in getattr(node, "names", [])]
            assert not [name for name in names if name.startswith("dicom_adapter.")]
    assert {"JobProcessorBase", "StoredInstance", "InstanceGroup"} <= {*dicom_adapter.__all__}


def test_s85_s90_a_strangers_processor_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor of another package groups, submits and sets aside by the contract alone."""
    monkeypatch.syspath_prepend(str(STRANGER))
    clock = ManualClock()
    with running(tmp_path, BY_CLASS, clock) as adapter:
        studies = [make_instance(study=f"1.{n}", Modality="CT") for n in (1, 2)]
        assert send(adapter.port, studies, called="NIGHT", calling="CT1") == [SUCCESS] * 2
        send(adapter.port, [make_instance(Modality="MR")], called="NIGHT", calling="MR1")
        send(adapter.port, [make_instance(Modality="")], called="NIGHT", calling="US1")
        adapter.grouped(3)
        (aside,) = wait_quarantined(adapter, 1)
        clock.advance(30)
        jobs = adapter.ended_jobs(2)
        adapter.wait_for(lambda: spooled(adapter) == 1)
    assert aside.reason == "it does not say of which modality it is"
    assert aside.attempts == 0
    told = [(job.name, job.pipeline, job.priority, job.instances, job.ae_title) for job in jobs]
    assert told == [
        ("night-ct1-20260102030435", "none", Priority.HIGHER, 2, "NIGHT"),
        ("night-mr1-20260102030435", "none", Priority.HIGHER, 1, "NIGHT"),
    ]


def test_s90_a_job_is_submitted_with_name_pipeline_priority_and_instances(
    tmp_path: Path, script: Script
) -> None:
    """What a processor submits is the job: its name made safe, pipeline, priority, instances."""
    ids = []

    def submit_one(processor: JobProcessorBase, instance: StoredInstance) -> None:
        ids.append(
            processor.submit_pipeline_job("Brain_Tumor v2", "none", Priority.IMMEDIATE, [instance])
        )

    script.on_instance = submit_one
    with running(tmp_path, CONFIG, ManualClock()) as adapter:
        send(adapter.port, [make_instance()])
        (job,) = adapter.ended_jobs(1)
        (found,) = submitted(adapter)
    assert [found.submission.id] == ids
    assert found.submission.job_id == job.id
    assert job.name == "brain-tumor-v2-20260102030405"
    assert (job.pipeline, job.priority, job.instances) == ("none", Priority.IMMEDIATE, 1)
    assert (job.ae_title, job.state) == ("TEST", "finished")


def test_wrong_arguments_are_refused_at_the_call(tmp_path: Path, script: Script) -> None:
    """A call that cannot be meant so is refused where it stands, with what is wrong."""
    script.on_instance = keep
    with running(tmp_path, CONFIG, ManualClock()) as adapter:
        send(adapter.port, [make_instance()])
        adapter.wait_for(lambda: kept(adapter) == {"kept by its job processor": 1})
        (instance,) = script.instances
        (processor,) = script.processors
        with pytest.raises(InvalidArgumentError, match="instances: must not be empty"):
            processor.submit_pipeline_job("job", "none", Priority.NORMAL, [])
        with pytest.raises(ValueError, match="9 is not a valid Priority"):
            processor.submit_pipeline_job("job", "none", 9, [instance])  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="on_mismatch: must be one of park, skip, f"):
            processor.submit_pipeline_job(
                "job",
                "none",
                Priority.NORMAL,
                [instance],
                on_mismatch="drop",  # type: ignore[arg-type]
            )
        for key in ("", "k" * 1025):
            with pytest.raises(InvalidArgumentError, match="key: must have 1 to 1024 characters"):
                processor.group(instance, key, after=5)
        with pytest.raises(InvalidArgumentError, match="must not be negative"):
            processor.group(instance, "key", after=-1)
        with pytest.raises(InvalidArgumentError, match="must not be negative"):
            processor.group(instance, "key", after=1, max_wait=-1)
        assert (adapter.groups(), submitted(adapter)) == ([], [])


def test_s91_files_go_once_they_are_removed_and_accepted(tmp_path: Path, script: Script) -> None:
    """The reclaimer gets what the processor has removed and the platform accepted, not before."""
    script.on_group = submit
    clock = ManualClock()
    with running(tmp_path, CONFIG, clock) as adapter:
        send(adapter.port, [make_instance(study=study) for study in ("1.1", "1.2")])
        adapter.grouped(2)
        clock.advance(5)
        adapter.ended_jobs(2)
        adapter.wait_for(lambda: kept(adapter) == {"kept by its job processor": 2})
        assert spooled(adapter) == 2
        (processor,) = script.processors
        processor.remove_instances(script.groups[0].instances)
        adapter.wait_for(lambda: kept(adapter) == {"kept by its job processor": 1})
        assert spooled(adapter) == 1


def test_s91_what_is_not_accepted_is_kept(tmp_path: Path, script: Script) -> None:
    """While the platform does not answer, removed instances stay until their jobs are taken."""
    script.on_group = deliver
    clock = ManualClock()
    text = CONFIG.replace(
        'pipelines:\n  none: {command: ["true"], resources: {memory: 1MiB}}\n',
        f"platform: {{address: '127.0.0.1:{free_port()}'}}\n",
    )
    with running(tmp_path, text, clock) as adapter:
        send(adapter.port, [make_instance(), make_instance()])
        adapter.grouped(2)
        clock.advance(5)
        (waiting,) = adapter.wait_for(
            lambda: [s for s in submitted(adapter) if s.submission.attempts]
        )
        assert waiting.submission.state == SubmissionState.PENDING
        assert kept(adapter) == {"waiting for their submission to be accepted": 2}
        assert spooled(adapter) == 2
    with running(tmp_path, CONFIG, clock) as adapter:
        clock.advance(300)
        (job,) = adapter.ended_jobs(1)
        adapter.wait_for(lambda: spooled(adapter) == 0)
    assert (job.state, job.instances) == ("finished", 2)


def test_s91_the_order_within_a_call_does_not_matter(tmp_path: Path, script: Script) -> None:
    """A call that removes instances before it submits them loses nothing."""

    def remove_first(processor: JobProcessorBase, instance: StoredInstance) -> None:
        processor.remove_instances([instance])
        processor.submit_pipeline_job("job", "none", Priority.NORMAL, [instance])

    script.on_instance = remove_first
    text = CONFIG.replace(
        'pipelines:\n  none: {command: ["true"], resources: {memory: 1MiB}}\n',
        f"platform: {{address: '127.0.0.1:{free_port()}'}}\n",
    )
    with running(tmp_path, text, ManualClock()) as adapter:
        send(adapter.port, [make_instance()])
        adapter.wait_for(lambda: [s for s in submitted(adapter) if s.submission.attempts])
        assert kept(adapter) == {"waiting for their submission to be accepted": 1}
        assert spooled(adapter) == 1


def test_s92_a_processor_may_keep_a_cache(tmp_path: Path, script: Script) -> None:
    """Instances that are neither grouped nor removed stay, over restarts, for its own database."""
    database = tmp_path / "cache.db"

    def remember(_processor: JobProcessorBase, instance: StoredInstance) -> None:
        with sqlite3.connect(database) as own:
            own.execute("CREATE TABLE IF NOT EXISTS cache (study TEXT, path TEXT)")
            row = (instance.study_instance_uid, str(instance.path))
            own.execute("INSERT INTO cache VALUES (?, ?)", row)
        own.close()

    script.on_instance = remember
    clock = ManualClock()
    with running(tmp_path, CONFIG, clock) as adapter:
        send(adapter.port, [make_instance(study=study) for study in ("1.1", "1.2")])
        adapter.wait_for(lambda: kept(adapter) == {"kept by its job processor": 2})
    clock.advance(30 * 86400)
    with running(tmp_path, CONFIG, clock) as adapter:
        assert kept(adapter) == {"kept by its job processor": 2}
        own = sqlite3.connect(database)
        paths = [Path(path) for (path,) in own.execute("SELECT path FROM cache")]
        own.close()
        assert [path.is_file() for path in paths] == [True, True]


def test_s93_an_api_of_its_own_composes_a_job(tmp_path: Path, script: Script) -> None:
    """Outside of any call, in a thread of its own, a processor submits studies and cleans up."""
    script.on_instance = keep
    with running(tmp_path, CONFIG, ManualClock()) as adapter:
        send(adapter.port, [make_instance(study=f"1.{n}") for n in (1, 2, 3)])
        adapter.wait_for(lambda: kept(adapter) == {"kept by its job processor": 3})
        (processor,) = script.processors

        def compose(*studies: str) -> None:
            chosen = [i for i in script.instances if i.study_instance_uid in studies]
            processor.submit_pipeline_job("composed", "none", Priority.HIGHER, chosen)
            processor.remove_instances(chosen)

        api = threading.Thread(target=compose, args=("1.1", "1.3"))
        api.start()
        api.join()
        (job,) = wait_submitted(adapter, 1)
        adapter.wait_for(lambda: kept(adapter) == {"kept by its job processor": 1})
        assert spooled(adapter) == 1
    assert [i.study_instance_uid for i in job.instances] == ["1.1", "1.3"]
    assert job.submission.group_id is None


def test_the_impossible_outside_of_a_call_is_refused(tmp_path: Path, script: Script) -> None:
    """Outside of a call what cannot be done is said at once, in the contract's own words."""
    script.on_instance = keep
    with running(tmp_path, CONFIG, ManualClock()) as adapter:
        send(adapter.port, [make_instance()])
        adapter.wait_for(lambda: kept(adapter) == {"kept by its job processor": 1})
        (processor,) = script.processors
        with pytest.raises(InvalidArgumentError, match="are not in the ledger"):
            processor.group(script.instances[0], "late", after=1e13)
        assert (adapter.groups(), quarantined(adapter)) == ([], [])
