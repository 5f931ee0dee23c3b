"""The job processors that ship with DICOM Adapter, written on its public contract alone."""
