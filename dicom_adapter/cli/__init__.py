"""The command line: thin commands over the API of the running service."""

import gc
import os

# gRPC's own words, of a failed connection or a port that is taken, are not for people; ours are.
# It looks here but once, when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# Nothing that is imported becomes garbage: to look for it would take a fifth of each start, and of
# each later look as long again.
gc.disable()

from dicom_adapter.cli.app import main  # noqa: E402 - what is above has to come before it

gc.freeze()
gc.enable()

__all__ = ["main"]
