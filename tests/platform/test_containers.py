"""A pipeline may be a container image: what it sees, what it may, and what is known of it."""

import json
import os
import stat
from collections import Counter
from pathlib import Path

import pytest

from dicom_adapter.config import Capacity
from dicom_adapter.model import LOCAL
from dicom_adapter.platform.ownership import container_user
from dicom_adapter.platform.runtime import ContainerRuntime
from tests.platform.contained import GATE, containers, image, shell, up
from tests.platform.harness import MIB, SOMEBODY, part10, platform, sh
from tests.platform.images import Images

pytestmark = pytest.mark.podman

PLACE = "/dicom-adapter"
ENVIRONMENT = {
    "HOME": f"{PLACE}/work",
    "TMPDIR": f"{PLACE}/work",
    "LANG": "C.UTF-8",
    "CUDA_VISIBLE_DEVICES": "",
    "NVIDIA_VISIBLE_DEVICES": "void",
    "DICOM_ADAPTER_INPUT": f"{PLACE}/input",
    "DICOM_ADAPTER_OUTPUT": f"{PLACE}/output",
    "DICOM_ADAPTER_JOB": f"{PLACE}/job.json",
    "DICOM_ADAPTER_PROGRESS": f"{PLACE}/progress.jsonl",
    "HOLOSCAN_INPUT_PATH": f"{PLACE}/input",
    "HOLOSCAN_OUTPUT_PATH": f"{PLACE}/output",
}
#: Writes down what there is, and what may be done.
LOOK = r"""
cd "$DICOM_ADAPTER_OUTPUT"
env > env; id -u > uid; id -G > groups; ip -o link | cut -d: -f2 > links
grep -E "^(Cap|NoNewPrivs)" /proc/self/status > status
cp "$DICOM_ADAPTER_JOB" job; ls "$DICOM_ADAPTER_INPUT"/* > input
for place in /opt "$DICOM_ADAPTER_INPUT" "$DICOM_ADAPTER_INPUT/001" /dicom-adapter; do
    if touch $place/new 2>/dev/null; then echo $place; fi
done > writable
if echo x >> "$DICOM_ADAPTER_JOB"; then echo job; fi >> writable 2>/dev/null
for place in "$HOME" "$TMPDIR" /tmp /var/tmp /run /dev/shm; do
    touch $place/new || exit 3
done
if dd if=/dev/zero of=/tmp/much bs=1M count=40 2>/dev/null; then echo much; fi > much
"""


def test_a_monai_application_package_runs_as_it_is(tmp_path: Path, images: Images) -> None:
    """It needs its image's name alone, and finds input, output, model and working directory.

    What it has written belongs to the service, which can read, hash and remove all of it.
    """
    with containers(tmp_path, images, image("map")) as made:
        job = made.until(made.submit())
        assert job.state == "finished", (job.error, made.log_of(job))
        assert made.log_of(job) == "model said so in /var/holoscan\n"
        assert [output.path for output in job.outputs] == ["masks/1", "sizes"]
        place = made.workspaces.of(job.id)
        size = next(place.input.rglob("*.dcm")).stat().st_size
        assert made.output_of(job, "sizes") == f"{size}\n"
        written = [place.output, *place.output.rglob("*")]
        assert {path.lstat().st_uid for path in written} == {os.geteuid()}
        assert {path.lstat().st_gid for path in written} == {os.getegid()}
        for part in ("inputs", "outputs", "logs"):
            place.reclaim(part)
        left = (place.output, place.input, place.work)
        assert not any(path.exists() for path in left)


