"""`demo`: a study goes through the whole of it, and what came out is shown."""

import importlib.resources
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from dicom_adapter import config as config_room
from dicom_adapter.cli.common import connect, read_settings
from dicom_adapter.cli.output import human_size
from dicom_adapter.errors import DicomAdapterError, StartError
from dicom_adapter.phantom import PhantomSeries, write_series
from dicom_adapter.v1 import jobs_pb2

ENDED = frozenset(
    {
        jobs_pb2.JOB_STATE_FINISHED,
        jobs_pb2.JOB_STATE_FAILED,
        jobs_pb2.JOB_STATE_CANCELLED,
        jobs_pb2.JOB_STATE_INVALIDATED,
    }
)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    data: Annotated[
        Path, typer.Option("--data", help="The folder for everything that it makes.")
    ] = Path("demo-data"),
) -> None:
    """Start an adapter of its own, send it a CT study, and show what its pipelines make of it."""
    data = data.absolute()
    data.mkdir(parents=True, exist_ok=True)
    study = data / "study"
    config = data / "dicom-adapter.yaml"
    config.write_text(_configuration(), "utf-8")
    settings = read_settings(config)
    (title,) = settings.ae_titles
    say = typer.echo
    files = write_series(study, PhantomSeries())
    say(f"A CT series of {len(files)} slices, made for this demo, lies in {study}")
    with _service(config, data / "serve.log") as port:
        say(f"The adapter runs; its log is {data / 'serve.log'}")
        peer = f"{title}@localhost:{port}"
        say(f"Sending by C-STORE: dicom-adapter send {study} --to {peer}")
        _run("send", str(study), "--to", peer)
        say("Some seconds after its last instance the study is taken to be complete.")
        jobs = _watch(config, len(settings.pipelines))
    for job in jobs:
        _tell(job)
    if any(job.state != jobs_pb2.JOB_STATE_FINISHED for job in jobs):
        raise DicomAdapterError("not every job has finished: see the errors above")
    say("`make run` starts the adapter for good; README.md says where to go from here.")


def _configuration() -> str:
    """Return the built-in default with free ports: nothing on this machine is in its way."""
    text = importlib.resources.files(config_room).joinpath("default.yaml").read_text("utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    values["dicom"] = {**values.get("dicom", {}), "host": "127.0.0.1", "port": 0}
    values["grpc"] = {"listen": None}
    values["storage"] = {**values.get("storage", {}), "path": "data", "reserve": 0}
    return yaml.safe_dump(values, sort_keys=False)


@contextmanager
def _service(config: Path, log: Path) -> Iterator[str]:
    """Run `serve` as its own process; yield its DICOM port."""
    with log.open("w") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own command
            _command("serve", "--config", str(config)),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("ready "):
            raise StartError(f"the adapter did not start: {log.read_text('utf-8').strip()}")
        places = dict(part.split("=", 1) for part in line.split()[1:])
        yield places["dicom"].rpartition(":")[2]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "dicom_adapter", *words]


def _run(*words: str) -> None:
    if subprocess.run(_command(*words), check=False).returncode:  # noqa: S603 - our own command
        raise DicomAdapterError(f"`dicom-adapter {' '.join(words)}` failed")


def _watch(config: Path, expected: int) -> list[jobs_pb2.Job]:
    """Show the progress of the jobs that start from now on, until so many have ended."""
    ended: dict[str, jobs_pb2.Job] = {}
    bars: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with connect(config, None) as client, Progress(*columns, console=_errors()) as progress:
        waiting = progress.add_task("waiting for the group", total=None)
        with client.errors():
            for change in client.jobs.WatchJobs(jobs_pb2.WatchJobsRequest()):
                job = change.job
                progress.update(waiting, visible=False)
                if job.id not in bars:
                    bars[job.id] = progress.add_task(job.name, total=1.0)
                share = sum(step.progress for step in job.steps) / max(len(job.steps), 1)
                progress.update(bars[job.id], completed=share)
                if job.state in ENDED:
                    ended[job.id] = job
                if len(ended) == expected:
                    break
    return list(ended.values())


def _errors() -> Console:
    return Console(file=sys.stderr)


def _tell(job: jobs_pb2.Job) -> None:
    state = jobs_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
    typer.echo(f"\n{job.name}: {state}, from {job.instances} instances")
    if job.error:
        typer.echo(f"  {job.error}")
    for output in job.outputs:
        typer.echo(f"  {Path(job.output_folder) / output.path}  {human_size(output.size)}")
