"""The program of the process that draws a picture: told what by its input, PNG is its output.

A decoder that bad data brings down takes nothing along but this process, and one that never ends is
ended. It is started by `drawing` alone.
"""

import json
import os
import resource
import sys
from pathlib import Path

from dicom_adapter.errors import DicomAdapterError
from dicom_adapter.pictures.codecs import register
from dicom_adapter.pictures.drawing import REFUSED
from dicom_adapter.pictures.picture import montage, render

_CPU_SECONDS = 120
_MEMORY_BYTES = 4 * 1024**3


def main() -> None:
    """Draw what is asked for; a refusal is told as its kind and its words."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The answer alone: a line of a log, or of a decoder, would stand in the middle of it.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    register()
    asked = json.load(sys.stdin)
    paths = [Path(path) for path in asked["paths"]]
    try:
        if asked["is_montage"]:
            drawn = montage(paths, longest=asked["longest"])
        else:
            drawn = render(paths[0], frame=asked["frame"], longest=asked["longest"])
    except DicomAdapterError as error:
        answer.write(json.dumps([type(error).__name__, str(error)]).encode())
        answer.close()
        sys.exit(REFUSED)
    answer.write(drawn)
    answer.close()


if __name__ == "__main__":
    main()
