"""The AE Title processor: groups what it receives and makes pipeline jobs of each group."""

import re
import string
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR, keyword_dict, keyword_for_tag
from pydicom.tag import BaseTag, Tag

from dicom_adapter import (
    InstanceGroup,
    JobProcessorBase,
    PipelineName,
    Priority,
    QuarantineInstance,
    Seconds,
    StoredInstance,
)

PIPELINE = "pipeline-"
LEVELS = ("study", "series", "patient", "association")
SHORTEST_TIMEOUT = 5.0
LONGEST_KEY = 1024

# Nothing of these can be compared as a text (PS3.5 section 6.2).
_WITHOUT_TEXT = frozenset({"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN"})
# What lies before is no part of the data set, what lies behind is not read.
_DATA_SET_BEGINS = 0x0008_0000
_PIXEL_DATA_BEGINS = 0x7FE0_0000
_TAG = re.compile(r"\(?([0-9a-f]{4}) ?,? ?([0-9a-f]{4})\)?", re.ASCII | re.IGNORECASE)
_BLANK = f"{string.whitespace}\0"
_CONTROL = re.compile("[\0-\x1f\x7f]")


def _group_by(value: str) -> str:
    if value in LEVELS:
        return value
    tag = _tag(value)
    representation = "LO"
    if tag is not None and not tag.is_private:
        try:
            representation = dictionary_VR(tag)
        except KeyError:
            tag = None
    if tag is None:
        raise ValueError(
            f"must be one of {', '.join(LEVELS)}, or a keyword or tag of the data dictionary "
            f"(AccessionNumber, '0008,0050'), not '{value}'{_near(value, [*LEVELS, *keyword_dict])}"
        )
    has_text = not _WITHOUT_TEXT.intersection(representation.split(" or ")) and tag.element
    if not has_text or not _DATA_SET_BEGINS <= tag < _PIXEL_DATA_BEGINS:
        raise ValueError(f"'{value}' has no text to group by: choose another attribute")
    keyword = keyword_for_tag(tag)
    # A repeating group has one keyword for many tags: (6002,0010) is OverlayRows too.
    return keyword if _is_keyword(keyword) else f"{tag:08X}"


def _tag(value: str) -> BaseTag | None:
    """Return the tag that a keyword, or digits such as 0008,0050, stand for."""
    if _is_keyword(value):
        return Tag(keyword_dict[value])
    digits = _TAG.fullmatch(value.strip())
    return Tag(int(digits[1], 16), int(digits[2], 16)) if digits else None


def _is_keyword(text: str) -> bool:
    # The dictionary has a retired attribute without a keyword.
    return text != "" and text in keyword_dict


