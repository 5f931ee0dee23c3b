from pathlib import Path

from pydantic import BaseModel

from dicom_adapter.config import Seconds, Settings
from dicom_adapter.config.reference import BEGIN, END, reference, table, updated

PAGE = Path(__file__).parents[2] / "docs/configuration.md"


def test_the_page_is_up_to_date() -> None:
    """Every key stands in the docs with its default, as the models have it."""
    page = PAGE.read_text("utf-8")
    assert BEGIN in page
    assert END in page
    assert updated(page) == page, (
        "run: python -m dicom_adapter.config.reference docs/configuration.md"
    )


def test_every_section_is_told() -> None:
    """No section of the settings is left out, and no key is without its meaning."""
    text = reference()
    for section in set(Settings.model_fields) - {"file"}:
        assert f"### {section}\n" in text
    assert "|  |" not in text
    assert "| `dicom.port` | port, 0 to 65535 | `11112` |" in text
    assert "| `storage.reserve` | size | `5GiB` |" in text
    assert "| `sources.NAME.host` | IP address or network | must be given |" in text


def test_a_strangers_table() -> None:
    """A job processor's settings can be told in the same way."""

    class Own(BaseModel):
        wait: Seconds = 90.0

    assert table(Own, "settings").splitlines()[2] == "| `settings.wait` | duration | `1m30s` |  |"
