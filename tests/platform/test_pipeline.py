import json
import os
import stat
from pathlib import Path

import pytest

from dicom_adapter.config import Pipeline
from dicom_adapter.model import LOCAL, JobInput, JobStep, StepState
from dicom_adapter.platform import executor, process
from tests.platform.harness import part10, platform, sh, wait_for_file


def test_a_pipeline_sees_nothing_of_the_services_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its environment is what is documented, to the last variable; no secret gets through."""
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("DICOM_ADAPTER_CONFIG", "secret")
    monkeypatch.setenv("LD_PRELOAD", "")
    script = (
        "import json, os, pathlib, stat\n"
        "seen = {'env': dict(os.environ), 'cwd': os.getcwd(),"
        " 'group': os.getpgid(0) == os.getpid(),"
        " 'session': os.getsid(0) == os.getpid(), 'descriptors': os.listdir('/proc/self/fd'),"
        " 'stdin': os.readlink('/proc/self/fd/0'), 'mask': os.umask(0)}\n"
        "pathlib.Path(os.environ['DICOM_ADAPTER_OUTPUT'], 'seen').write_text(json.dumps(seen))\n"
    )
    program = tmp_path / "program.py"
    program.write_text(script)
    with platform(tmp_path, Pipeline(name="test", command=("python", str(program)))) as made:
        job = made.until(made.submit())
        assert job.state == "finished", job.error
        seen = json.loads(made.output_of(job, "seen"))
        workspace = made.workspaces.of(job.id)
    path = seen["env"].pop("PATH").split(":")
    # What Python itself adds where the locale is C.
    seen["env"].pop("LC_CTYPE", None)
    assert seen["env"] == {
        "HOME": str(workspace.work),
        "TMPDIR": str(workspace.work),
        "LANG": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": "",
        "DICOM_ADAPTER_INPUT": str(workspace.input),
        "DICOM_ADAPTER_OUTPUT": str(workspace.staging),
        "DICOM_ADAPTER_JOB": str(workspace.manifest),
        "DICOM_ADAPTER_PROGRESS": str(workspace.progress),
        "HOLOSCAN_INPUT_PATH": str(workspace.input),
        "HOLOSCAN_OUTPUT_PATH": str(workspace.staging),
    }
    assert path[1:] == ["/usr/local/bin", "/bin", "/usr/bin"]
    assert seen["cwd"] == str(workspace.work)
    assert (seen["group"], seen["session"]) == (True, True)
    assert seen["stdin"] == os.devnull
    assert seen["mask"] == 0o077
    # Standard input, output and error, and the folder that it lists.
    assert len(seen["descriptors"]) == 4
    assert not workspace.work.exists()


def test_placeholders_become_paths_and_the_command_is_no_shell(tmp_path: Path) -> None:
    """Each placeholder is filled in wherever it stands; nothing else is interpreted."""
    command = (
        "printf",
        "%s\\n",
        "{input}",
        "-o={output}",
        "{job}",
        "{progress}",
        "{{}}",
        "$HOME;ls",
    )
    with platform(tmp_path, Pipeline(name="test", command=command)) as made:
        job = made.until(made.submit())
        place = made.workspaces.of(job.id)
        assert made.log_of(job).splitlines() == [
            str(place.input),
            f"-o={place.staging}",
            str(place.manifest),
            str(place.progress),
            "{}",
            "$HOME;ls",
        ]


def test_the_manifest_names_the_inputs_in_order(tmp_path: Path) -> None:
    """The manifest has job, pipeline, arguments and, in the submitted order, series and files."""
    with platform(tmp_path, sh('cp "$DICOM_ADAPTER_JOB" "$DICOM_ADAPTER_OUTPUT/job"')) as made:
        files = [made.store() for _ in range(5)]
        inputs = (
            JobInput("1.9", "1.9.2", "all", (files[2], files[0])),
            JobInput("1.1", "1.1.1", "3-5", (files[4], files[3], files[1])),
        )
        job = made.until(made.submit(inputs=inputs, arguments={"mode": "fast"}))
        manifest = json.loads(made.output_of(job, "job"))
        place = made.workspaces.of(job.id)
        assert not place.manifest.is_relative_to(place.input)
    assert manifest == {
        "job": {"id": job.id, "name": job.name},
        "item": {"id": job.items[0].id, "number": 1, "of": 1},
        "pipeline": "test",
        "arguments": {"mode": "fast"},
        "inputs": [
            {
                "study": series.study,
                "series": series.series,
                "range": series.range,
                "files": [
                    {
                        "file": f"{number:03d}/{position:06d}.dcm",
                        "sop_instance_uid": file.sop_instance_uid,
                        "sha256": file.sha256,
                    }
                    for position, file in enumerate(series.files, 1)
                ],
            }
            for number, series in enumerate(inputs, 1)
        ],
    }


def test_inputs_cost_no_copy(tmp_path: Path) -> None:
    """INPUT holds the instances alone, read-only, as hard links where there are no reflinks.

    The reclaimer may unlink its own name at any time.
    """
    mask = os.umask(0o077)
    try:
        with platform(tmp_path, sh('cat "$DICOM_ADAPTER_INPUT"/*/*')) as made:
            file = made.store(part10("pixels"))
            source = made.spool.path_of(file.instance_id)
            kept = source.stat()
            made.scheduler.stop(10)
            job = made.submit(inputs=(JobInput("1", "2", "all", (file,)),))
            found = sorted(made.workspaces.of(job.id).input.rglob("*"))
            assert [path.name for path in found] == ["001", "000001.dcm"]
            (_, there) = (path.stat() for path in found)
            assert stat.S_IMODE(there.st_mode) == 0o440
            assert there.st_ino == kept.st_ino or there.st_nlink == 1
            assert stat.S_IMODE(found[0].stat().st_mode) == 0o700
            assert stat.S_IMODE((tmp_path / "platform").stat().st_mode) == 0o700
            made.spool.remove(file.instance_id)
            made.restart()
            assert made.until(job).state == "finished"
            assert made.log_of(job).endswith("pixels")
    finally:
        os.umask(mask)


@pytest.mark.parametrize("fault", ["other bytes", "gone", "a link", "cut short"])
def test_s7_s11_t8_broken_input_is_never_run_on(tmp_path: Path, fault: str) -> None:
    """Inputs are checked before each start; one that is not as submitted fails the job."""
    with platform(tmp_path, sh("touch ../../ran")) as made:
        made.scheduler.stop(10)
        job = made.submit()
        (path,) = made.workspaces.of(job.id).input.rglob("*.dcm")
        data = path.read_bytes()
        path.unlink()
        if fault == "other bytes":
            path.write_bytes(data[:-1] + b"!")
        if fault == "a link":
            (tmp_path / "elsewhere").write_bytes(data)
            path.symlink_to(tmp_path / "elsewhere")
        if fault == "cut short":
            path.write_bytes(data[:-1])
        made.restart()
        ended = made.until(job)
        assert (ended.state, ended.reason) == ("failed", "input_error")
        assert "001/000001.dcm" in ended.error
        assert ended.finished_at is not None
        assert not (made.workspaces.folder / "ran").exists()


def test_what_an_attempt_wrote_beside_its_inputs_is_gone_in_the_next(tmp_path: Path) -> None:
    """INPUT holds Part 10 files and nothing else, also when an earlier attempt put some there."""
    script = (
        'ls -R "$DICOM_ADAPTER_INPUT" | grep -c left; until [ -e ../../go ]; do sleep 0.01; done'
    )
    with platform(tmp_path, sh(script)) as made:
        job = made.until(made.submit(), "processing")
        made.scheduler.stop(10)
        place = made.workspaces.of(job.id).input
        (place / "left" / "deep").mkdir(parents=True)
        (place / "left" / "deep" / "file").touch()
        (place / "001" / "left.txt").touch()
        (place / "001" / "left-link").symlink_to("/etc/passwd")
        (tmp_path / "platform" / "jobs" / "go").touch()
        made.restart()
        made.until(job)
        assert made.log_of(job).splitlines()[-1] == "0"
        assert [path.name for path in sorted(place.rglob("*"))] == ["001", "000001.dcm"]


@pytest.mark.parametrize(
    ("script", "code", "error"),
    [
        ("exit 3", 3, "the command ended with exit code 3"),
        ("kill -15 $$", -15, "the command was ended by signal 15"),
        (
            "echo first; echo; echo 'no such \033[31mtensor' >&2; echo '   '; exit 1",
            1,
            "the command ended with exit code 1; the log ends with: no such tensor",
        ),
    ],
)
def test_s7_s11_t8_r6_r7_r11_any_other_exit_code_than_0_fails(
    tmp_path: Path, script: str, code: int, error: str
) -> None:
    """The error tells the exit code or signal and the last line of the log; nothing is kept."""
    with platform(tmp_path, sh(f'echo out > "$DICOM_ADAPTER_OUTPUT/out"; {script}')) as made:
        job = made.until(made.submit())
        place = made.workspaces.of(job.id)
        assert sorted(path.name for path in place.folder.iterdir()) == [
            "input",
            "job.json",
            "log.txt",
        ]
    assert (job.state, job.reason, job.exit_code) == ("failed", "pipeline_error", code)
    assert job.error == error
    assert job.outputs == ()
    assert job.items[0].state == "failed"
    assert job.finished_at is not None


def test_standard_output_and_error_are_the_log(tmp_path: Path) -> None:
    """Both are kept, in the order in which they were written, whatever their bytes."""
    with platform(tmp_path, sh("echo one; echo two >&2; printf 'three\\377'")) as made:
        job = made.until(made.submit())
        log = b"".join(made.views.logs(LOCAL, job.name, follow=False, active=lambda: True))
    assert log == b"one\ntwo\nthree\xff"


@pytest.mark.parametrize("command", ["no-such-program", "/", "/etc/hostname"])
def test_a_command_that_cannot_be_started_is_told(tmp_path: Path, command: str) -> None:
    """A program that is missing or is none fails the job, with its name and the cause."""
    with platform(tmp_path, Pipeline(name="test", command=(command,))) as made:
        job = made.until(made.submit())
    assert (job.state, job.reason, job.exit_code) == ("failed", "pipeline_error", None)
    assert job.error.startswith(f"the command '{command}' cannot be started: ")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "#!/no/such/shell\n",
            "No such file or directory: its first line names an interpreter that",
        ),
        (
            "echo x\n",
            "Exec format error: a script has to begin with #! and its interpreter, as #!/",
        ),
    ],
)
def test_a_script_that_cannot_be_started_is_told_with_the_cure(
    tmp_path: Path, content: str, told: str
) -> None:
    """As the kernel tells it, and what is wrong with the script's first line."""
    script = tmp_path / "script.sh"
    script.write_text(content, "utf-8")
    script.chmod(0o755)
    with platform(tmp_path, Pipeline(name="test", command=(str(script),))) as made:
        job = made.until(made.submit())
    assert (job.state, job.reason, job.exit_code) == ("failed", "pipeline_error", None)
    assert job.error.startswith(f"the command '{script}' cannot be started: {told}")