def test_a_container_sees_nothing_but_what_is_its_own(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fixed paths, a clean environment, no network, no privilege, nothing to write but its own."""
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example.org")
    with containers(tmp_path, images, shell(LOOK)) as made:
        job = made.until(made.submit(arguments={"mode": "fast"}))
        assert job.state == "finished", (job.error, made.log_of(job))
        seen = dict(line.split("=", 1) for line in made.output_of(job, "env").splitlines())
        text = {name: made.output_of(job, name) for name in ("uid", "groups", "links", "status")}
        manifest = json.loads(made.output_of(job, "job"))
        assert made.output_of(job, "writable") == ""
        assert made.output_of(job, "much") == ""
        assert made.output_of(job, "input").split() == ["000001.dcm"]
    # What the runtime, the shell and the image have set.
    for name in ("PATH", "HOSTNAME", "TERM", "container", "PWD", "OLDPWD", "SHLVL"):
        seen.pop(name, None)
    assert seen == ENVIRONMENT
    user = container_user()
    assert int(text["uid"]) == user.uid != 0
    assert text["groups"].split() == [str(user.gid)] != ["0"]
    assert text["links"].split() == ["lo"]
    status = dict(line.split(":\t") for line in text["status"].splitlines())
    assert {name: int(value, 16) for name, value in status.items()} == {
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0),
        "NoNewPrivs": 1,
    }
    assert manifest["arguments"] == {"mode": "fast"}
    assert [file["file"] for file in manifest["inputs"][0]["files"]] == ["001/000001.dcm"]


def test_a_container_is_limited_by_its_resources(tmp_path: Path, images: Images) -> None:
    """Memory without swap beyond it, processors and processes have the limits that they say."""
    script = r"""
        cd /sys/fs/cgroup
        cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes \
            cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us pids/pids.max 2>/dev/null ||
        { cat memory.max memory.swap.max; tr ' ' '\n' < cpu.max; cat pids.max; }
    """
    wanted = shell(script, resources={"cpus": 2, "memory": 96 * MIB})
    with containers(tmp_path, images, wanted) as made:
        job = made.until(made.submit())
        memory, swap, quota, period, processes = map(int, made.log_of(job).split())
    assert memory == 96 * MIB
    # Of memory and swap together, or of swap alone.
    assert swap in (96 * MIB, 0)
    assert quota == 2 * period
    assert processes == 4096


def test_a_command_is_the_arguments_of_the_image(tmp_path: Path, images: Images) -> None:
    """Its placeholders are the paths inside, and no shell is in between."""
    script = 'printf "%s\\n" "$0" "$@"'
    command = (script, "{input}", "-o={output}", "{job}", "{progress}", "{{}}", "$HOME;ls")
    with containers(tmp_path, images, image("shell", command=command)) as made:
        job = made.until(made.submit())
        assert made.log_of(job).splitlines() == [
            f"{PLACE}/input",
            f"-o={PLACE}/output",
            f"{PLACE}/job.json",
            f"{PLACE}/progress.jsonl",
            "{}",
            "$HOME;ls",
        ]


def test_a_container_s_log_is_all_that_it_writes(tmp_path: Path, images: Images) -> None:
    """Standard output and error, to the last byte; the job's error quotes the last line."""
    script = "seq 1 100000 >&2; seq 1 100000; sleep 0.2; echo wrong >&2; exit 3"
    with containers(tmp_path, images, shell(script)) as made:
        job = made.until(made.submit())
        assert (job.state, job.reason, job.exit_code) == ("failed", "pipeline_error", 3)
        assert job.error == "the command ended with exit code 3; the log ends with: wrong"
        said = Counter(made.log_of(job))
    # Of what comes on both at once, pieces may change places: nothing is lost, or there twice.
    numbers = "".join(f"{number}\n" for number in range(1, 100001))
    assert said == Counter(numbers * 2 + "wrong\n")


def test_a_container_s_progress_is_told_while_it_runs(tmp_path: Path, images: Images) -> None:
    """It appends to the file that its environment names, as a command does."""
    report = r"""echo '{"step": "segment", "progress": 0.4}' >> "$DICOM_ADAPTER_PROGRESS"; """
    with containers(tmp_path, images, shell(report + GATE, steps=("segment",))) as made:
        job = up(made)

        def told() -> float | None:
            return made.views.get(LOCAL, job.id).steps[0].progress or None

        assert made.ledger.wait_for(told, 10.0) == 0.4
        (made.workspaces.of(job.id).staging / "go").touch()
        assert made.until(job).state == "finished"


def test_a_container_s_use_is_measured_to_its_end(tmp_path: Path, images: Images) -> None:
    """Processor time and the most memory, also of what it does in its last moments."""
    script = "dd if=/dev/zero of=/tmp/much bs=1M count=20 2>/dev/null; seq 1 1000000 >/dev/null"
    with containers(tmp_path, images, shell(f"sleep 0.3; {script}")) as made:
        job = made.until(made.submit())
    assert job.used is not None
    assert job.used.wall_seconds >= job.used.cpu_seconds > 0.02
    assert 20 * MIB < job.used.max_rss_bytes <= 64 * MIB


def test_an_image_that_is_not_here_is_named_with_the_cure(tmp_path: Path, images: Images) -> None:
    """Nothing is pulled; once the image is there, the job runs by a retry, and knows what ran."""
    with containers(tmp_path, images, image("lung:1.2", command=("true",))) as made:
        failed = made.until(made.submit())
        assert (failed.state, failed.reason, failed.image_id) == ("failed", "pipeline_error", "")
        assert failed.error.startswith("the image 'lung:1.2' is not on this machine, and none is")
        assert f"`podman {' '.join(images.options)} pull lung:1.2`" in failed.error
        built = images.build("lung:1.2", {}, ['ENTRYPOINT ["/bin/sh", "-c"]'])
        made.control.retry(SOMEBODY, failed.id, why="")
        job = made.until(failed)
    images.podman("rmi", "lung:1.2")
    assert (job.state, job.image, job.image_id) == ("finished", "lung:1.2", built)
    assert job.pipeline_version != failed.pipeline_version


def test_a_graphics_processor_is_asked_for_by_its_number(tmp_path: Path, images: Images) -> None:
    """A machine that has none of that number cannot start the container, and says which."""
    wanted = shell("echo $CUDA_VISIBLE_DEVICES", resources={"gpus": 1})
    capacity = Capacity(cpus=4, memory=2048 * MIB, gpus=1)
    with containers(tmp_path, images, wanted, capacity=capacity) as made:
        job = made.until(made.submit())
    assert job.state == "failed"
    assert "nvidia.com/gpu=0" in job.error


def test_the_record_names_image_content_and_runtime(tmp_path: Path, images: Images) -> None:
    """What it was, beside a name that may mean something else tomorrow; none beside a command."""
    with containers(tmp_path, images, shell("true"), sh("true", name="host")) as made:
        job, other = made.submit("test"), made.submit("host")
        job, other = made.until(job), made.until(other)
        record, plain = (
            json.loads(made.workspaces.of(each.id).provenance.read_text("utf-8"))
            for each in (job, other)
        )
    (found,) = json.loads(images.podman("image", "inspect", "shell"))
    assert record["pipeline"]["image"] == "shell"
    assert record["pipeline"]["image_id"] == found["Id"] == job.image_id
    assert record["pipeline"]["image_digest"] == found["Digest"]
    version = images.podman("version", "--format", "{{.Client.Version}}")
    assert record["host"]["container_runtime"] == f"podman {version}"
    assert record["pipeline"]["version"] == job.pipeline_version
    assert [plain["pipeline"][key] for key in ("image", "image_id", "image_digest")] == [None] * 3
    assert plain["host"]["container_runtime"] is None


def test_s101_a_rerun_runs_the_same_image_again(tmp_path: Path, images: Images) -> None:
    """Whatever its name means by now; the latest is run where that is wanted."""
    say = ['ENTRYPOINT ["/bin/cat", "/said"]']
    images.build("said", {"said": "old"}, say)
    with containers(tmp_path, images, image("said")) as made:
        first = made.until(made.submit())
        images.build("said", {"said": "new"}, say)
        again = made.until(made.operations.rerun(SOMEBODY, first.id, latest=False))
        latest = made.until(made.operations.rerun(SOMEBODY, first.id, latest=True))
        assert [made.log_of(job) for job in (first, again, latest)] == ["old", "old", "new"]
        assert first.pipeline_version == again.pipeline_version != latest.pipeline_version
        images.podman("rmi", "--force", first.image_id)
        gone = made.until(made.operations.rerun(SOMEBODY, first.id, latest=False))
    assert gone.state == "failed"
    assert f"with the id {first.image_id[:12]}" in gone.error
    assert "`dicom-adapter jobs rerun --latest`" in gone.error


def test_what_a_container_links_to_is_not_touched(tmp_path: Path, images: Images) -> None:
    """Its links lead out of the folder: none is followed, and the output is refused."""
    secret = tmp_path / "secret"
    secret.write_text("of the service")
    secret.chmod(0o400)
    if os.geteuid() == 0:
        # Of another one than what is taken back is given to.
        os.chown(secret, 1, 1)
    before = secret.stat()
    with containers(tmp_path, images, shell(f'ln -s {secret} "$DICOM_ADAPTER_OUTPUT/x"')) as made:
        job = made.until(made.submit())
    assert (job.state, job.reason) == ("failed", "output_invalid")
    found = secret.stat()
    assert (found.st_uid, found.st_gid, found.st_mode) == (
        before.st_uid,
        before.st_gid,
        before.st_mode,
    )


def test_inputs_stay_the_service_s(tmp_path: Path, images: Images) -> None:
    """Their bytes, owner and mode are the same afterwards; others cannot reach them."""
    with containers(tmp_path, images, shell('chmod 777 "$DICOM_ADAPTER_INPUT"/*/*')) as made:
        job = made.until(made.submit())
        assert (job.state, job.exit_code) == ("failed", 1)
        place = made.workspaces.of(job.id)
        (file,) = place.input.rglob("*.dcm")
        assert stat.S_IMODE(file.stat().st_mode) == 0o440
        assert file.stat().st_uid == os.geteuid()
        assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700


def test_a_runtime_that_is_gone_is_named_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service starts all the same; the job fails, and says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with platform(tmp_path, shell("true"), runtime=ContainerRuntime("auto", ())) as made:
        job = made.until(made.submit())
    assert (job.state, job.reason) == ("failed", "pipeline_error")
    assert job.error.startswith("podman is not on this machine: install it, for instance with")


def test_each_item_of_a_batch_has_a_container_of_its_own(tmp_path: Path, images: Images) -> None:
    """With its own inputs and outputs, none of which another item sees."""
    script = 'cat "$DICOM_ADAPTER_INPUT"/001/* | wc -c > "$DICOM_ADAPTER_OUTPUT/seen"'
    with containers(tmp_path, images, shell(script)) as made:
        items = tuple(made.series(part10("x" * length)) for length in (5, 9))
        job = made.until(made.operations.submit(LOCAL, made.request(items=items)))
        assert job.state == "finished"
        assert [output.path for output in job.outputs] == ["0001/seen", "0002/seen"]
        told = [made.output_of(job, output.path).strip() for output in job.outputs]
        assert told == ["137", "141"]
