"""The receiving path alone: instances are received, checked and stored as files, and that is all.

No ledger knows of them, no processor groups them: what this is slower than others is the path's own
cost, and what the whole product is slower than this is the ledger's and the grouping's.
"""

import itertools
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from dicom_adapter.clock import SystemClock
from dicom_adapter.config import load
from dicom_adapter.files import flush_of
from dicom_adapter.model import Durability, Received, Recorded
from dicom_adapter.processor.catalogue import Catalogue
from dicom_adapter.receive import libraries
from dicom_adapter.receive.admission import Admissions
from dicom_adapter.receive.intake import Intake
from dicom_adapter.receive.listener import Listener
from dicom_adapter.receive.policy import Rules
from dicom_adapter.receive.ports import Ports
from dicom_adapter.receive.rejections import Rejections
from dicom_adapter.receive.spool import Spool


def main() -> None:
    """Listen as a configuration file says, and store, until the process is ended."""
    settings, clock = load(Path(sys.argv[1]), Catalogue()), SystemClock()
    libraries.prepare()
    spool = Spool(settings.storage.path / "spool", flush_of(Durability.PROCESS_CRASH))
    spool.open()
    rules = Rules.of(settings)
    listener = Listener(
        Admissions(rules, Rejections(clock)),
        Intake(spool, _record, clock),
        itertools.count(1),
        stored=lambda _: None,
    )
    ports = Ports(settings.dicom.host)
    ports.open(rules.ports)
    listener.start(rules, ports.sockets)
    threading.Event().wait()


def _record(received: Sequence[Received]) -> list[Recorded]:
    return [Recorded(one.instance.id, is_new=True) for one in received]


if __name__ == "__main__":
    main()