def test_s7_t7_outputs_are_committed_with_the_state(tmp_path: Path) -> None:
    """Every file that was staged is an output of the finished job, with its size and sha256."""
    script = 'cd "$DICOM_ADAPTER_OUTPUT"; mkdir -p a/b empty; printf x > a/b/é; : > nothing'
    with platform(tmp_path, sh(script)) as made:
        job = made.until(made.submit())
        place = made.workspaces.of(job.id)
        assert not place.staging.exists()
        assert (place.output / "empty").is_dir()
    assert [(output.path, output.size, output.sha256[:8]) for output in job.outputs] == [
        ("a/b/é", 1, "2d711642"),
        ("nothing", 0, "e3b0c442"),
    ]
    assert (job.state, job.exit_code, job.error, job.reason) == ("finished", 0, "", "")


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("ln -s /etc/passwd link", "output 'link' is neither a file nor a folder"),
        ("ln -s nowhere link", "output 'link' is neither a file nor a folder"),
        ("mkdir a; mkfifo a/pipe", "output 'a/pipe' is neither a file nor a folder"),
        ("touch $(printf 'a\\377')", "output 'a\\udcff' has a name that is not UTF-8"),
        ("cd ..; rm -r staging", "the output folder itself was removed or replaced"),
        ("cd ..; rm -r staging; ln -s /etc staging", "the output folder itself was removed"),
    ],
)
def test_s7_s11_t8_r7_output_that_cannot_be_kept_fails_the_job(
    tmp_path: Path, script: str, error: str
) -> None:
    """Links, pipes and unreadable names are refused, and nothing of the output is kept."""
    with platform(tmp_path, sh(f'cd "$DICOM_ADAPTER_OUTPUT"; touch good; {script}')) as made:
        job = made.until(made.submit())
        place = made.workspaces.of(job.id)
        assert not place.output.exists()
        assert not place.staging.exists()
    assert (job.state, job.reason, job.outputs) == ("failed", "output_invalid", ())
    assert job.error.startswith(error)


