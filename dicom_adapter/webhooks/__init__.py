"""Webhooks: whoever is configured is told of the moves of jobs, signed, at least once."""
