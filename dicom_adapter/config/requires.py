"""What a pipeline requires of the series that it gets: `pipelines.NAME.requires`."""

import re
from functools import cache
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydicom.uid import AllTransferSyntaxes

from dicom_adapter.config import units
from dicom_adapter.config.section import Section
from dicom_adapter.config.sop_classes import StorageClass
from dicom_adapter.config.values import Flag, Kind, Whole, check_uid, near
from dicom_adapter.model import Bounds, Plane
from dicom_adapter.model import Requirements as Required
from dicom_adapter.model.expressions import parse

_CODE = re.compile(r"[A-Z0-9 _]{1,16}", re.ASCII)


def _code(value: str) -> str:
    # Such values are in capitals (PS3.5 6.2, CS); people write them as they like.
    code = value.strip().upper()
    if not _CODE.fullmatch(code):
        raise ValueError(
            "must be a code as it stands in the image, 1 to 16 letters, digits, spaces or "
            f"underscores, not {units.show(value)}"
        )
    return code


@cache
def _transfer_syntaxes() -> dict[str, str]:
    return {uid.keyword: str(uid) for uid in AllTransferSyntaxes}


def _transfer_syntax(value: str) -> str:
    if value[:1].isdigit():
        return check_uid(value)
    known = _transfer_syntaxes()
    if value not in known:
        raise ValueError(
            f"{units.show(value)} is no transfer syntax: give its UID, or its keyword such as "
            f"ExplicitVRLittleEndian{near(value, known)}"
        )
    return known[value]


def _expression(value: str) -> str:
    return str(parse(value))


def _not_empty(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("would accept nothing: leave it out to accept everything")
    return values


_NotEmpty = AfterValidator(_not_empty)
Code: TypeAlias = Annotated[str, AfterValidator(_code), Kind("code")]
Codes: TypeAlias = Annotated[tuple[Code, ...], _NotEmpty]
StorageClasses: TypeAlias = Annotated[tuple[StorageClass, ...], _NotEmpty]
TransferSyntax: TypeAlias = Annotated[str, AfterValidator(_transfer_syntax), Kind("UID or keyword")]
TransferSyntaxes: TypeAlias = Annotated[tuple[TransferSyntax, ...], _NotEmpty]
Planes: TypeAlias = Annotated[
    tuple[Literal["axial", "sagittal", "coronal", "oblique"], ...], _NotEmpty
]
Expression: TypeAlias = Annotated[str, AfterValidator(_expression), Kind("expression")]
Millimetres: TypeAlias = Annotated[
    float, Field(strict=True, ge=0, allow_inf_nan=False), Kind("number of mm")
]


def _no_less(value: float | None, info: ValidationInfo, lowest: str) -> None:
    least = info.data.get(lowest)
    if value is not None and least is not None and value < least:
        raise ValueError(f"must be at least {lowest}, which is {least:g}, or nothing could meet it")


class SliceThickness(Section):
    """How thick slices may be."""

    min: Millimetres | None = Field(default=None, description="The thinnest slice.")
    max: Millimetres | None = Field(default=None, description="The thickest slice.")

    @field_validator("max")
    @classmethod
    def _some_are_left(cls, value: float | None, info: ValidationInfo) -> float | None:
        _no_less(value, info, "min")
        return value


class SliceSpacing(Section):
    """How far apart neighbouring slices may be."""

    min: Millimetres | None = Field(
        default=None, description="The least distance of neighbouring slices."
    )
    max: Millimetres | None = Field(
        default=None, description="The largest distance of neighbouring slices, gaps included."
    )

    @field_validator("max")
    @classmethod
    def _some_are_left(cls, value: float | None, info: ValidationInfo) -> float | None:
        _no_less(value, info, "min")
        return value


class Requirements(Section):
    """What must be true of the series before a job is made of them."""

    modality: Codes | None = Field(default=None, description="The Modality, one of these.")
    sop_class: StorageClasses | None = Field(
        default=None, description="The SOP class of every instance, one of these."
    )
    transfer_syntax: TransferSyntaxes | None = Field(
        default=None, description="The transfer syntax of every instance, one of these."
    )
    body_part: Codes | None = Field(
        default=None, description="The Body Part Examined, one of these."
    )
    min_instances: Whole | None = Field(
        default=None, ge=1, description="The fewest instances of a series."
    )
    max_instances: Whole | None = Field(
        default=None, ge=1, description="The most instances of a series."
    )
    min_series: Whole | None = Field(
        default=None, ge=1, description="The fewest series of a job's item."
    )
    max_series: Whole | None = Field(
        default=None, ge=1, description="The most series of a job's item."
    )
    patients: Literal["one", "several"] = Field(
        default="one", description="Whose series a job's item may have."
    )
    slice_thickness: SliceThickness = SliceThickness()
    slice_spacing: SliceSpacing = SliceSpacing()
    orientation: Planes | None = Field(
        default=None, description="How every slice lies in the patient, one of these."
    )
    contrast: Flag | None = Field(
        default=None, description="Whether a contrast agent was given, or was not."
    )
    tags: tuple[Expression, ...] = Field(
        default=(),
        description="What must be true of other attributes; docs/conditions.md says how it is "
        "written.",
    )

    @field_validator("max_instances", "max_series")
    @classmethod
    def _some_are_left(cls, value: int | None, info: ValidationInfo) -> int | None:
        _no_less(value, info, str(info.field_name).replace("max_", "min_"))
        return value

    @property
    def frozen(self) -> Required:
        """The same as the value that series are checked against."""
        return Required(
            modality=self.modality or (),
            sop_class=self.sop_class or (),
            transfer_syntax=self.transfer_syntax or (),
            body_part=self.body_part or (),
            instances=Bounds(self.min_instances, self.max_instances),
            series=Bounds(self.min_series, self.max_series),
            several_patients=self.patients == "several",
            slice_thickness=Bounds(self.slice_thickness.min, self.slice_thickness.max),
            slice_spacing=Bounds(self.slice_spacing.min, self.slice_spacing.max),
            orientation=tuple(map(Plane, self.orientation or ())),
            contrast=self.contrast,
            tags=tuple(map(parse, self.tags)),
        )
