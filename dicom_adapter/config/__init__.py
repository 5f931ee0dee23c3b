"""The configuration: one YAML file, checked as a whole, then frozen."""

from dicom_adapter.config.changes import Change, changes
from dicom_adapter.config.commands import container_program
from dicom_adapter.config.dicom import DicomSettings, DicomTimeouts, JwtSettings, TlsSettings
from dicom_adapter.config.executors import Executor
from dicom_adapter.config.grpc import GrpcSettings, GrpcTlsSettings
from dicom_adapter.config.http import Authorities
from dicom_adapter.config.load import load
from dicom_adapter.config.requires import Requirements
from dicom_adapter.config.settings import (
    AETitle,
    Capacity,
    Keep,
    LedgerSettings,
    Limits,
    LogSettings,
    Pipeline,
    PlatformSettings,
    ProcessorCatalogue,
    Project,
    Resources,
    Retries,
    Settings,
    StorageSettings,
)
from dicom_adapter.config.sources import DicomwebSource, Source
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
from dicom_adapter.config.webhooks import SigningKeys, Webhook

__all__ = [
    "AETitle",
    "Authorities",
    "Capacity",
    "Change",
    "DicomSettings",
    "DicomTimeouts",
    "DicomwebSource",
    "Executor",
    "Flag",
    "GrpcSettings",
    "GrpcTlsSettings",
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
    "Project",
    "Requirements",
    "Resources",
    "Retries",
    "Seconds",
    "Settings",
    "SigningKeys",
    "Size",
    "Source",
    "StorageSettings",
    "Text",
    "TlsSettings",
    "Webhook",
    "Whole",
    "changes",
    "container_program",
    "known_pipelines",
    "load",
]
