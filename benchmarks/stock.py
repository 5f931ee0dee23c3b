"""pynetdicom as its manual shows it: a handler that writes the received bytes to a file."""

import sys
from itertools import count
from pathlib import Path

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from benchmarks.receivers import AE_TITLE


def main() -> None:
    """Listen on a port and store to a folder, until the process is ended."""
    folder, numbers = Path(sys.argv[1]), count()

    def store(event: evt.Event) -> int:
        (folder / f"{next(numbers)}.dcm").write_bytes(event.encoded_dataset())
        return 0

    ae = AE(AE_TITLE)
    ae.maximum_associations = 100
    ae.maximum_pdu_size = 131072
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
    ae.add_supported_context(Verification)
    ae.start_server(("127.0.0.1", int(sys.argv[2])), evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main()
