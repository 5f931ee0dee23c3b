"""What every section of the configuration is."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A part of the configuration: frozen, and without a key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    named_by: ClassVar[str | None] = None
    """The field that comes from the section's own key in the file, not from a key inside it."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_all_defaults(cls, value: Any) -> Any:  # noqa: ANN401 - whatever stood in the file
        return {} if value is None else value
