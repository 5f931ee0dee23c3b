"""Retrieving: studies that are elsewhere, asked for by people, come into an AE title that keeps."""
