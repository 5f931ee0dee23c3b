"""What asks a running service to stop, or to go by another configuration."""

import os
import signal
import subprocess
import sys
import threading

from dicom_adapter.cli.signals import Asked, Signals, handled

#: Sends the process that has started it a signal for each byte that it gets.
SENDER = f"import os\nwhile os.read(0, 1): os.kill({{}}, {signal.SIGHUP:d})"
ROUNDS = 100


def test_no_signal_is_lost_while_other_threads_are_busy() -> None:
    """One that comes between the interpreter's last look and the wait ends the wait all the same.

    With the interpreter's own waiting one of ten was lost so: the main thread waited for ever.
    """
    ended = threading.Event()
    busy = [threading.Thread(target=_work_until, args=(ended,)) for _ in range(2)]
    command = [sys.executable, "-c", SENDER.format(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0) as sender, handled() as given:
        assert sender.stdin is not None
        signals = Signals(given.wake, on_terminal=False)
        signal.signal(signal.SIGHUP, signals.handle)
        given.wake.settimeout(10)
        try:
            for thread in busy:
                thread.start()
            for _ in range(ROUNDS):
                sender.stdin.write(b"x")
                assert signals.wait() is Asked.RELOAD
        finally:
            ended.set()
            for thread in busy:
                thread.join()
            sender.stdin.close()


def _work_until(ended: threading.Event) -> None:
    while not ended.is_set():
        sum(range(50))
