"""What a client asks for: whether it can be, and whether it is the same as before."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256

from dicom_adapter.errors import InvalidArgumentError
from dicom_adapter.model import DEFAULT_PROJECT, JobInput, JobRequest, safe_name
from dicom_adapter.platform.uploads import check

LONGEST_REQUEST_ID = 128
MOST_ITEMS = 1000
LONGEST_NAME = 200
# A page of a thousand jobs, with all of them, must fit into one message of gRPC.
LONGEST_ARGUMENTS = 32 * 1024
MOST_UNMET = 100
LONGEST_UNMET = 1024


def check_request(request: JobRequest) -> None:
    """Raise InvalidArgumentError, which names the field, where a request is wrong."""
    if not 0 < len(request.request_id) <= LONGEST_REQUEST_ID:
        raise InvalidArgumentError("request_id", f"must have 1 to {LONGEST_REQUEST_ID} characters")
    if not safe_name(request.name):
        raise InvalidArgumentError("name", "must have a letter or digit")
    if not 0 < len(request.items) <= MOST_ITEMS:
        raise InvalidArgumentError("items", f"must be 1 to {MOST_ITEMS}, not {len(request.items)}")
    if len(request.requested_by) > LONGEST_NAME:
        raise InvalidArgumentError("requested_by", f"must have at most {LONGEST_NAME} characters")
    length = sum(len(word.encode()) for pair in request.arguments.items() for word in pair)
    if length > LONGEST_ARGUMENTS:
        raise InvalidArgumentError(
            "arguments",
            f"must be at most {LONGEST_ARGUMENTS} bytes in all, not {length}: name a file instead",
        )
    _check_unmet(request.unmet)
    _check_inputs(request)


def _check_inputs(request: JobRequest) -> None:
    for place, inputs in enumerate(request.items):
        if not inputs:
            raise InvalidArgumentError(f"items[{place}].inputs", "must name at least one series")
        for number, series in enumerate(inputs):
            where = f"items[{place}].inputs[{number}].instances"
            if not series.files:
                raise InvalidArgumentError(where, "must not be empty")
            for position, file in enumerate(series.files):
                check(file, f"{where}[{position}]")


def _check_unmet(lines: Sequence[str]) -> None:
    if len(lines) > MOST_UNMET:
        raise InvalidArgumentError("unmet", f"must be at most {MOST_UNMET} lines")
    if not all(0 < len(line) <= LONGEST_UNMET for line in lines):
        raise InvalidArgumentError("unmet", f"must have 1 to {LONGEST_UNMET} characters a line")


def inputs_digest(items: Sequence[Sequence[JobInput]]) -> str:
    """Return the sha256 of what a job works on: its instances, in their order, by their UIDs."""
    uids = [
        [[one.study, one.series, *(file.sop_instance_uid for file in one.files)] for one in inputs]
        for inputs in items
    ]
    return sha256(json.dumps(uids).encode()).hexdigest()


def digest_of(request: JobRequest, *more: str) -> str:
    """Return the sha256 of all that a request says, and of what it is besides."""
    fields = asdict(request)
    # As it was before there were these fields: a request that was made then may come again.
    if request.supersedes is None:
        del fields["supersedes"]
    if request.project == DEFAULT_PROJECT:
        del fields["project"]
    for name in ("fail_fast", "refuse_duplicate", "requested_by"):
        if not fields[name]:
            del fields[name]
    # What a client finds of the inputs may change between two tries of one request.
    del fields["unmet"]
    items = fields.pop("items")
    fields |= {"inputs": items[0]} if len(items) == 1 else {"items": items}
    values = "".join([json.dumps(fields, sort_keys=True, default=str), *more])
    return sha256(values.encode()).hexdigest()
