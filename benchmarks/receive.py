"""Measures receiving, ours and others' in one run, and writes docs/performance.md.

`python -m benchmarks.receive` does it; `make bench` calls it. With `--quick` it sends little, once,
and prints the page instead.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import crowd, hostile, page, throughput, walk
from benchmarks.page import Found
from benchmarks.series import GIGABYTE

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def main() -> None:
    """Measure, and write the page."""
    quick, began = "--quick" in sys.argv[1:], time.monotonic()
    # A thousand associations need as many sockets, here and in the service.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rounds, part = (1, 0.1) if quick else (throughput.ROUNDS, 1.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = Found(
            throughput.run(folder, rounds=rounds, part=part),
            crowd.run(folder, part=part),
            hostile.long_instance(folder, int(2 * GIGABYTE * part)),
            hostile.run(folder),
            walk.run(),
        )
    text = page.of(found, rounds=rounds)
    if quick:
        print(text)
    else:
        PAGE.write_text(text, "utf-8")
    print(f"{time.monotonic() - began:.0f} s in all", file=sys.stderr)


if __name__ == "__main__":
    main()
