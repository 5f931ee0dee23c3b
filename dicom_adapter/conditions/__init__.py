"""Whether series are what a pipeline requires: pure, over the few attributes that matter."""

from dicom_adapter.conditions.checks import Series, Unmet, told, unmet, wanted

__all__ = ["Series", "Unmet", "told", "unmet", "wanted"]
