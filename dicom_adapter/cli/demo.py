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
from dicom_adapter.cli.common import IdleConfigOption, IdleServerOption, connect, read_settings
from dicom_adapter.cli.output import counted, human_size
from dicom_adapter.errors import DicomAdapterError, StartError
from dicom_adapter.logs import printable
from dicom_adapter.phantom import PhantomSeries, write_series
from dicom_adapter.rpc.client import Client
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
        Path,
        typer.Option("--data", metavar="DIR", help="The folder for everything that it makes."),
    ] = Path("demo-data"),
    config: IdleConfigOption = None,
    server: IdleServerOption = None,
) -> None:
    """Send a CT study through an adapter of its own. Show what its pipelines make of it."""
    del server
    data = data.absolute()
    data.mkdir(parents=True, exist_ok=True)
    study, log = data / "study", data / "serve.log"
    # Whatever is configured here, the demo is the built-in default.
    config = data / "dicom-adapter.yaml"
    config.write_text(_configuration(), "utf-8")
    settings = read_settings(config)
    (title,) = settings.ae_titles
    files = write_series(study, PhantomSeries())
    typer.echo(f"A CT study of {len(files)} slices, a phantom made for this demo: {_shown(study)}")
    with _service(config, log) as port, connect(config, None) as client:
        typer.echo(f"The adapter listens on port {port}; its log: {_shown(log)}")
        earlier = _job_ids(client)
        words = ("send", str(_shown(study)), "--to", f"{title}@localhost:{port}")
        typer.echo(f"\n$ dicom-adapter {' '.join(words)}")
        _run(*words)
        typer.echo("A few seconds without another instance, and the study's pipelines start.")
        jobs = _watch(client, earlier, len(settings.pipelines))
    for job in sorted(jobs, key=lambda job: job.name):
        _tell(job)
    if any(job.state != jobs_pb2.JOB_STATE_FINISHED for job in jobs):
        raise DicomAdapterError("not every job has finished: see the errors above")
    typer.echo("\nNext: `make run` starts the adapter and leaves it running; see README.md.")


def _configuration() -> str:
    """Return the built-in default with free ports: nothing on this machine is in its way."""
    text = importlib.resources.files(config_room).joinpath("default.yaml").read_text("utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    values["dicom"] = {**values.get("dicom", {}), "host": "127.0.0.1", "port": 0}
    values["grpc"] = {"listen": None}
    # On a disk that is nearly full the reclaimer would take what is to be shown.
    limits = {"path": "data", "reserve": 0, "watermark": "100%"}
    values["storage"] = {**values.get("storage", {}), **limits}
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
            last = log.read_text("utf-8").strip().rpartition("\n")[2]
            raise StartError(
                f"the adapter did not start: {last.removeprefix('dicom-adapter: ')} "
                f"(its log: {_shown(log)})"
            )
        places = dict(part.split("=", 1) for part in line.split()[1:])
        yield places["dicom"].rpartition(":")[2]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "dicom_adapter", *words]


def _run(*words: str) -> None:
    if subprocess.run(_command(*words), check=False).returncode:  # noqa: S603 - our own command
        raise DicomAdapterError(f"`dicom-adapter {' '.join(words)}` failed")


def _job_ids(client: Client) -> set[str]:
    """Return the jobs that an earlier demo in the same folder has left."""
    with client.errors():
        answer = client.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_size=1000))
    return {job.id for job in answer.jobs}


def _watch(client: Client, earlier: set[str], expected: int) -> list[jobs_pb2.Job]:
    """Show the progress of the jobs that are new, until so many have ended."""
    ended: dict[str, jobs_pb2.Job] = {}
    bars: dict[str, TaskID] = {}
    # By name: of Rich's own shades a terminal with 16 colours makes the grey of an empty bar.
    bar = BarColumn(complete_style="cyan", finished_style="green")
    columns = (TextColumn("{task.description}", markup=False), bar, TimeElapsedColumn())
    # From the first event on: on a slow machine the jobs may have started before this call.
    request = jobs_pb2.WatchJobsRequest(after_event=1)
    errors = Console(file=sys.stderr)
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as progress:
        waiting = progress.add_task("waiting for the study to be complete", total=None)
        with client.errors():
            for change in client.jobs.WatchJobs(request):
                job = change.job
                if job.id in earlier:
                    continue
                progress.update(waiting, visible=False)
                if job.id not in bars:
                    bars[job.id] = progress.add_task(job.name, total=1.0)
                progress.update(bars[job.id], completed=_share(job))
                if job.state in ENDED:
                    ended[job.id] = job
                if len(ended) == expected:
                    break
    return list(ended.values())


def _share(job: jobs_pb2.Job) -> float:
    """Return how much of a job is done, from 0 to 1."""
    # Not every pipeline tells of its steps; that it has finished is all of it.
    if job.state == jobs_pb2.JOB_STATE_FINISHED:
        return 1.0
    return sum(step.progress for step in job.steps) / max(len(job.steps), 1)


def _tell(job: jobs_pb2.Job) -> None:
    state = jobs_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
    typer.echo(f"\n{job.name}: {state}, from {counted(job.instances, 'instance')}")
    if job.error:
        typer.echo(f"  {printable(job.error)}")
    if not job.outputs:
        return
    # Once, and not before every name: the folder is longer than a terminal is wide.
    typer.echo(f"  in {printable(str(_shown(Path(job.output_folder))))}")
    names = [printable(output.path) for output in job.outputs]
    for name, output in zip(names, job.outputs, strict=True):
        typer.echo(f"    {name:<{max(map(len, names))}}  {human_size(output.size)}")


def _shown(path: Path) -> Path:
    """Return a path as short as it can be typed here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
