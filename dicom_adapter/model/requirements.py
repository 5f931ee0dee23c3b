"""What a pipeline requires of the series that it is to run over."""

from dataclasses import dataclass
from enum import StrEnum

from dicom_adapter.model.expressions import TagCondition


class Plane(StrEnum):
    """How the slices of a series lie in the patient."""

    AXIAL = "axial"
    SAGITTAL = "sagittal"
    CORONAL = "coronal"
    OBLIQUE = "oblique"


class OnMismatch(StrEnum):
    """What becomes of a submission whose series do not meet what the pipeline requires."""

    #: It waits for a person, as one that the platform refuses.
    PARK = "park"
    #: No job is made; that is recorded.
    SKIP = "skip"
    #: The platform has a job of it that failed.
    FAIL = "fail"


@dataclass(frozen=True)
class Bounds:
    """A lowest and a highest value; None where there is none."""

    min: float | None = None
    max: float | None = None

    @property
    def is_limited(self) -> bool:
        """Whether it leaves anything out."""
        return self.min is not None or self.max is not None

    def said(self, unit: str = "") -> str:
        """Return it as a person would say it, such as `at least 1 mm`."""
        if self.min is not None and self.max is not None:
            return f"{self.min:.10g} to {self.max:.10g}{unit}"
        if self.min is not None:
            return f"at least {self.min:.10g}{unit}"
        return "anything" if self.max is None else f"at most {self.max:.10g}{unit}"


@dataclass(frozen=True)
class Requirements:
    """What series must be; an empty tuple, and None, ask for nothing."""

    #: As it stands in Modality; one of these.
    modality: tuple[str, ...] = ()
    #: UIDs; one of these.
    sop_class: tuple[str, ...] = ()
    transfer_syntax: tuple[str, ...] = ()
    #: As it stands in BodyPartExamined; one of these.
    body_part: tuple[str, ...] = ()
    #: How many instances a series has.
    instances: Bounds = Bounds()
    #: How many series an item of a job has.
    series: Bounds = Bounds()
    several_patients: bool = False
    #: Millimetres.
    slice_thickness: Bounds = Bounds()
    #: Millimetres between neighbouring slices.
    slice_spacing: Bounds = Bounds()
    orientation: tuple[Plane, ...] = ()
    contrast: bool | None = None
    tags: tuple[TagCondition, ...] = ()
