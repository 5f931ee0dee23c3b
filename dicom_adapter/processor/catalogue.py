"""Finds job processors: by the name of an entry point, or as `module:Class`."""

import inspect
from importlib import import_module
from importlib.metadata import entry_points

from pydantic import BaseModel

from dicom_adapter.errors import NotFoundError
from dicom_adapter.processor.base import JobProcessorBase

ENTRY_POINTS = "dicom_adapter.processors"


class Catalogue:
    """Knows the processors that are installed here."""

    def load(self, name: str) -> type[JobProcessorBase]:
        """Return the class of a processor.

        Raises:
            NotFoundError: there is none of that name, it cannot be imported, or it is none.
        """
        found = self._import(name) if ":" in name else self._entry_point(name)
        if not (isinstance(found, type) and issubclass(found, JobProcessorBase)):
            raise NotFoundError(f"'{name}' is not a subclass of dicom_adapter.JobProcessorBase")
        if inspect.isabstract(found):
            missing = ", ".join(sorted(found.__abstractmethods__))
            raise NotFoundError(f"'{name}' does not implement {missing}")
        title = getattr(found, "name", None)
        if not isinstance(title, str) or not title.strip():
            raise NotFoundError(f"'{name}' has no `name`: give the class a text of that name")
        settings: object = found.Settings
        if not (isinstance(settings, type) and issubclass(settings, BaseModel)):
            raise NotFoundError(f"`Settings` of '{name}' is not a pydantic model")
        return found

    def settings_model(self, name: str) -> type[BaseModel]:
        """Return the model of a processor's settings; raises as `load` does."""
        return self.load(name).Settings

    def _entry_point(self, name: str) -> object:
        installed = entry_points(group=ENTRY_POINTS)
        places = sorted({entry.value for entry in installed if entry.name == name})
        if not places:
            known = ", ".join(sorted(installed.names))
            raise NotFoundError(
                f"no job processor is called '{name}': use one of {known}, or module:Class"
            )
        if len(places) > 1:
            raise NotFoundError(
                f"several job processors are called '{name}': name the one you mean by its "
                f"module:Class, which are {', '.join(places)}"
            )
        return self._import(places[0])

    def _import(self, path: str) -> object:
        module_name, _, attribute = path.partition(":")
        if not module_name or not attribute:
            raise NotFoundError(f"'{path}' must be module:Class, with a name on both sides")
        try:
            found: object = import_module(module_name)
        except ModuleNotFoundError as error:
            raise NotFoundError(_not_there(module_name, error)) from error
        except (Exception, SystemExit) as error:
            # A stranger's module may fail in any way while it is imported; say how.
            raise NotFoundError(
                f"module '{module_name}' cannot be imported: {type(error).__name__}: {error}"
            ) from error
        for part in attribute.split("."):
            if not hasattr(found, part):
                raise NotFoundError(f"module '{module_name}' has no '{attribute}'")
            found = getattr(found, part)
        return found


def _not_there(module: str, error: ModuleNotFoundError) -> str:
    # The module itself, or a package around it; else it is there, and lacks one that it needs.
    if error.name is not None and f"{module}.".startswith(f"{error.name}."):
        return f"there is no module '{module}': install it, or put its folder on PYTHONPATH"
    return f"module '{module}' cannot be imported: it needs the module '{error.name}'"
