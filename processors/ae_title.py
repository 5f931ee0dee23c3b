"""The AE Title processor: groups what it receives and makes pipeline jobs of each group."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.tag import Tag

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

# Nothing of these can be compared as a text (PS3.5 section 6.2).
_WITHOUT_TEXT = frozenset({"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_DATA_SET_BEGINS = 0x0008_0000


def _group_by(value: str) -> str:
    if value in LEVELS:
        return value
    try:
        tag = Tag(value.strip("()").replace(" ", ""))
        representation = dictionary_VR(tag) if not tag.is_private else "LO"
    except (KeyError, ValueError, OverflowError):
        raise ValueError(
            f"must be one of {', '.join(LEVELS)}, or a keyword or tag of the data dictionary "
            f"(AccessionNumber, '0008,0050'), not '{value}'"
        ) from None
    if _WITHOUT_TEXT.intersection(representation.split(" or ")) or tag < _DATA_SET_BEGINS:
        raise ValueError(f"'{value}' has no text to group by: choose another attribute")
    return keyword_for_tag(tag) or f"{tag:08X}"


class AETitleSettings(BaseModel):
    """The settings of the AE Title processor; each `pipeline-*` makes one job per group."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, PipelineName]

    priority: Literal["lower", "normal", "higher", "immediate"] = "normal"
    timeout: Annotated[Seconds, Field(ge=SHORTEST_TIMEOUT)] = SHORTEST_TIMEOUT
    max_wait: Seconds | None = None
    group_by: Annotated[str, AfterValidator(_group_by)] = "study"

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
            InitErrorDetails(type=_unknown_key(), loc=(key,), input=data[key]) for key in unknown
        ]
        if not any(_names_pipeline(str(key)) for key in data):
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


def _unknown_key() -> PydanticCustomError:
    return PydanticCustomError(
        "unknown_key",
        "unknown key: allowed are priority, timeout, max_wait, group_by and pipeline-<name>",
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
    """

    name = "ae_title"
    Settings = AETitleSettings

    def handle_instance(self, instance: StoredInstance) -> None:
        """Put the instance into the group of its key.

        Raises:
            QuarantineInstance: the attribute to group by is absent or empty.
        """
        key = _key(instance, self.settings.group_by)
        self.group(instance, key, self.settings.timeout, self.settings.max_wait)

    def handle_group(self, group: InstanceGroup) -> None:
        """Make one job per pipeline of a group that is due, then let its instances go."""
        priority = Priority.parse(self.settings.priority)
        for pipeline in self.settings.pipelines:
            self.submit_pipeline_job(
                f"{self.ae_title}-{pipeline}", pipeline, priority, group.instances
            )
        self.remove_instances(group.instances)


def _key(instance: StoredInstance, group_by: str) -> str:
    if group_by == "study":
        return instance.study_instance_uid
    if group_by == "series":
        return instance.series_instance_uid
    if group_by == "association":
        return str(instance.association)
    if group_by == "patient":
        # Two hospitals may give the same ID to two people: the issuer tells them apart.
        patient = _text(instance, "PatientID")
        return f"{patient}\\{_optional_text(instance, 'IssuerOfPatientID')}"
    return _text(instance, group_by)


def _text(instance: StoredInstance, attribute: str) -> str:
    value = _optional_text(instance, attribute)
    if not value:
        raise QuarantineInstance(
            f"{attribute}, by which {instance.ae_title} groups, is absent or empty: "
            "correct it at the sender and send again, or discard the instance"
        )
    return value


def _optional_text(instance: StoredInstance, attribute: str) -> str:
    tag = Tag(attribute)
    dataset = instance.read(tag)
    if tag not in dataset or dataset[tag].VR in _WITHOUT_TEXT or dataset[tag].value is None:
        return ""
    value = dataset[tag].value
    values = value if dataset[tag].VM > 1 else [value]
    return "\\".join(str(value).strip(" \0") for value in values)
