"""Fixtures that every test may use."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from subprocess import CalledProcessError
from tempfile import TemporaryDirectory

import pytest

from dicom_adapter.platform.program import CannotStartError
from tests.orthanc import DICOMWEB
from tests.platform.images import Images

#: What a test may need of the machine, by its marker: programs on the PATH, or files, and their
#: packages.
NEEDS = {
    "dcmtk": {"storescu": "dcmtk"},
    "orthanc": {"Orthanc": "orthanc", str(DICOMWEB): "orthanc-dicomweb"},
    "strace": {"strace": "strace"},
    "podman": {"podman": "podman", "runc": "runc", "busybox": "busybox-static"},
}


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    for name, programs in NEEDS.items():
        packages = ", ".join(programs.values())
        config.addinivalue_line("markers", f"{name}: needs of Debian's packages: {packages}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, by name, what this machine cannot run; in CI nothing may be missing."""
    for name, programs in NEEDS.items():
        if item.get_closest_marker(name) is None:
            continue
        for program, package in programs.items():
            # What is no program, such as a plugin, is named by its path.
            if shutil.which(program) is not None or Path("/", program).exists():
                continue
            if os.environ.get("CI"):
                pytest.fail(f"{program} is missing: install Debian's package {package}")
            pytest.skip(f"{program} is not installed: Debian's package {package} has it")


@pytest.fixture(scope="session")
def images() -> Iterator[Images]:
    """Give a Podman with the images that tests run; for tests that are marked with `podman`."""
    # Not below a test's own folder: Podman takes no path of more than 50 characters.
    with TemporaryDirectory(prefix="podman-", ignore_cleanup_errors=True) as folder:
        made = Images(Path(folder))
        try:
            made.build_all()
            made.try_out()
        except (CalledProcessError, CannotStartError) as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"podman can run no container here: {getattr(error, 'stderr', error)}")
        yield made
        made.podman("rm", "--all", "--force", "--time=0")
        # What lies there may be of users that are Podman's alone.
        made.podman("rmi", "--all", "--force")
