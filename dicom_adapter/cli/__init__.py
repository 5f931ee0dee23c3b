"""The command line: thin commands over the API of the running service."""

from dicom_adapter.cli.app import main

__all__ = ["main"]
