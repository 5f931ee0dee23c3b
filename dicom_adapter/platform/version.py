"""What one version of a pipeline is."""

import json
from collections.abc import Sequence
from hashlib import sha256


def version_of(
    command: Sequence[str],
    steps: Sequence[str],
    image: str = "",
    image_id: str = "",
    remote: Sequence[str] = (),
) -> str:
    """Return a hash of what a pipeline runs: one version is one command, in one image.

    An image is known by its content; one that is not here yet by its name; what runs at another
    platform by the executor's name and the pipeline's there.
    """
    runs: list[object] = [command, steps]
    if remote:
        runs = [remote, *runs]
    if image:
        runs = [image_id or image, *runs]
    definition = json.dumps(runs, separators=(",", ":"))
    return sha256(definition.encode()).hexdigest()[:12]
