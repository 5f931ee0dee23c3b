"""Reads a configuration as a whole, and tells every mistake in it at once."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dicom_adapter.config import commands, document, platform, ports, problems, tls, units
from dicom_adapter.config.changes import FIXED
from dicom_adapter.config.dicom import DicomSettings
from dicom_adapter.config.document import Document, KeyPath
from dicom_adapter.config.executors import Executor, executor_problems, name_problems
from dicom_adapter.config.grpc import GrpcSettings
from dicom_adapter.config.section import Section
from dicom_adapter.config.settings import (
    AETitle,
    LedgerSettings,
    LogSettings,
    Pipeline,
    PlatformSettings,
    ProcessorCatalogue,
    Project,
    Settings,
    StorageSettings,
)
from dicom_adapter.config.sources import DicomwebSource, Source, asking_problems
from dicom_adapter.config.values import (
    check_ae_title,
    check_name,
    ledger_url,
)
from dicom_adapter.config.webhooks import Webhook, webhook_problems
from dicom_adapter.errors import ConfigError, DicomAdapterError
from dicom_adapter.model import DEFAULT_PROJECT

ENVIRONMENT_VARIABLE = "DICOM_ADAPTER_CONFIG"
USUAL_FILE = "dicom-adapter.yaml"

_Model = TypeVar("_Model", bound=BaseModel)
_Named = TypeVar("_Named", Pipeline, Project, AETitle, Source, DicomwebSource, Webhook, Executor)


def load(
    path: Path | None,
    processors: ProcessorCatalogue,
    *,
    data: Path | None = None,
    running: Settings | None = None,
) -> Settings:
    """Reads the configuration; raises ConfigError with every mistake in it.

    Args:
        path: The file. None: the one that the environment names, else ./dicom-adapter.yaml, else
            the built-in default.
        processors: Knows the job processors, and what settings they take.
        data: The data folder, in place of storage.path.
        running: What a service runs by that shall change to it; what needs a restart is a mistake.
    """
    file, base, origin = _find(path)
    found = document.read(file, str(file), origin)
    return _Check(found, base, processors).settings(data, running)


def _find(path: Path | None) -> tuple[Path, Path, str]:
    """Finds the file, the folder that its relative paths start from, and who named it."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if path is None and not named and not Path(USUAL_FILE).exists():
        return Path(__file__).with_name("default.yaml"), Path.cwd(), ""
    file = path or Path(named or USUAL_FILE)
    origin = f" ({ENVIRONMENT_VARIABLE} names it)" if path is None and named else ""
    return file, file.absolute().parent, origin


