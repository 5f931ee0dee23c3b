"""Composing jobs: the index of what is kept, and what people choose of it."""
