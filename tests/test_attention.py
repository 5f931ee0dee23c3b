"""The status names what nobody would find otherwise."""

from pathlib import Path

from tests.support import CONFIG, SUCCESS, ManualClock, make_instance, running, send


def test_instances_of_an_ae_title_that_is_gone_are_named(tmp_path: Path) -> None:
    """Who takes an AE title out of the configuration is told of what still waits for it."""
    clock = ManualClock()
    with running(tmp_path, clock=clock) as adapter:
        assert send(adapter.port, [make_instance()]) == [SUCCESS]
        adapter.grouped(1)
        assert adapter.service.status().attention == ()
    with running(tmp_path, CONFIG.replace("TEST:", "OTHER:"), clock) as adapter:
        (line,) = adapter.service.status().attention
    assert "AE title TEST is not configured any more, but 1 of its instances" in line
