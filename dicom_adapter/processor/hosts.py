"""The job processors of all AE titles together: started, exchanged while they work, stopped."""

import time
from collections.abc import Callable, Iterable, Mapping

from dicom_adapter.config import AETitle
from dicom_adapter.processor.host import ProcessorHost


class Hosts:
    """Has one host for each AE title; to exchange some is to prepare them, then to switch."""

    def __init__(self, make: Callable[[AETitle], ProcessorHost]) -> None:
        self._make = make
        # With those of AE titles that are gone: what comes back waits for their last call.
        self._hosts: dict[str, ProcessorHost] = {}

    def prepare(self, titles: Mapping[str, AETitle]) -> dict[str, ProcessorHost]:
        """Start the job processors that AE titles need and do not have; none is called yet.

        Raises:
            StartError: one of them cannot start; the others are stopped again.
        """
        prepared: dict[str, ProcessorHost] = {}
        try:
            for name, title in titles.items():
                if name not in self._hosts or not self._hosts[name].serves(title):
                    host = self._make(title)
                    host.start()
                    prepared[name] = host
        except BaseException:
            self.discard(prepared.values())
            raise
        return prepared

    def discard(self, prepared: Iterable[ProcessorHost]) -> None:
        """Stop what was prepared and is not wanted after all."""
        for host in prepared:
            host.discard()

    def switch(self, titles: Iterable[str], prepared: Mapping[str, ProcessorHost]) -> None:
        """Serve these AE titles, with what was prepared for them in place of what they had.

        Each processor that is replaced or not needed any more ends with its current call; nobody
        waits for that but its own successor.
        """
        before = self._hosts
        # Exchanged as a whole: others look here meanwhile.
        self._hosts = {**before, **prepared}
        for name in before.keys() - titles:
            before[name].retire()
        for name, host in prepared.items():
            host.work(before.get(name))

    def wake(self, title: str) -> None:
        """Have an AE title's processor called soon; one that is gone has nobody to call."""
        if title in self._hosts:
            self._hosts[title].wake()

    def wake_all(self) -> None:
        """Have every processor called soon."""
        for host in self._hosts.values():
            host.wake()

    def stop(self, grace: float) -> None:
        """Let current calls end and stop all processors, in `grace` seconds together."""
        for host in self._hosts.values():
            host.retire()
        deadline = time.monotonic() + grace
        for host in self._hosts.values():
            host.stop(max(0.0, deadline - time.monotonic()))