def test_t8_a_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    """A job that runs too long fails, and neither it nor a child of it lives on."""
    script = "(sleep 1000 & echo $! > ../../child; wait) & wait"
    with platform(tmp_path, sh(script, timeout=0.2)) as made:
        job = made.until(made.submit())
        child = int((made.workspaces.folder / "child").read_text())
    assert (job.state, job.reason) == ("failed", "run_timeout")
    assert job.error == "it ran longer than its timeout of 0.2 s"
    assert not _lives(child)


def test_a_command_that_ignores_term_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TERM comes first; what has not ended when the grace is over is killed."""
    monkeypatch.setattr(executor, "GRACE_SECONDS", 0.2)
    script = 'trap "echo told" TERM; echo $$ > ../../leader; while :; do sleep 0.01; done'
    with platform(tmp_path, sh(script, timeout=0.1)) as made:
        job = made.until(made.submit())
        log = made.log_of(job)
        leader = int((made.workspaces.folder / "leader").read_text())
    assert (job.reason, job.exit_code) == ("run_timeout", -9)
    assert "told" in log
    assert not _lives(leader)


@pytest.mark.parametrize(
    "leave", ["sleep 1000 &", "setsid sleep 1000 &", "setsid setsid sleep 1000 &"]
)
def test_nothing_that_a_job_left_behind_lives_on(tmp_path: Path, leave: str) -> None:
    """What a finished command leaves running is killed, also when it left the process group."""
    script = f"{leave} sleep 0.05"
    with platform(tmp_path, sh(script)) as made:
        job = made.until(made.submit())
        manifest = str(made.workspaces.of(job.id).manifest)
        assert process.end_processes(manifest) == 0
    assert job.state == "finished"


def test_s54_steps_are_told_as_they_run(tmp_path: Path) -> None:
    """Progress is seen while the job runs; malformed and half lines, unknown steps cost nothing."""
    script = r"""
        report() { printf "$@" >> "$DICOM_ADAPTER_PROGRESS"; }
        report 'not json\n[]\n{"step": "read"}\n{"step": 3, "progress": {}}\n\377\n"x"\n7\n'
        report '{"step": "fly", "progress": 0.5}\n{"step": "read", "progress": 2}\n'
        report '{"step": "\\ud800", "progress": 0.5}\n{"step": "read", "progress": 1e999}\n'
        report '{"step": "read", "progress": NaN}\n{"step": "read", "progress": -0.1}\n'
        report '{"step": "read", "progress": 1'; report '%0400d}\n' 0
        head -c 3000 /dev/zero | tr '\0' '[' >> "$DICOM_ADAPTER_PROGRESS"; report '\n'
        report '{"step": "measure", "pro'; report 'gress": 0.25}\n{"step": "measure"'
        until [ -e ../../go ]; do sleep 0.01; done
        report ', "progress": 0.75}\n'
        until [ -e ../../end ]; do sleep 0.01; done
        """
    with platform(tmp_path, sh(script, steps=("read", "measure", "write"))) as made:
        job = made.submit()

        def steps() -> list[tuple[str, str, float]]:
            return [(s.name, s.state, s.progress) for s in made.views.get(LOCAL, job.id).steps]

        measuring = [("read", "done", 1.0), ("measure", "running", 0.25), ("write", "waiting", 0.0)]
        made.ledger.wait_for(lambda: steps() == measuring, 20)
        (made.workspaces.folder / "go").touch()
        made.ledger.wait_for(lambda: steps()[1] == ("measure", "running", 0.75), 20)
        (made.workspaces.folder / "end").touch()
        ended = made.until(job)
    assert ended.state == "finished"
    assert ended.steps == tuple(
        JobStep(n, StepState.DONE, 1.0) for n in ("read", "measure", "write")
    )


@pytest.mark.parametrize(
    "script",
    [
        'rm "$DICOM_ADAPTER_PROGRESS"',
        'rm "$DICOM_ADAPTER_PROGRESS"; mkfifo "$DICOM_ADAPTER_PROGRESS"',
        'rm "$DICOM_ADAPTER_PROGRESS"; mkdir "$DICOM_ADAPTER_PROGRESS"',
        'rm "$DICOM_ADAPTER_PROGRESS"; ln -s /dev/zero "$DICOM_ADAPTER_PROGRESS"',
        'head -c 3000000 /dev/zero >> "$DICOM_ADAPTER_PROGRESS"',
        'rm "$DICOM_ADAPTER_JOB"; rm -r "$HOME"',
    ],
)
def test_what_a_pipeline_does_to_its_own_files_cannot_hurt_the_platform(
    tmp_path: Path, script: str
) -> None:
    """A pipeline that removes or replaces what it was given still just ends by its exit code."""
    with platform(tmp_path, sh(script, steps=("a",))) as made:
        assert made.until(made.submit()).state == "finished"


def test_r11_a_step_that_failed_stays_where_it_was(tmp_path: Path) -> None:
    """A failed job shows at once how far it came, why it came no further, and when."""
    script = """echo '{"step": "a", "progress": 0.5}' >> "$DICOM_ADAPTER_PROGRESS"; exit 1"""
    with platform(tmp_path, sh(script, steps=("a", "b"))) as made:
        job = made.until(made.submit())
        assert (job.state, job.finished_at) == ("failed", made.clock.now())
        assert job.error == "the command ended with exit code 1"
    assert job.steps == (JobStep("a", StepState.RUNNING, 0.5), JobStep("b", StepState.WAITING, 0.0))


def test_s52_the_resources_used_are_those_of_the_job(tmp_path: Path) -> None:
    """CPU and wall time and memory of the command and its children are measured, not ours."""
    program = tmp_path / "program.py"
    program.write_text(
        "import time\nblock = bytearray(60_000_000)\nend = time.process_time() + 0.8\n"
        "while time.process_time() < end: pass\n"
    )
    hungry = Pipeline(name="hungry", command=("sh", "-c", f"python {program}; true"))
    with platform(tmp_path, hungry, sh("sleep 0.1", "idle")) as made:
        used = made.until(made.submit("hungry")).used
        idle = made.until(made.submit("idle")).used
    assert used is not None
    assert idle is not None
    assert 0.8 <= used.cpu_seconds <= used.wall_seconds + 0.1
    assert 60_000_000 < used.max_rss_bytes < 200_000_000
    assert idle.cpu_seconds < 0.1 <= idle.wall_seconds
    assert 0 < idle.max_rss_bytes < 20_000_000


def test_a_following_reader_gets_the_log_to_its_end(tmp_path: Path) -> None:
    """With `follow` the log comes as it is written, and ends with the job."""
    script = "echo early; until [ -e ../../go ]; do sleep 0.01; done; echo late"
    with platform(tmp_path, sh(script)) as made:
        job = made.submit()
        wait_for_file(made.workspaces.of(job.id).log)
        chunks = made.views.logs(LOCAL, job.id, follow=True, active=lambda: True)
        assert next(chunks) == b"early\n"
        (made.workspaces.folder / "go").touch()
        assert b"".join(chunks) == b"late\n"


def _lives(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
