"""Measures searching what is kept, and what keeping an index costs those who send.

`python -m benchmarks.index` does it: 1,000,000 instances in 20,000 series, a page by each kind of
filter; then a series is sent to an AE title that keeps it and to one that does not, by turns.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, insert

from benchmarks import receivers, series, throughput
from benchmarks.series import CT, MR
from benchmarks.throughput import NODELAY
from dicom_adapter.attributes import criteria_of, folded
from dicom_adapter.ledger import Ledger, index_search
from dicom_adapter.ledger.index_schema import indexed_instances, indexed_series, indexed_studies
from dicom_adapter.ledger.schema import instances
from dicom_adapter.model import Criterion, Durability, InstanceState
from dicom_adapter.ranges import Whole, select

STUDIES, SERIES_PER_STUDY, INSTANCES_PER_SERIES = 5_000, 4, 50
ROUNDS = 5
PAGE = 100
SENT = 1.0
SENT_OF = {MR: 500, CT: 100}
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_MODALITIES = ("CT", "MR", "US", "PT")
_NAMES = ("Müller^Anna", "Yamada^Tarou=山田^太郎", "Smith^John", "Buc^Jérôme", "Hong^Gildong")

SEARCHES: tuple[tuple[str, str, str], ...] = (
    ("everything", "", ""),
    ("PatientID=P00123*", "PatientID", "P00123*"),
    ("PatientID=*77", "PatientID", "*77"),
    ("PatientName=muller*", "PatientName", "muller*"),
    ("PatientName=山田*", "PatientName", "山田*"),
    ("PatientName=nobody", "PatientName", "nobody"),
    ("StudyDate=20260301-20260307", "StudyDate", "20260301-20260307"),
    ("AccessionNumber=A4711", "AccessionNumber", "A4711"),
    ("Modality=PT", "Modality", "PT"),
    ("SeriesDescription=*nothing*", "SeriesDescription", "*nothing*"),
    ("StudyInstanceUID=1.2.4711", "StudyInstanceUID", "1.2.4711"),
)


def main() -> None:
    """Print a line for each measurement."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        ledger = Ledger(f"sqlite:///{folder}/ledger.db", Durability.PROCESS_CRASH)
        ledger.open()
        try:
            count = _fill(ledger)
            print(f"{count} instances in {STUDIES * SERIES_PER_STUDY} series")
            print("\n| A page of | studies | series |\n| --- | ---: | ---: |")
            for name, keyword, value in SEARCHES:
                wanted = criteria_of([(keyword, value)] if keyword else [])
                studies = _milliseconds(ledger, partial(_studies, wanted=wanted))
                series_ = _milliseconds(ledger, partial(_series, wanted=wanted))
                print(f"| `{name}` | {studies:.1f} ms | {series_:.1f} ms |")
            chosen = _milliseconds(ledger, _choose)
            print(f"| what `auto` chooses of a series | | {chosen:.1f} ms |")
        finally:
            ledger.close()
    _beside_receiving()


def _studies(tx: Connection, wanted: tuple[Criterion, ...]) -> object:
    return index_search.studies(tx, wanted, PAGE)


def _series(tx: Connection, wanted: tuple[Criterion, ...]) -> object:
    return index_search.series(tx, wanted, PAGE)


def _choose(tx: Connection) -> object:
    found = index_search.members(tx, "1.2.7", "1.2.7.1", Path)
    return select(found, Whole.AUTO)


