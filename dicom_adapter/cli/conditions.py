"""What people write to say which studies and series: `KEYWORD=VALUE`, `STUDY/SERIES:RANGE`."""

from collections.abc import Sequence
from typing import Annotated

import typer

from dicom_adapter.v1 import composition_pb2 as messages

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