def _near(word: str, known: Iterable[str]) -> str:
    matches = get_close_matches(word[:64], known, n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""


class AETitleSettings(BaseModel):
    """The settings of the AE Title processor; each `pipeline-*` makes one job per group."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, PipelineName]
    #: Whether there is nothing to do without a pipeline.
    needs_pipeline: ClassVar[bool] = True

    priority: Literal["lower", "normal", "higher", "immediate"] = "normal"
    timeout: Annotated[Seconds, Field(ge=SHORTEST_TIMEOUT)] = SHORTEST_TIMEOUT
    max_wait: Seconds | None = None
    late: Literal["whole-study", "separate"] = "whole-study"
    group_by: Annotated[str, AfterValidator(_group_by)] = "study"
    on_mismatch: Literal["park", "skip", "fail"] = "park"

    @field_validator("max_wait")
    @classmethod
    def _no_shorter_than_timeout(cls, value: float | None, info: ValidationInfo) -> float | None:
        timeout = info.data.get("timeout")
        if value is not None and timeout is not None and value < timeout:
            raise ValueError(
                f"must be at least the timeout, which is {timeout:g} s, or no group could wait "
                "that long"
            )
        return value

    @property
    def pipelines(self) -> tuple[str, ...]:
        """The names of the pipelines, in the order of the settings."""
        return tuple(self.__pydantic_extra__.values())

    @model_validator(mode="wrap")
    @classmethod
    def _only_pipelines_beside(
        cls, data: object, handler: Callable[[object], "AETitleSettings"]
    ) -> "AETitleSettings":
        """Refuse unknown keys, and settings that make no job, together with all other mistakes."""
        if not isinstance(data, Mapping):
            return handler(data)
        unknown = [
            key for key in data if key not in cls.model_fields and not _names_pipeline(str(key))
        ]
        mistakes = [
            InitErrorDetails(
                type=_unknown_key(str(key), cls.model_fields), loc=(key,), input=data[key]
            )
            for key in unknown
        ]
        if cls.needs_pipeline and not any(_names_pipeline(str(key)) for key in data):
            mistakes.append(InitErrorDetails(type=_nothing_to_do(), loc=(), input=data))
        known = {key: value for key, value in data.items() if key not in unknown}
        try:
            settings = handler(known)
        except ValidationError as error:
            mistakes.extend(_again(details) for details in error.errors(include_url=False))
        if mistakes:
            raise ValidationError.from_exception_data(cls.__name__, mistakes)
        return settings


def _names_pipeline(key: str) -> bool:
    return key.startswith(PIPELINE) and len(key) > len(PIPELINE)


def _unknown_key(key: str, allowed: Iterable[str]) -> PydanticCustomError:
    allowed = tuple(allowed)
    return PydanticCustomError(
        "unknown_key",
        "is an unknown key{near}; allowed are {allowed} and pipeline-<name>",
        {"near": _near(key, [*allowed, PIPELINE]), "allowed": ", ".join(allowed)},
    )


def _nothing_to_do() -> PydanticCustomError:
    return PydanticCustomError(
        "nothing_to_do",
        "the AE title has nothing to do: add a pipeline-<name>: <pipeline> for each job to make",
    )


def _again(details: Any) -> InitErrorDetails:  # noqa: ANN401 - pydantic's ErrorDetails
    # A built-in type of error is rebuilt from its name and context, another from its message.
    kind: str | PydanticCustomError = details["type"]
    if kind in {"value_error", "assertion_error"}:
        message = details["msg"].removeprefix("Value error, ")
        kind = PydanticCustomError("value_error", "{message}", {"message": message})
    return InitErrorDetails(
        type=kind, loc=details["loc"], input=details["input"], ctx=details.get("ctx", {})
    )


class AETitleProcessor(JobProcessorBase):
    """Groups instances by study, series, patient, association or any attribute.

    A group is due `timeout` after its last instance; every `pipeline-*` of the settings then makes
    one job of all its instances, and the reclaimer gets them once the platform has taken the jobs.
    What comes later makes one job more, of all that is still kept of the group or, by `late`, of
    itself alone.
    """

    name = "ae_title"
    Settings = AETitleSettings

    def handle_instance(self, instance: StoredInstance) -> None:
        """Put the instance into the group of its key.

        Raises:
            QuarantineInstance: the attribute to group by is absent or empty.
        """
        key = key_of(instance, self.settings.group_by)
        self.group(instance, key, self.settings.timeout, self.settings.max_wait)

    def handle_group(self, group: InstanceGroup) -> None:
        """Make one job per pipeline of a group that is due, then let its instances go."""
        make_jobs(self, group)
        self.remove_instances(group.instances)


def make_jobs(processor: JobProcessorBase, group: InstanceGroup) -> None:
    """Make one job per pipeline of a processor's settings, which are `AETitleSettings`."""
    settings: AETitleSettings = processor.settings
    priority = Priority.parse(settings.priority)
    is_whole = settings.late == "whole-study"
    for pipeline in settings.pipelines:
        processor.submit_pipeline_job(
            f"{processor.ae_title}-{pipeline}",
            pipeline,
            priority,
            group.whole if is_whole else group.instances,
            supersedes=group.previous if is_whole else None,
            on_mismatch=settings.on_mismatch,
        )


def key_of(instance: StoredInstance, group_by: str) -> str:
    """Return what an instance's group has in common.

    Raises:
        QuarantineInstance: the attribute to group by is absent or empty.
    """
    if group_by == "study":
        return instance.study_instance_uid
    if group_by == "series":
        return instance.series_instance_uid
    if group_by == "association":
        return str(instance.association)
    if group_by == "patient":
        return _patient(instance)
    return _text(instance, instance.read(group_by), group_by)


def _patient(instance: StoredInstance) -> str:
    # Two hospitals may give the same ID to two people: the issuer tells them apart.
    dataset = instance.read("PatientID", "IssuerOfPatientID")
    patient = _text(instance, dataset, "PatientID")
    if "\\" in patient:
        raise QuarantineInstance(
            f"PatientID, by which {instance.ae_title} groups, has several values: nobody can tell "
            "whose instance it is"
        )
    return f"{patient}\\{_optional_text(instance, dataset, 'IssuerOfPatientID')}"


def _text(instance: StoredInstance, dataset: Dataset, attribute: str) -> str:
    value = _optional_text(instance, dataset, attribute)
    if not value:
        raise QuarantineInstance(
            f"{_called(attribute)}, by which {instance.ae_title} groups, is absent or empty: "
            "correct it at the sender and send again, or discard the instance"
        )
    return value


def _optional_text(instance: StoredInstance, dataset: Dataset, attribute: str) -> str:
    tag = Tag(attribute)
    if tag not in dataset:
        return ""
    try:
        texts = _texts(dataset[tag])
    except Exception as error:
        # pydicom meets a value that its representation does not allow with errors of many kinds.
        raise _unusable(instance, attribute, f"{type(error).__name__}: {error}") from error
    text = "\\".join(texts) if any(texts) else ""
    if len(text) > LONGEST_KEY or _CONTROL.search(text):
        raise _unusable(instance, attribute, "too long, or with control characters")
    return text


def _texts(element: DataElement) -> list[str]:
    if element.VR in _WITHOUT_TEXT and element.VR != "UN":
        raise TypeError(f"its representation is {element.VR}")
    values = element.value if element.VM > 1 else [element.value]
    return [_plain(value) for value in values]


def _plain(value: object) -> str:
    if value is None:
        return ""
    # Without its representation on the wire, as a private attribute often is, it comes as bytes.
    text = value.decode("ascii") if isinstance(value, bytes) else str(value)
    return text.strip(_BLANK)


def _unusable(instance: StoredInstance, attribute: str, why: str) -> QuarantineInstance:
    return QuarantineInstance(
        f"{_called(attribute)}, by which {instance.ae_title} groups, has a value that cannot be "
        f"used ({why}): correct it at the sender and send again, or discard the instance"
    )


def _called(attribute: str) -> str:
    return attribute if _is_keyword(attribute) else str(Tag(attribute))
