"""A stand-in for the catalogue of job processors, and two ways to load a text."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from dicom_adapter.config import PipelineName, Seconds, Settings, load
from dicom_adapter.errors import ConfigError, NotFoundError


class GroupingSettings(BaseModel):
    """Settings as the default processor has them: pipeline-* are keys of the user's own."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, PipelineName]

    priority: Literal["lower", "normal", "higher", "immediate"] = "normal"
    timeout: Seconds = Field(default=5.0, ge=5)
    max_wait: Seconds | None = None
    group_by: str = "study"
    on_mismatch: str = "park"

    @model_validator(mode="after")
    def _has_something_to_do(self) -> Self:
        if not self.__pydantic_extra__:
            raise ValueError("has nothing to do: name a pipeline, as pipeline-NAME: NAME")
        return self


class StrangeSettings(BaseModel):
    """Settings of a stranger, whose own code fails."""

    @model_validator(mode="before")
    @classmethod
    def _fails(cls, _value: object) -> object:
        raise RuntimeError("out of\norder")


class PlainSettings(BaseModel):
    """Settings of a stranger who says nothing of other keys."""

    quiet: int = 1


class UnionSettings(BaseModel):
    """Settings with kinds of mistake that ours have not."""

    model_config = ConfigDict(extra="forbid")

    either: int | list[int] = 0
    inner: GroupingSettings | None = None
    ratio: float = 1.0
    code: str = Field(default="abc", pattern="^[a-c]+$", min_length=2, max_length=4)
    day: Literal["monday"] | None = None
    many: tuple[int, ...] = Field(default=(), max_length=2)
    secret: bytes = b""
    even: int = Field(default=0, multiple_of=2)
    custom: object = None
    again: object = None

    @field_validator("custom", "again")
    @classmethod
    def _in_own_words(cls, _value: object, info: ValidationInfo) -> object:
        if info.field_name == "custom":
            raise PydanticCustomError("disliked", "is not to my liking")
        # A model that gathers errors itself may give one of pydantic's names to its own.
        raise PydanticCustomError("value_error", "{words}", {"words": "in other words"})


class Catalogue:
    """Knows four processors."""

    def settings_model(self, name: str) -> type[BaseModel]:
        models: dict[str, type[BaseModel]] = {
            "ae_title": GroupingSettings,
            "strange": StrangeSettings,
            "union": UnionSettings,
            "plain": PlainSettings,
        }
        if name == "broken.module:Class":
            raise ImportError("no module named 'broken'")
        if name not in models:
            raise NotFoundError(f"there is no job processor {name!r}; there are {sorted(models)}")
        return models[name]


@pytest.fixture
def catalogue() -> Catalogue:
    """Gives the stand-in."""
    return Catalogue()


@pytest.fixture
def configured(tmp_path: Path, catalogue: Catalogue) -> Callable[[str], Settings]:
    """Loads a text from a file."""

    def configure(text: str) -> Settings:
        file = tmp_path / "adapter.yaml"
        file.write_text(text, "utf-8")
        return load(file, catalogue)

    return configure


@pytest.fixture
def mistakes(tmp_path: Path, configured: Callable[[str], Settings]) -> Callable[[str], list[str]]:
    """Loads a text that is wrong, and gives its mistakes as `LINE: KEY: PROBLEM`."""

    def check(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            configured(text)
        file = str(tmp_path / "adapter.yaml")
        lines = str(caught.value).splitlines()
        assert all(line.startswith(f"{file}:") for line in lines), lines
        return [line.removeprefix(f"{file}:") for line in lines]

    return check
