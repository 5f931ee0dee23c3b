"""Fixtures that every test may use."""

import os
import shutil

import pytest

#: What a test may need of the machine, by its marker: a program on the PATH, and its package.
NEEDS = {"dcmtk": "storescu", "orthanc": "Orthanc", "strace": "strace"}


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    for name, program in NEEDS.items():
        config.addinivalue_line("markers", f"{name}: needs {program}, Debian's package {name}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, by name, what this machine cannot run; in CI nothing may be missing."""
    for name, program in NEEDS.items():
        if item.get_closest_marker(name) is None or shutil.which(program) is not None:
            continue
        if os.environ.get("CI"):
            pytest.fail(f"{program} is missing: install Debian's package {name}")
        pytest.skip(f"{program} is not installed: Debian's package {name} has it")
