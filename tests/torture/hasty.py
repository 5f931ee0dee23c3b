"""The service in a hurry: it gives a call up, and tries again, after a fraction of the time.

`python -m tests.torture.hasty SECONDS serve ...` runs it, SECONDS being the deadline of its calls.
Nothing else about it differs.
"""

import sys

from dicom_adapter.cli import main
from dicom_adapter.rpc import client
from dicom_adapter.submit import outbox

_MILLISECONDS = {
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 1000,
    "grpc.max_reconnect_backoff_ms": 400,
}


def hurry(deadline: float) -> None:
    """Shorten every wait of the outbox, and of the connection that it uses."""
    options = {**dict(client.options()), **_MILLISECONDS}
    client.options = lambda: list(options.items())
    client.CALL_SECONDS = deadline
    outbox.FIRST_PAUSE_SECONDS = 0.1
    outbox.LONGEST_PAUSE_SECONDS = 0.5


if __name__ == "__main__":
    hurry(float(sys.argv.pop(1)))
    sys.exit(main())
