"""DICOM Adapter: studies come in by C-STORE, pipeline jobs go out.

The names here are the public contract of job processors; everything else may change.
"""

from dicom_adapter.config.values import PipelineName, Seconds, Size
from dicom_adapter.errors import QuarantineInstance
from dicom_adapter.model import InstanceGroup, KeptStudy, Priority, StoredInstance
from dicom_adapter.processor.base import JobProcessorBase

__all__ = [
    "InstanceGroup",
    "JobProcessorBase",
    "KeptStudy",
    "PipelineName",
    "Priority",
    "QuarantineInstance",
    "Seconds",
    "Size",
    "StoredInstance",
]
