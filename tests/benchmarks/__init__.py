"""Tests of the benchmarks: that each measures what it says, not what it finds."""
