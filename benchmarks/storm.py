"""A storm of connections, as a process of its own: `python -m benchmarks.storm PORT SECONDS`.

Each connection asks for an association, takes the answer and is gone without a word. Prints how
many were answered.
"""

import subprocess
import sys
import time

from benchmarks.wire import Connection

PER_SECOND = 200


def start(port: int, seconds: float) -> "subprocess.Popen[str]":
    """Start a storm."""
    words = [sys.executable, "-m", "benchmarks.storm", str(port), str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def main() -> None:
    """Connect at even intervals, until the time is over."""
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    began, answered = time.monotonic(), 0
    for number in range(int(seconds * PER_SECOND)):
        time.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
        with Connection(port) as connection:
            connection.associate()
            answered += 1
    print(answered)


if __name__ == "__main__":
    main()
