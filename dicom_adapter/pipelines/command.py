"""What every pipeline command shares: its words, its exit code, its progress, and its silence."""

import argparse
import contextlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path

import pydicom.config

from dicom_adapter.pipelines.manifest import Job, PipelineError, load_job


class Progress:
    """Tells the platform how far each step is, in the file that DICOM_ADAPTER_PROGRESS names."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._percent: dict[str, int] = {}

    def report(self, step: str, done: int, total: int) -> None:
        """Append one line, unless the step has not come on by a hundredth since the last one."""
        percent = 100 if done >= total else 100 * done // total
        if self._path is None or self._percent.get(step) == percent:
            return
        self._percent[step] = percent
        # Opened anew for each line: what is written is seen at once, also after a crash.
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "progress": percent / 100}) + "\n")

    def counter(self, step: str, total: int) -> Callable[[], None]:
        """A function to call after each of so many equal parts of the step."""
        parts = count(1)
        return lambda: self.report(step, next(parts), total)


Work = Callable[[Job, Path, Progress], None]


def run(description: str, work: Work, arguments: list[str] | None = None) -> int:
    """Run the pipeline's work on INPUT and OUTPUT, and return the exit code.

    0 when the work was done, 1 when it could not be, with one line on standard error. The words
    of other people's exceptions may quote a header, so that line holds none of them.
    """
    words = _parse(description, os.environ, arguments)
    progress = os.environ.get("DICOM_ADAPTER_PROGRESS", "")
    try:
        with quiet_libraries():
            job = load_job(words.input, os.environ)
            words.output.mkdir(parents=True, exist_ok=True)
            if not job.series:
                say("there is no series")
            work(job, words.output, Progress(Path(progress) if progress else None))
    except PipelineError as error:
        problem = str(error)
    except MemoryError:
        problem = "there is not enough memory for this series"
    except OSError as error:
        problem = f"a file could not be read or written: {error.strerror or type(error).__name__}"
    except Exception as error:  # noqa: BLE001 - a traceback could quote patient data into the log
        problem = f"this should not happen: {type(error).__name__} {_place(error)}"
    else:
        return 0
    sys.stderr.write(f"error: {problem}\n")
    return 1


def say(line: str) -> None:
    """Write one line to the job's log."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _parse(
    description: str, environment: Mapping[str, str], arguments: list[str] | None
) -> argparse.Namespace:
    """INPUT and OUTPUT from the command line, or else from the environment."""
    parser = argparse.ArgumentParser(description=description)
    for name in ("input", "output"):
        default = environment.get(f"DICOM_ADAPTER_{name.upper()}")
        parser.add_argument(
            name,
            metavar=name.upper(),
            type=Path,
            nargs="?" if default else None,
            default=default,
            help=f"folder; without it DICOM_ADAPTER_{name.upper()}",
        )
    return parser.parse_args(arguments)


def _place(error: Exception) -> str:
    """Where in the code the exception came from, for whoever mends it."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f"in {Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}"


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what pydicom and the decoders say off the log: they quote the values they complain of.

    The decoders are C libraries that write to the file descriptor itself.
    """
    logger = logging.getLogger("pydicom")
    level = logger.level
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - Path has no name for it
        os.dup2(nowhere.fileno(), 2)
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        os.dup2(kept, 2)
        os.close(kept)
