"""Container images made here, of a static BusyBox and without any registry, and what holds them."""

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dicom_adapter.platform.runtime import ContainerRuntime
from tests.support import PATIENCE

APPLETS = (
    *("sh", "cat", "cp", "cut", "dd", "df", "env", "grep", "id", "ip", "ln", "ls", "mkdir"),
    *("mount", "rm", "sed", "seq", "sleep", "sort", "stat", "touch", "tr", "wc", "chmod"),
)
#: What the packager of MONAI Deploy puts in front of an application: it runs what app.json says.
TOOLS = r"""#!/bin/sh
command=$(sed -n 's/.*"command": "\([^"]*\)".*/\1/p' "$HOLOSCAN_APP_MANIFEST_PATH")
exec sh -c "$command"
"""
#: An application that knows what every such one knows, and nothing of this project.
APPLICATION = r"""
set -e
test -d "$HOLOSCAN_MODEL_PATH"
for file in $(ls "$HOLOSCAN_INPUT_PATH"/*/*.dcm); do
    wc -c < "$file" >> "$HOLOSCAN_OUTPUT_PATH/sizes"
done
mkdir -m 700 "$HOLOSCAN_OUTPUT_PATH/masks"
echo mask > "$HOLOSCAN_OUTPUT_PATH/masks/1"
chmod 600 "$HOLOSCAN_OUTPUT_PATH/masks/1"
echo "model said so in $PWD"
"""
MAP_FILES = {
    "etc/holoscan/app.json": json.dumps({"command": "sh /opt/holoscan/app/run.sh"}),
    "etc/holoscan/pkg.json": json.dumps({"resources": {"cpu": 1, "memory": "64Mi"}}),
    "opt/holoscan/app/run.sh": APPLICATION,
    "opt/holoscan/models/model.ts": "weights",
    "var/holoscan/tools": TOOLS,
}
MAP_CHANGES = (
    'ENTRYPOINT ["/var/holoscan/tools"]',
    "WORKDIR /var/holoscan",
    "ENV HOLOSCAN_INPUT_PATH=/var/holoscan/input",
    "ENV HOLOSCAN_OUTPUT_PATH=/var/holoscan/output",
    "ENV HOLOSCAN_APP_MANIFEST_PATH=/etc/holoscan/app.json",
    "ENV HOLOSCAN_MODEL_PATH=/opt/holoscan/models",
    "ENV NVIDIA_VISIBLE_DEVICES=all",
)


@dataclass
class Images:
    """A Podman with a storage of its own, as a machine without systemd can have it."""

    folder: Path

    @property
    def options(self) -> tuple[str, ...]:
        """What the configuration gives it."""
        return (
            *("--root", str(self.folder / "root"), "--runroot", str(self.folder / "run")),
            # Nothing of it stays mounted, and it works within containers too.
            *("--storage-driver", "vfs", "--events-backend", "none"),
            *("--runtime", "runc", "--cgroup-manager", "cgroupfs"),
        )

    @cached_property
    def runtime(self) -> ContainerRuntime:
        """What a platform runs images by."""
        return ContainerRuntime("podman", self.options)

    def podman(self, *words: str) -> str:
        """Run it as a person does, and return what it says."""
        done = subprocess.run(
            ["podman", *self.options, *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
        return done.stdout.strip()

    def containers(self) -> list[str]:
        """Return the names of all containers that there are."""
        return self.podman("ps", "--all", "--format", "{{.Names}}").split()

    def build(self, name: str, files: Mapping[str, str], changes: Sequence[str]) -> str:
        """Make an image of BusyBox and some files; return its id."""
        archive = self.folder / "image.tar"
        busybox = shutil.which("busybox")
        assert busybox is not None
        with tarfile.open(archive, "w") as tar:
            tar.add(Path(busybox).resolve(), "bin/busybox")
            for applet in APPLETS:
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
            for path, text in files.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(text.encode()), 0o755
                tar.addfile(entry, io.BytesIO(text.encode()))
        words = [f"--change={change}" for change in changes]
        return self.podman("import", *words, str(archive), name).removeprefix("sha256:")

    def build_all(self) -> None:
        """Make what the tests run: a shell, and a MONAI application package."""
        self.build("shell", {}, ['ENTRYPOINT ["/bin/sh", "-c"]'])
        self.build("map", MAP_FILES, MAP_CHANGES)

    def try_out(self) -> None:
        """Run a container.

        Raises:
            CannotStartError, CalledProcessError: this machine does not let us; says why.
        """
        limits = ("--memory=64m", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
        image = self.runtime.image("shell")
        self.runtime.create("try", image, ["true"], "--network=none", *limits)
        self.podman("start", "--attach", "try")
        self.podman("rm", "try")