class _Check:
    """Checks a document section by section, so that one mistake does not hide another."""

    def __init__(self, found: Document, base: Path, processors: ProcessorCatalogue) -> None:
        self._document = found
        self._data: dict[str, Any] = found.data
        self._base = base
        self._processors = processors
        self._problems: list[tuple[KeyPath, str]] = []

    def settings(self, data: Path | None, running: Settings | None) -> Settings:
        """Gives the settings, or raises ConfigError with all mistakes."""
        self._refuse_unknown_sections()
        dicom = self._section("dicom", DicomSettings)
        storage = self._storage(data)
        ledger = self._ledger(storage)
        runs_on = self._section("platform", PlatformSettings)
        grpc = self._section("grpc", GrpcSettings)
        log = self._section("log", LogSettings)
        executors = self._executors()
        pipelines = self._pipelines(runs_on)
        projects = self._projects()
        ae_titles = self._ae_titles(dicom, runs_on)
        sources = self._sources()
        webhooks = self._webhooks(runs_on)
        self._check_sources(dicom, sources)
        if self._sound("platform", "address"):
            self._problems += list(self._platform_problems(runs_on, pipelines))
        if self._sound("grpc") and self._sound("dicom"):
            self._problems += ports.grpc_problems(grpc, dicom, ae_titles)
        self._check_users(dicom, ae_titles)
        if self._sound("dicom", "tls") and dicom.tls is not None:
            self._problems += tls.file_problems(dicom.tls)
            self._problems += ports.tls_problems(dicom.tls, dicom, ae_titles)
        if self._sound("grpc"):
            self._problems += tls.grpc_problems(grpc)
        settings = Settings(
            file=self._document.file,
            dicom=dicom,
            storage=storage,
            ledger=ledger,
            platform=runs_on,
            grpc=grpc,
            log=log,
            executors=executors,
            pipelines=pipelines,
            projects=projects,
            ae_titles=ae_titles,
            sources=sources,
            webhooks=webhooks,
        )
        if running is not None:
            self._check_running(running, settings)
        self._raise_mistakes()
        return settings

    def _raise_mistakes(self) -> None:
        mistakes = set(self._document.mistakes)
        mistakes.update(self._document.mistake(path, text) for path, text in self._problems)
        if mistakes:
            ordered = sorted(mistakes, key=lambda m: (m.line, m.key, m.problem))
            raise ConfigError(tuple(ordered))

    def _blame(self, path: KeyPath, problem: str) -> None:
        self._problems.append((path, problem))

    def _sound(self, *path: str) -> bool:
        """Tells whether nothing was found wrong with a key, in it or around it."""
        return not any(
            path[: len(wrong)] == wrong[: len(path)] for wrong, _problem in self._problems
        )

    # One section at a time

    def _refuse_unknown_sections(self) -> None:
        allowed = tuple(key for key in problems.keys(Settings) if key != "file")
        for key in self._data:
            if key not in allowed:
                self._blame((key,), problems.unknown_key(key, allowed))

    def _mapping(self, *path: str) -> dict[str, Any]:
        """Gives a part of the file that must be a mapping, or nothing at all."""
        value: Any = self._data
        for key in path:
            value = value.get(key)
            if value is None:
                return {}
            if not isinstance(value, dict):
                self._blame(path, f"must be a mapping of keys and values, not {units.show(value)}")
                return {}
        return dict(value)

    def _section(self, key: str, model: type[_Model], raw: dict[str, Any] | None = None) -> _Model:
        if raw is None:
            raw = self._mapping(key)
        section = self._validate(model, raw, (key,))
        # Every section can be made of its defaults; the mistakes are on record.
        return section if section is not None else model()

    def _storage(self, data: Path | None) -> StorageSettings:
        raw = self._mapping("storage")
        if data is not None:
            raw["path"] = data.absolute()
        return self._section("storage", StorageSettings, raw)

    def _ledger(self, storage: StorageSettings) -> LedgerSettings:
        default = ledger_url(storage.path / "ledger.db")
        raw = {"url": default, **self._mapping("ledger")}
        ledger = self._validate(LedgerSettings, raw, ("ledger",))
        return ledger or LedgerSettings(url=default)

    def _validate(
        self,
        model: type[_Model],
        raw: dict[str, Any],
        path: KeyPath,
        context: Mapping[str, Any] | None = None,
    ) -> _Model | None:
        """Validates a part; where it has mistakes, gives what is left without them."""
        context = {"base": self._base, **(context or {})}
        try:
            return model.model_validate(raw, context=context)
        except ValidationError as error:
            self._problems += problems.problems(error, model, self._document, path)
            wrong = {detail["loc"][0] for detail in error.errors() if detail["loc"]}
        rest = {key: value for key, value in raw.items() if key not in wrong}
        try:
            return model.model_validate(rest, context=context)
        except ValidationError:
            return None

    # Sections of many entries, each with a name of its own

    def _entries(self, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name in self._mapping(key):
            raw = self._mapping(key, name)
            if self._sound(key, name):
                yield name, raw

    def _named(
        self,
        model: type[_Named],
        path: tuple[str, str],
        raw: dict[str, Any],
        context: Mapping[str, Any] | None = None,
        **given: object,
    ) -> _Named | None:
        for key in set(given) & set(self._mapping(*path)) - {"settings"}:
            self._blame((*path, key), problems.unknown_key(key, problems.keys(model)))
        return self._validate(model, raw | given, path, context)

    def _executors(self) -> dict[str, Executor]:
        self._problems += name_problems(self._mapping("executors"))
        return self._every(Executor, "executors")

    def _pipelines(self, runs_on: PlatformSettings) -> dict[str, Pipeline]:
        pipelines = {}
        for name, written in self._entries("pipelines"):
            self._check_name("pipelines", name)
            raw = {"executor": runs_on.executor, **written}
            pipeline = self._named(Pipeline, ("pipelines", name), raw, name=name)
            if pipeline is not None:
                pipelines[name] = pipeline
        return pipelines

    def _projects(self) -> dict[str, Project]:
        for name in self._mapping("projects"):
            self._check_name("projects", name)
        return self._every(Project, "projects")

    def _sources(self) -> dict[str, Source | DicomwebSource]:
        found: dict[str, Source | DicomwebSource | None] = {}
        for name, raw in self._entries("sources"):
            path = ("sources", name)
            if "url" in raw:
                found[name] = self._named(DicomwebSource, path, raw)
            else:
                found[name] = self._named(Source, path, raw)
        return {name: source for name, source in found.items() if source is not None}

    def _check_name(self, section: str, name: str) -> None:
        try:
            check_name(name, f"a {section.removesuffix('s')}'s name")
        except ValueError as error:
            self._blame((section, name), str(error))

    def _every(
        self, model: type[_Named], key: str, context: Mapping[str, Any] | None = None
    ) -> dict[str, _Named]:
        found = {
            name: self._named(model, (key, name), raw, context) for name, raw in self._entries(key)
        }
        return {name: made for name, made in found.items() if made is not None}

    def _webhooks(self, runs_on: PlatformSettings) -> dict[str, Webhook]:
        embedded = runs_on.address == "embedded" or not self._sound("platform", "address")
        context = {
            "pipelines": frozenset(self._mapping("pipelines")) if embedded else None,
            "ae_titles": frozenset(title.strip(" ") for title in self._mapping("ae_titles")),
        }
        webhooks = self._every(Webhook, "webhooks", context)
        self._problems += webhook_problems(webhooks, embedded=embedded)
        return webhooks

    def _ae_titles(self, dicom: DicomSettings, runs_on: PlatformSettings) -> dict[str, AETitle]:
        embedded = runs_on.address == "embedded" and self._sound("platform", "address")
        pipelines = frozenset(self._mapping("pipelines")) if embedded else None
        private: frozenset[str] | None = frozenset(dicom.private_sop_classes)
        if not self._sound("dicom", "private_sop_classes"):
            private = None
        context = {
            "pipelines": pipelines,
            "private_sop_classes": private,
            "projects": frozenset(self._mapping("projects")) | {DEFAULT_PROJECT},
        }
        written: dict[str, str] = {}
        ae_titles = {}
        for name, raw in self._entries("ae_titles"):
            title = self._title(name, written)
            raw["settings"] = self._processor_settings(name, raw, context)
            ae_title = self._named(AETitle, ("ae_titles", name), raw, context, title=title)
            if ae_title is not None:
                ae_titles[title] = ae_title
        return ae_titles

    def _title(self, name: str, written: dict[str, str]) -> str:
        """Checks an AE title; a wrong one is stood in for, so that the rest can be checked."""
        path = ("ae_titles", name)
        try:
            title = check_ae_title(name)
        except ValueError as error:
            self._blame(path, str(error))
            return "WRONG"
        if title in written:
            line = self._document.line(("ae_titles", written[title]))
            self._blame(path, f"is given twice, spaces around it do not count: see line {line}")
        written.setdefault(title, name)
        return title

    def _processor_settings(
        self, name: str, raw: dict[str, Any], context: Mapping[str, Any]
    ) -> BaseModel:
        nothing = Section()
        processor = raw.get("processor", "ae_title")
        path = ("ae_titles", name, "settings")
        settings = self._mapping(*path)
        if not isinstance(processor, str) or not self._sound(*path):
            return nothing
        try:
            model = self._processors.settings_model(processor)
        except (DicomAdapterError, LookupError, ValueError, ImportError) as error:
            problem = error.args[0] if isinstance(error, KeyError) and error.args else error
            self._blame(("ae_titles", name, "processor"), str(problem))
            return nothing
        if model.model_config.get("extra", "ignore") == "ignore":
            # pydantic's default would pass over them in silence.
            for key in settings.keys() - set(problems.keys(model)):
                self._blame((*path, key), problems.unknown_key(key, problems.keys(model)))
        try:
            return self._validate(model, settings, path, context) or nothing
        except Exception as error:  # noqa: BLE001 - a stranger's validator may raise anything
            self._blame(path, f"the processor cannot check them: {type(error).__name__}: {error}")
            return nothing

    # Across sections

    def _check_sources(
        self, dicom: DicomSettings, sources: Mapping[str, Source | DicomwebSource]
    ) -> None:
        self._problems += asking_problems(sources, self._mapping("sources"))
        senders = [raw for _name, raw in self._entries("sources") if "url" not in raw]
        if dicom.reject_unknown_sources and not senders:
            self._blame(
                ("dicom", "reject_unknown_sources"),
                "would reject everyone: there are no sources; name them, or make it false",
            )
        if self._sound("dicom"):
            self._problems += tls.source_problems(dicom, sources)

    def _platform_problems(
        self, found: PlatformSettings, pipelines: Mapping[str, Pipeline]
    ) -> platform.Problems:
        if found.address != "embedded":
            yield from platform.remote_problems(found, self._data)
            return
        yield from platform.embedded_problems(found)
        written = self._mapping("pipelines")
        if self._sound("platform", "executor"):
            yield from executor_problems(
                found.executor, self._mapping("executors"), pipelines, written
            )
        if self._sound("platform", "capacity"):
            unfit = platform.capacity_problems(found, pipelines)
            yield from (problem for problem in unfit if self._sound(*map(str, problem[0])))
        yield from commands.problems(pipelines, found, self._base)

    def _check_running(self, running: Settings, settings: Settings) -> None:
        changed = [
            (section, key)
            for section, key in FIXED
            if getattr(getattr(settings, section), key) != getattr(getattr(running, section), key)
            and self._sound(section, key)
        ]
        # What is not written may follow what is: the ledger lies in storage.path.
        if (running.grpc.tls is None) != (settings.grpc.tls is None) and self._sound("grpc", "tls"):
            # Its certificate may be another one; whether there is any may not.
            changed.append(("grpc", "tls"))
        for path in [path for path in changed if path in self._document.lines] or changed:
            self._blame(path, "needs a restart: it cannot change while the service runs")

    def _check_users(self, dicom: DicomSettings, ae_titles: Mapping[str, AETitle]) -> None:
        wanting = [("dicom", "require_user")] if dicom.require_user else []
        wanting += [("ae_titles", name) for name, title in ae_titles.items() if title.require_user]
        if dicom.users or dicom.jwt is not None:
            return
        if self._sound("dicom", "users") and self._sound("dicom", "jwt"):
            for path in wanting:
                self._blame(path, "would reject everyone: there are neither users nor jwt in dicom")