def _milliseconds(ledger: Ledger, look: Callable[[Connection], object]) -> float:
    """Return the median of some looks, of which each opens its own transaction."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        with ledger.read() as tx:
            look(tx)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def _fill(ledger: Ledger) -> int:
    rows = 0
    for studies in (range(at, min(at + 100, STUDIES)) for at in range(0, STUDIES, 100)):
        with ledger.write() as tx:
            tx.execute(insert(indexed_studies), [_study(n) for n in studies])
            of_series = [_one_series(n, m) for n in studies for m in range(SERIES_PER_STUDY)]
            tx.execute(insert(indexed_series), of_series)
            stored = [
                _instance(n, m, k)
                for n in studies
                for m in range(SERIES_PER_STUDY)
                for k in range(INSTANCES_PER_SERIES)
            ]
            tx.execute(insert(instances), stored)
            tx.execute(insert(indexed_instances), [_indexed(row) for row in stored])
            rows += len(stored)
    return rows


def _study(number: int) -> dict[str, object]:
    name = _NAMES[number % len(_NAMES)]
    day = _BEGAN + timedelta(days=number % 365)
    return {
        "uid": f"1.2.{number}",
        "patient_id": f"P{number:06}",
        "issuer": "HOSPITAL",
        "patient_name": name,
        "patient_birth_date": "19600101",
        "patient_sex": "O",
        "accession_number": f"A{number}",
        "study_id": str(number),
        "study_date": f"{day:%Y%m%d}",
        "study_time": "101500",
        "study_description": "Thorax",
        "referring_physician": "House^Gregory",
        "patient_name_folded": folded(name),
        "referring_physician_folded": folded("House^Gregory"),
    }


def _one_series(study: int, number: int) -> dict[str, object]:
    return {
        "ae_title": "CACHE",
        "uid": f"1.2.{study}.{number}",
        "study_uid": f"1.2.{study}",
        "modality": _MODALITIES[number],
        "series_number": str(number),
        "series_date": "",
        "series_time": "",
        "series_description": f"Series {number}",
        "body_part": "CHEST",
        "manufacturer": "ACME",
        "model": "One",
        "protocol": "",
        "laterality": "",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "instances": INSTANCES_PER_SERIES,
        "frames": INSTANCES_PER_SERIES,
        "size": 500_000 * INSTANCES_PER_SERIES,
        "first_received_at": _BEGAN,
        "last_received_at": _BEGAN,
    }


def _instance(study: int, series_: int, number: int) -> dict[str, object]:
    uid = f"1.2.{study}.{series_}.{number}"
    return {
        "id": f"{study:016x}{series_:08x}{number:08x}",
        "ae_title": "CACHE",
        "association": study,
        "calling_ae_title": "SENDER",
        "source_address": "127.0.0.1",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "sop_instance_uid": uid,
        "study_instance_uid": f"1.2.{study}",
        "series_instance_uid": f"1.2.{study}.{series_}",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "instance_number": number + 1,
        "sha256": f"{abs(hash(uid)):064x}",
        "size": 500_000,
        "received_at": _BEGAN,
        "state": InstanceState.KEPT,
        "ready_at": _BEGAN,
    }


def _indexed(row: Mapping[str, object]) -> dict[str, object]:
    return {
        "instance_id": row["id"],
        "series_uid": row["series_instance_uid"],
        "study_uid": row["study_instance_uid"],
        "frames": 1,
        "placement": [[0, 0, row["instance_number"]], [1, 0, 0, 0, 1, 0]],
        "patient": f"P{row['study_instance_uid']}\\\\HOSPITAL",
    }


def _beside_receiving() -> None:
    """Send the same series to an AE title that keeps, and so indexes, and to one that groups."""
    kinds = {"cache": "processor: cache", "ae_title": receivers.GROUPING}
    rates: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(dir=".") as name, ExitStack() as stack:
        folder = Path(name)
        files = {load: iter(paths) for load, paths in series.make(folder / "s", SENT).items()}
        running = {
            kind: stack.enter_context(
                receivers.running(receivers.adapter("process-crash", title=title), folder / kind)
            )
            for kind, title in kinds.items()
        }
        for number in range(ROUNDS):
            for load in (MR, CT):
                case = NODELAY[load, 1]
                paths = list(itertools.islice(files[load], max(1, int(SENT * SENT_OF[load]))))
                for kind in list(kinds)[:: 1 if number % 2 else -1]:
                    one = throughput.measure(case, paths, running[kind], SENT)
                    rates.setdefault((load, kind), []).append(one.rate)
    print("\n| Sent to | cache | ae_title | ratio |\n| --- | ---: | ---: | ---: |")
    for load in (MR, CT):
        keeps, groups = rates[load, "cache"], rates[load, "ae_title"]
        ratio = statistics.median(a / b for a, b in zip(keeps, groups, strict=True))
        both = f"{statistics.median(keeps):.0f}/s | {statistics.median(groups):.0f}/s"
        print(f"| {load} | {both} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
