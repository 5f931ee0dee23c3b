from dicom_adapter.ledger import Ledger, uploads
from tests.ledger.make import NOW, after

FIRST, SECOND = ("i1", "a" * 64), ("i1", "b" * 64)


def test_an_upload_is_known_by_its_id_and_its_bytes(ledger: Ledger) -> None:
    """The same id with other bytes is another upload; the same once more is one."""
    with ledger.write() as tx:
        uploads.add(tx, *FIRST, 10, NOW)
        uploads.add(tx, *FIRST, 10, after(1))
        assert uploads.present(tx, ["i1", "i2"]) == {FIRST}
        uploads.add(tx, *SECOND, 10, after(1))
        assert uploads.present(tx, ["i1", *map(str, range(40_000))]) == {FIRST, SECOND}
        assert uploads.every(tx) == {FIRST, SECOND}


def test_an_upload_is_unused_since_it_was_last_asked_for(ledger: Ledger) -> None:
    """Each question about an upload puts its removal off; the one unused for longest goes first."""
    with ledger.write() as tx:
        assert uploads.next_unused(tx) is None
        uploads.add(tx, *FIRST, 10, NOW)
        uploads.add(tx, *SECOND, 10, after(1))
        assert uploads.touch(tx, *FIRST, after(5))
        assert not uploads.touch(tx, "unknown", "a" * 64, after(5))
        assert uploads.next_unused(tx) == after(1)
        assert uploads.unused_since(tx, after(4.9), 10) == [SECOND]
        assert uploads.unused_since(tx, after(5), 10) == [SECOND, FIRST]
        uploads.remove(tx, [SECOND])
        assert uploads.every(tx) == {FIRST}
