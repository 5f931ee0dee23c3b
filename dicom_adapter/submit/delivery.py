"""What a platform needs before it can be asked for a job: the instances that it does not have."""

from collections.abc import Mapping
from pathlib import Path

from dicom_adapter.model import JobRequest
from dicom_adapter.rpc.client import Client


def upload_missing(client: Client, request: JobRequest, paths: Mapping[str, Path]) -> None:
    """Upload what the platform lacks of a request; where both share a disk that is nothing.

    Args:
        client: The platform.
        request: What will be asked for.
        paths: Where the file of each instance lies, by its id.

    Raises:
        DicomAdapterError: as `Client.errors` does.
        OSError: a file cannot be read.
    """
    for file in client.missing(request.files):
        client.upload(file, paths[file.instance_id])
