"""What happens after the answer happens after the answer."""

import threading
from pathlib import Path

from tests.receive.support import receiving
from tests.support import PATIENCE, SUCCESS, association, make_instance


def test_the_processor_is_told_after_the_sender_had_its_answer(tmp_path: Path) -> None:
    """Whoever is told of a stored instance may wait for its sender, who has its answer already."""
    answered, told = threading.Event(), threading.Event()
    titles: list[tuple[str, bool]] = []

    def stored(title: str) -> None:
        titles.append((title, answered.wait(PATIENCE)))
        told.set()

    with receiving(tmp_path, stored=stored) as adapter:
        with association(adapter.ports[0]) as opened:
            assert opened.send_c_store(make_instance()).Status == SUCCESS
            answered.set()
        assert told.wait(PATIENCE)
    assert titles == [("TEST", True)]
