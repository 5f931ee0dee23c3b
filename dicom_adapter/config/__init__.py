"""The configuration: one YAML file, checked as a whole, then frozen."""

from dicom_adapter.config.changes import Change, changes
from dicom_adapter.config.commands import container_program
from dicom_adapter.config.dicom import DicomSettings, DicomTimeouts, JwtSettings, TlsSettings
from dicom_adapter.config.load import load
from dicom_adapter.config.settings import (
    AETitle,
    Capacity,
    GrpcSettings,
    Keep,
    LedgerSettings,
    Limits,
    LogSettings,
    Pipeline,
    PlatformSettings,
    ProcessorCatalogue,
    Resources,
    Retries,
    Settings,
    Source,
    StorageSettings,
)
from dicom_adapter.config.values import (
    Flag,
    Percentage,
    PipelineName,
    PositiveSeconds,
    Seconds,
    Size,
    Text,
    Whole,
    known_pipelines,
)

__all__ = [
    "AETitle",
    "Capacity",
    "Change",
    "DicomSettings",
    "DicomTimeouts",
    "Flag",
    "GrpcSettings",
    "JwtSettings",
    "Keep",
    "LedgerSettings",
    "Limits",
    "LogSettings",
    "Percentage",
    "Pipeline",
    "PipelineName",
    "PlatformSettings",
    "PositiveSeconds",
    "ProcessorCatalogue",
    "Resources",
    "Retries",
    "Seconds",
    "Settings",
    "Size",
    "Source",
    "StorageSettings",
    "Text",
    "TlsSettings",
    "Whole",
    "changes",
    "container_program",
    "known_pipelines",
    "load",
]
