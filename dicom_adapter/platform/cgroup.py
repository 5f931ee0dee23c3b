"""The kernel's control groups: reads those of containers, and makes those of host commands."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

ROOT = Path("/sys/fs/cgroup")
_NANOSECONDS = 1e9
_MICROSECONDS = 1e6
# How long killed processes are waited for.
GRACE_SECONDS = 3.0
# The kernel tells nobody when a process that is not our child has ended.
POLL_SECONDS = 0.01


class ControlGroup:
    """A group, of version 2, that all processes of an attempt are in.

    Their children are born into it; neither a session of their own, nor another parent, nor another
    environment leads out of it.
    """

    def __init__(self, path: Path) -> None:
        """Name one that is there."""
        self._path = path

    @classmethod
    def make(cls, name: str) -> Self | None:
        """Make a group.

        Returns None where the machine gives us none: without version 2, without a part of its tree
        that is ours to write, or with a kernel before 5.14, which cannot kill a group.
        """
        parent = _own_group()
        if parent is None:
            return None
        group = cls(parent / name)
        try:
            group._path.mkdir()
        except OSError:
            return None
        if (group._path / "cgroup.kill").exists():
            return group
        group.remove()
        return None

    def entered(self, command: Sequence[str]) -> list[str]:
        """Return a command that enters the group, and then becomes another one.

        By itself: put there from outside, it would be late, and have left behind outside what a
        script starts with its first line.
        """
        # Of the variables that a shell adds, none is the pipeline's.
        script = 'echo 0 > "$0"; unset PWD OLDPWD SHLVL; exec "$@"'
        return ["/bin/sh", "-c", script, str(self._path / "cgroup.procs"), *command]

    @classmethod
    def named(cls, pattern: str) -> "dict[str, Self]":
        """Return those that are there, by their names."""
        parent = _own_group()
        return {} if parent is None else {path.name: cls(path) for path in parent.glob(pattern)}

    def members(self) -> list[int]:
        """Return the numbers of the processes that are in it now."""
        found: list[int] = []
        for folder in self._folders():
            with suppress(OSError):
                found += map(int, (folder / "cgroup.procs").read_text().split())
        return found

    def _folders(self) -> list[Path]:
        """Return it with the groups that its processes have made within, the innermost first."""
        return [Path(place) for place, _, _ in os.walk(self._path, topdown=False)]

    def kill(self) -> None:
        """Kill all of them at once, and those that they are just starting."""
        with suppress(OSError):
            (self._path / "cgroup.kill").write_text("1")

    def cpu_seconds(self) -> float:
        """Return the processor time of all that ever were in it; 0 where that is not known."""
        with suppress(OSError, KeyError, ValueError):
            return _named(self._path / "cpu.stat")["usage_usec"] / _MICROSECONDS
        return 0.0

    def end(self) -> int:
        """Kill what is in it, and wait until nothing is; return how many processes there were."""
        count = len(self.members())
        deadline = time.monotonic() + GRACE_SECONDS
        self.kill()
        while self.members() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return count

    def remove(self) -> None:
        """Remove it; what cannot die, waiting for its disk, keeps it until a later start."""
        with suppress(OSError):
            for folder in self._folders():
                folder.rmdir()


def _own_group() -> Path | None:
    """Return the group of version 2 that the service is in, if there is one that it may write."""
    path = _groups_of("self").get("")
    for line in Path("/proc/self/mounts").read_text("utf-8").splitlines():
        _source, place, kind, *_ = line.split()
        if kind == "cgroup2" and path is not None:
            group = Path(place, path)
            return group if os.access(group, os.W_OK) else None
    return None


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
