"""Measures what recording and grouping cost: milliseconds of CPU for each instance.

`python -m benchmarks.ledger` does it, without a network and without files beside the ledger.
"""

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

from dicom_adapter.clock import SystemClock
from dicom_adapter.config import load
from dicom_adapter.ledger import Ledger, instances
from dicom_adapter.model import Durability, Received, StoredInstance
from dicom_adapter.processor.catalogue import Catalogue
from dicom_adapter.processor.host import ProcessorHost

INSTANCES = 10_000
BATCHES = (1, 4, 16, 100)
STUDIES = (1, 7, 500)
PATIENCE = 120.0
CONFIG = """
pipelines: {none: {command: ["true"], resources: {memory: 1MiB}}}
ae_titles: {BENCH: {settings: {timeout: 1h, pipeline-none: none}}}
"""


def main() -> None:
    """Print a line for each measurement."""
    for durability in Durability:
        for batch in BATCHES:
            cpu = in_ledger(durability, partial(record, batch=batch))
            print(f"record, {batch} in a commit, {durability}: {cpu:.3f} ms")
    for studies in STUDIES:
        cpu = in_ledger(Durability.PROCESS_CRASH, partial(group, studies=studies))
        print(f"group, {studies} open: {cpu:.3f} ms")


def in_ledger(durability: Durability, measure: Callable[[Ledger], float]) -> float:
    """Measure in a new ledger on the disk of the working folder."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        ledger = Ledger(f"sqlite:///{folder}/ledger.db", durability)
        ledger.open()
        try:
            return measure(ledger)
        finally:
            ledger.close()


def record(ledger: Ledger, batch: int) -> float:
    """Record instances, so many in each commit."""
    arrivals = [Received(instance(number, 1)) for number in range(INSTANCES)]
    before = time.process_time()
    for start in range(0, INSTANCES, batch):
        with ledger.write() as tx:
            instances.record(tx, arrivals[start : start + batch])
    return (time.process_time() - before) / INSTANCES * 1000


def group(ledger: Ledger, studies: int) -> float:
    """Have the default job processor group recorded instances of so many studies."""
    with ledger.write() as tx:
        instances.record(tx, [Received(instance(number, studies)) for number in range(INSTANCES)])
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(CONFIG)
        file.flush()
        title = load(Path(file.name), Catalogue()).ae_titles["BENCH"]
    host = ProcessorHost(
        title,
        Catalogue().load(title.processor),
        ledger,
        SystemClock(),
        locate=Path,
        submitted=lambda: None,
        released=lambda: None,
        kept=lambda: None,
    )

    def grouped() -> bool:
        with ledger.read() as tx:
            return instances.next_ready(tx, title.title) is None

    before = time.process_time()
    host.start()
    host.work()
    ledger.wait_for(grouped, PATIENCE)
    host.stop(PATIENCE)
    return (time.process_time() - before) / INSTANCES * 1000


def instance(number: int, studies: int) -> StoredInstance:
    """Return an instance of one of so many studies, as receiving would make it."""
    study = f"1.2.826.0.1.3680043.10.43.{number % studies}"
    return StoredInstance(
        id=uuid4().hex,
        ae_title="BENCH",
        association=1,
        calling_ae_title="SENDER",
        source_address="127.0.0.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=f"{study}.1.{number}",
        study_instance_uid=study,
        series_instance_uid=f"{study}.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        instance_number=number,
        sha256=f"{number:064x}",
        size=524_288,
        received_at=datetime.now(UTC),
        path=Path("none"),
    )


if __name__ == "__main__":
    main()
