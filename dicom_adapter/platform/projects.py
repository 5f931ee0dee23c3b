"""The projects that jobs can be in."""

from collections.abc import Iterable

from dicom_adapter.errors import NotFoundError
from dicom_adapter.model import DEFAULT_PROJECT


class Projects:
    """Knows the projects; the default one is always there."""

    def __init__(self, names: Iterable[str]) -> None:
        self.reload(names)

    def reload(self, names: Iterable[str]) -> None:
        """Have these from now on; a job stays in its own."""
        self._names = frozenset(names) | {DEFAULT_PROJECT}

    def check(self, name: str) -> None:
        """Make sure that there is a project.

        Raises:
            NotFoundError: there is none of that name.
        """
        # Once: they may be exchanged meanwhile.
        names = self._names
        if name not in names:
            known = ", ".join(sorted(names))
            raise NotFoundError(f"there is no project '{name}'; there are {known}")
