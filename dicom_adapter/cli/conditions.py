"""Which studies and series people write of (`KEYWORD=VALUE`, `STUDY/SERIES:RANGE`), and as rows."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import typer
from google.protobuf.message import Message

from dicom_adapter.cli.output import plain
from dicom_adapter.v1 import composition_pb2 as messages

#: The columns that a table of studies has of their attributes.
STUDY_KEYWORDS = ("PatientID", "PatientName", "StudyDate", "StudyDescription")

ConditionsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEYWORD=VALUE",
        help="What attributes have to be, as 'PatientID=123*' or StudyDate=20260101-20260131; one "
        "that is named twice: either value.",
        show_default=False,
    ),
]


def attributes_of(conditions: Sequence[str] | None) -> list[messages.Attribute]:
    """Return what was written as `KEYWORD=VALUE`.

    Raises:
        BadParameter: one of them has another form.
    """
    found = []
    for condition in conditions or ():
        keyword, equals, value = condition.partition("=")
        if not equals:
            raise typer.BadParameter(f"'{condition}' has no value: write it as 'PatientID=123*'.")
        found.append(messages.Attribute(keyword=keyword.strip(), value=value))
    return found


def part_of(text: str, whole: str = "", order: str = "") -> messages.Part:
    """Return what `SERIES`, `SERIES:RANGE` and `STUDY/SERIES:RANGE` name.

    Args:
        text: What was written.
        whole: The range where none is written.
        order: What a range counts.
    """
    uids, _, wanted = text.partition(":")
    study, _, uid = uids.rpartition("/")
    return messages.Part(
        study_instance_uid=study, series_instance_uid=uid, range=wanted or whole, order=order
    )


def rows_of(
    found: Iterable[Message], keywords: Sequence[str], *, as_json: bool
) -> Iterator[dict[str, Any]]:
    """Yield studies or series as rows: for a table, with columns for some of their attributes."""
    for one in found:
        row = plain(one)
        # A program gets all of them, in one place.
        yield row if as_json else row | {key: row["attributes"].get(key) for key in keywords}
