"""What a source of studies can be asked, whichever way it is asked, and what it answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, Self

from dicom_adapter.receive.deposit import Deposit, Provenance

#: Attributes by keyword: what they have to be, or what they are.
Attributes = Mapping[str, str]


class Level(StrEnum):
    """What is looked for (PS3.4 section C.6.2.1)."""

    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


#: What identifies what is found at each level.
UIDS = {
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}


@dataclass(frozen=True)
class ElsewhereInstance:
    """An instance that a source has."""

    uid: str = field(repr=False)
    #: Empty where it does not say.
    sop_class_uid: str


@dataclass(frozen=True)
class ElsewhereSeries:
    """A series that a source has."""

    study_uid: str = field(repr=False)
    uid: str = field(repr=False)
    instances: tuple[ElsewhereInstance, ...]


class Archive(Protocol):
    """A source while it is asked: a context, at whose end connections are closed."""

    @property
    def name(self) -> str:
        """What it is called in the configuration."""

    @property
    def provenance(self) -> Provenance:
        """Where its instances come from."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def find(self, level: Level, keys: Attributes) -> Iterator[Attributes]:
        """Yield what matches; of keys whose value is empty the values are wanted.

        Raises:
            UnavailableError: it does not answer now.
            SourceError: it refuses, or cannot do it.
        """

    def retrieve(
        self, series: ElsewhereSeries, wanted: Sequence[ElsewhereInstance], deposit: Deposit
    ) -> Iterator[str]:
        """Have instances of a series come; what is given up early is broken off.

        Yields:
            Why an instance was not taken, or nothing but that it goes on.

        Raises as `find` does.
        """

    def stop(self) -> None:
        """Have whoever waits for it wait no more; called from another thread."""
