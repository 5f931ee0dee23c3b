"""Job processors that are none, each for a reason of its own."""

from typing import ClassVar

from dicom_adapter import JobProcessorBase, StoredInstance

NOT_A_CLASS = 5


class NoProcessor:
    """No subclass of the base."""

    name = "none"


class Abstract(JobProcessorBase):
    """Without its one required method."""

    name = "abstract"


class Nameless(JobProcessorBase):
    """Without a name."""

    def handle_instance(self, instance: StoredInstance) -> None:
        """Do nothing."""


class Blank(Nameless):
    """With a name that nobody can read."""

    name = " "


class WrongSettings(Nameless):
    """With settings that cannot be checked."""

    name = "wrong"
    Settings: ClassVar[type] = dict


class CannotBeMade(Nameless):
    """Raises when it is made."""

    name = "unmade"

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        raise RuntimeError("no\nlicence")


class CannotStart(Nameless):
    """Raises when it is started."""

    name = "unstarted"

    def start(self) -> None:
        """Raise."""
        raise OSError("no model file")


class CannotStop(Nameless):
    """Raises when it is stopped."""

    name = "unstopped"

    def stop(self) -> None:
        """Raise."""
        raise RuntimeError("DOE^JANE")
