"""Senders that send for ever, and the one that remembers what each of them was answered."""

import secrets
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from io import BytesIO
from itertools import count
from typing import Self

from tests.receive.support import CT
from tests.receive.wire import ASSOCIATE_AC, Raw, associate_rq, raw, store_rq
from tests.support import PATIENCE, SUCCESS, make_instance

STUDIES = 3
# As long as a UID may be, so that one can take the place of another in the bytes.
_UID_LENGTH = 64
_ROOT = "1.2.826.0.1.3680043.10.1."
# A service that is starting refuses connections; it is asked again so often.
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class Sent:
    """An instance as it was sent."""

    uid: str
    #: Of the data set.
    sha256: str
    data: bytes = field(repr=False, compare=False)


def _template(study: int, pixels: int) -> tuple[str, bytes]:
    """Return a data set of a study, with so many bytes of pixels, and the UID that stands in it."""
    uid = _ROOT.ljust(_UID_LENGTH, "1")
    made, content = make_instance(study=f"1.2.3.{study}", SOPInstanceUID=uid), BytesIO()
    made.PixelData = bytes(pixels)
    if not pixels:
        del made.PixelData
    made.save_as(content, enforce_file_format=True)
    length = int.from_bytes(content.getvalue()[140:144], "little")
    return uid, content.getvalue()[144 + length :]


class Oracle:
    """Makes instances, each another one, and knows of each what its sender was told."""

    def __init__(self, pixels: int = 0) -> None:
        """Make one, whose instances have so many bytes of pixels."""
        self._lock = threading.Condition()
        self._templates = [_template(study, pixels) for study in range(STUDIES)]
        self._number = count(int(secrets.token_hex(6), 16))
        self.made: dict[str, Sent] = {}
        self.times_sent: Counter[str] = Counter()
        self.acknowledged: dict[str, Sent] = {}
        self.refused: list[tuple[str, int]] = []

    def next(self) -> Sent:
        """Return a new instance."""
        with self._lock:
            number = next(self._number)
            old, data = self._templates[number % STUDIES]
            uid = (_ROOT + "1" + str(number)).ljust(_UID_LENGTH, "0")
            data = data.replace(old.encode(), uid.encode())
            made = self.made[uid] = Sent(uid, sha256(data).hexdigest(), data)
            return made

    def sends(self, instance: Sent) -> None:
        """Note that an instance is being sent, perhaps again."""
        with self._lock:
            self.times_sent[instance.uid] += 1

    def answered(self, instance: Sent, status: int) -> None:
        """Note what the sender of an instance was told."""
        with self._lock:
            if status == SUCCESS:
                # Without its bytes, of which there would be too many in the end.
                told = replace(instance, data=b"")
                self.acknowledged[instance.uid] = self.made[instance.uid] = told
            else:
                self.refused.append((instance.uid, status))
            self._lock.notify_all()

    def wait_for(self, acknowledged: int) -> None:
        """Wait until so many instances are acknowledged."""
        with self._lock:
            there = self._lock.wait_for(lambda: len(self.acknowledged) >= acknowledged, PATIENCE)
        assert there, f"{len(self.acknowledged)} acknowledged, not {acknowledged}"

    def told(self) -> dict[str, Sent]:
        """Return what is acknowledged by now."""
        with self._lock:
            return dict(self.acknowledged)


def associate(peer: Raw) -> None:
    """Ask for an association."""
    peer.send(associate_rq())
    assert peer.read()[0] == ASSOCIATE_AC


def begin(peer: Raw, oracle: Oracle, instance: Sent) -> bytes:
    """Send the first half of an instance; return the rest, which is the caller's to send."""
    oracle.sends(instance)
    message = store_rq(CT.encode(), instance.uid.encode(), instance.data)
    peer.send(message[: len(message) // 2])
    return message[len(message) // 2 :]


def store(peer: Raw, oracle: Oracle, instance: Sent) -> int:
    """Send an instance over an association; return the status of the answer."""
    oracle.sends(instance)
    peer.send(store_rq(CT.encode(), instance.uid.encode(), instance.data))
    status = peer.status()
    oracle.answered(instance, status)
    return status


class Senders:
    """Associations that send one instance after another, and come again when they are cut off.

    An instance whose answer never came is sent again, as every good sender does.
    """

    def __init__(self, oracle: Oracle, port: int, number: int = 4, pause: float = 0) -> None:
        """Make them.

        Args:
            oracle: Makes what they send.
            port: Where they send it.
            number: How many they are.
            pause: Seconds that each waits between two instances.
        """
        self._oracle = oracle
        self._port = port
        self._pause = pause
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(number)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        unanswered: list[Sent] = []
        while not self._stopping.is_set():
            # Whatever a dying peer does to a connection, the sender begins another one.
            with suppress(OSError, AssertionError), raw(self._port) as peer:
                associate(peer)
                while not self._stopping.is_set():
                    unanswered = unanswered or [self._oracle.next()]
                    store(peer, self._oracle, unanswered[0])
                    unanswered = []
                    self._stopping.wait(self._pause)
            self._stopping.wait(_PAUSE_SECONDS)
