"""The command line: thin commands over the API of the running service."""

import os

# gRPC's own words, of a failed connection or a port that is taken, are not for people; ours are.
# It looks here but once, when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from dicom_adapter.cli.app import main

__all__ = ["main"]
