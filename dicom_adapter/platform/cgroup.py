"""Reads what a container uses from its control group, of either version of the kernel's."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_NANOSECONDS = 1e9
_MICROSECONDS = 1e6


class Meter:
    """Measures the control group that a process is in; what was read last stays known."""

    def __init__(self, process: int) -> None:
        """Find the group.

        Raises:
            OSError: the process has ended.
        """
        self.cpu_seconds = 0.0
        self.max_bytes = 0
        #: How many processes the kernel has ended for want of memory.
        self.out_of_memory = 0
        self._read: Mapping[str, Callable[[], float]] = {}
        groups = _groups_of(str(process))
        controller = "memory" if "memory" in groups else ""
        # Without rights to make groups, a runtime leaves its containers in the service's own.
        if groups[controller] != _groups_of("self")[controller]:
            self._read = _version_1(groups) if controller else _version_2(groups)

    def measure(self) -> None:
        """Look at it; where it is gone, what was seen before holds."""
        for name, read in self._read.items():
            with suppress(OSError, ValueError, KeyError):
                # They only grow, but for the memory of kernels that do not know the highest.
                setattr(self, name, max(getattr(self, name), read()))


def _groups_of(process: str) -> Mapping[str, str]:
    """Return the group of each controller; that of the second version has no name."""
    groups: dict[str, str] = {}
    for line in Path("/proc", process, "cgroup").read_text("utf-8").splitlines():
        _number, controllers, path = line.split(":", 2)
        groups |= dict.fromkeys(controllers.split(","), path.lstrip("/"))
    return groups


def _version_1(groups: Mapping[str, str]) -> Mapping[str, Callable[[], float]]:
    memory = ROOT / "memory" / groups["memory"]
    cpu = ROOT / "cpuacct" / groups.get("cpuacct", "")
    return {
        "cpu_seconds": lambda: int((cpu / "cpuacct.usage").read_text()) / _NANOSECONDS,
        "max_bytes": lambda: int((memory / "memory.max_usage_in_bytes").read_text()),
        "out_of_memory": lambda: _named(memory / "memory.oom_control")["oom_kill"],
    }


def _version_2(groups: Mapping[str, str]) -> Mapping[str, Callable[[], float]]:
    group = ROOT / groups[""]
    peak = group / "memory.peak"
    memory = peak if peak.exists() else group / "memory.current"
    return {
        "cpu_seconds": lambda: _named(group / "cpu.stat")["usage_usec"] / _MICROSECONDS,
        "max_bytes": lambda: int(memory.read_text()),
        "out_of_memory": lambda: _named(group / "memory.events")["oom_kill"],
    }


def _named(file: Path) -> Mapping[str, int]:
    return {name: int(value) for name, value in map(str.split, file.read_text().splitlines())}
