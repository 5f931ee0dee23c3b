"""What is handed to another platform: one item, by its manifest, with the files that lack there."""

import json
from collections.abc import Mapping
from pathlib import Path

from dicom_adapter.model import InputFile, Job, JobInput, JobRequest
from dicom_adapter.platform.workspace import Workspace
from dicom_adapter.rpc.client import Client


def package(
    job: Job, workspace: Workspace, request_id: str
) -> tuple[JobRequest, Mapping[tuple[str, str], Path]]:
    """Return what is handed over, by what the item's manifest says, and where its files lie.

    An instance is known there by its content: whoever has sent it, it is uploaded once.
    """
    manifest = json.loads(workspace.manifest.read_text("utf-8"))
    paths: dict[tuple[str, str], Path] = {}

    def taken(file: Mapping[str, str]) -> InputFile:
        found = InputFile(file["sha256"], file["sha256"], file["sop_instance_uid"])
        paths[found.key] = workspace.input / file["file"]
        return found

    inputs = tuple(
        JobInput(each["study"], each["series"], each["range"], tuple(map(taken, each["files"])))
        for each in manifest["inputs"]
    )
    request = JobRequest(
        request_id=request_id,
        name=job.name,
        pipeline=job.rules.remote_pipeline,
        priority=job.priority,
        ae_title=job.ae_title,
        items=(inputs,),
        arguments=job.arguments,
    )
    return request, paths


def submit(client: Client, request: JobRequest, paths: Mapping[tuple[str, str], Path]) -> str:
    """Have another platform make a job, and return its id; raises as `Client.errors` does."""
    for file in client.missing(request.files):
        client.upload(file, paths[file.key])
    return client.submit(request)
