"""Tests of composing: what is kept, what people choose of it, and the jobs that come of that."""
