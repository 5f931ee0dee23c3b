"""How long to wait before something that others may be waiting for too is tried again."""

import random
from datetime import timedelta

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0


def pause_after(attempts: int) -> timedelta:
    """Return how long to wait after so many attempts before the one that has failed now."""
    # Jittered: many adapters must not come back in step to what was started again.
    longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(attempts, 30), LONGEST_PAUSE_SECONDS)
    return timedelta(seconds=longest * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
