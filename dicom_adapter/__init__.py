"""DICOM Adapter: studies come in by C-STORE, pipeline jobs go out."""
