"""What a client asks of a list that comes in pages."""

import re

from dicom_adapter.errors import InvalidArgumentError

LARGEST_PAGE = 1000
DEFAULT_PAGE = 100
# The number of the last row, which fits into the ledger's integers.
_TOKEN = re.compile("[0-9]{0,18}")


def page_of(size: int, token: str) -> tuple[int, int | None]:
    """Return how many rows a page has at most, and before which row it begins; None: the newest.

    Raises:
        InvalidArgumentError: the size is negative, or the token none that a page ended with.
    """
    if size < 0:
        raise InvalidArgumentError("page_size", "must not be negative")
    if not _TOKEN.fullmatch(token):
        raise InvalidArgumentError("page_token", "must be the one of the page before")
    return min(size or DEFAULT_PAGE, LARGEST_PAGE), int(token) if token else None


def token_of(last: int | None) -> str:
    """Return what the next page is asked for by; empty where there is none."""
    return "" if last is None else str(last)
