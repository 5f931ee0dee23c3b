"""The conformance statement says what the program does."""

from tests.docs import conformance


def test_every_table_of_the_statement_is_what_the_program_says() -> None:
    """The page equals itself with its tables made anew."""
    page = conformance.PAGE.read_text("utf-8")
    assert conformance.updated(page) == page
