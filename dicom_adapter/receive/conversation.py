"""One association as it is told: who talks, what was done, and every line that is said of it."""

import time
from collections.abc import Sequence
from typing import Any

import structlog

from dicom_adapter.errors import fingerprint
from dicom_adapter.model import Recorded
from dicom_adapter.receive.part10 import is_uid
from dicom_adapter.receive.policy import Caller, Refusal

log = structlog.get_logger()

US, PEER = "this service", "the peer"


class Conversation:
    """Says what happens in an association, and sums it up at its end."""

    def __init__(self, number: int, address: str, port: int) -> None:
        self.number = number
        self.log: Any = log.bind(association=number, address=address)
        self._address = address
        self._port = port
        self._opened = time.monotonic()
        self._accepted = False
        self._over = False
        self._stored = 0
        self._refused = 0
        self._ignored = 0

    def untrusted(self, why: str) -> None:
        """Say why TLS cannot be agreed upon."""
        self._over = True
        self.log.warning("TLS refused", action="tls.refused", why=why, port=self._port)

    def requested(self, calling: str, called: str, certificate: frozenset[str]) -> Caller:
        """Take the AE titles into every further line; return who that is."""
        caller = Caller(calling, called, self._address, self._port, certificate)
        if certificate:
            self.log = self.log.bind(certificate=sorted(certificate))
        self.log = self.log.bind(calling=caller.calling_ae_title, called=caller.called_ae_title)
        return caller

    def identified(self, user: str) -> None:
        """Take the user, whose passcode was right, into every further line."""
        self.log = self.log.bind(user=user)

    def rejected(self, refusal: Refusal) -> None:
        """Say why it is rejected."""
        self._over = True
        self.log.warning(
            "association rejected",
            action="association.rejected",
            why=refusal.why,
            rejection=f"{refusal.result}/{refusal.source}/{refusal.diagnostic}",
            port=self._port,
        )

    def accepted(self, accepted: int, refused: Sequence[str]) -> None:
        """Say that it is accepted, with how many contexts, and which SOP classes are refused."""
        self._accepted = True
        self.log.info(
            "association accepted",
            action="association.accepted",
            contexts=accepted,
            **({"refused_contexts": len(refused)} if refused else {}),
        )
        if refused:
            # A scanner proposes a hundred, with every association.
            self.log.debug(
                "presentation contexts refused",
                action="association.contexts",
                # Only what cannot hold anything else: what a peer proposes is not yet judged.
                sop_classes=sorted({uid for uid in refused if is_uid(uid)}),
            )

    def shut_out(self, why: str) -> None:
        """Say why the peer can store nothing, though it is let in."""
        self.log.warning("nothing can be stored", action="association.useless", why=why)

    def echoed(self) -> None:
        """Say that a C-ECHO was answered."""
        self.log.info("C-ECHO", action="echo")

    def stored(self, recorded: Recorded, sop_class_uid: str) -> None:
        """Count an instance that is safe."""
        self._stored += 1
        self.log.debug(
            "instance stored" if recorded.is_new else "instance is here already",
            action="instance.stored" if recorded.is_new else "instance.duplicate",
            instance=recorded.instance_id,
            sop_class=sop_class_uid,
        )

    def refused(self, status: int, why: str) -> None:
        """Count an instance that the sender keeps, and say why."""
        self._refused += 1
        self.log.warning(
            "instance refused", action="instance.refused", status=f"0x{status:04X}", why=why
        )

    def failed(self, error: Exception) -> None:
        """Say that an instance could not be stored by a fault of ours."""
        self.log.error(
            "instance not stored: internal error", action="instance.error", **fingerprint(error)
        )

    def ignored(self, sop_class_uid: str) -> None:
        """Count an instance that is answered with success, and not kept."""
        self._ignored += 1
        self.log.info(
            "instance ignored: its SOP class is in ignored_sop_classes",
            action="instance.ignored",
            sop_class=sop_class_uid,
        )

    def unserved(self, operation: int) -> None:
        """Say that the peer asks for what no storage or verification service has."""
        self.log.warning(
            "operation refused: only C-STORE and C-ECHO are served",
            action="operation.refused",
            operation=f"0x{operation:04X}",
        )

    def unasked(self, operation: int) -> None:
        """Say that the peer answers or cancels what nobody has asked."""
        self.log.warning(
            "message ignored: it belongs to no request",
            action="operation.ignored",
            operation=f"0x{operation:04X}",
        )

    def aborted(self, by: str, why: str, abort: str, **details: str) -> None:
        """Say who ends it without a release, and why; once, whatever still comes."""
        if self._over:
            return
        self._over = True
        self.log.warning(
            "association aborted",
            action="association.aborted",
            by=by,
            why=why,
            abort=abort,
            **details,
        )

    def released(self) -> None:
        """Take note that the peer ends it in due form."""
        self._over = True

    def closed(self, why: str) -> None:
        """Say how it went, now that the connection is closed, and why if nobody had ended it."""
        seconds = round(time.monotonic() - self._opened, 3)
        if not self._accepted:
            if not self._over:
                self.log.info(
                    "connection closed without an association",
                    action="association.none",
                    why=why,
                    seconds=seconds,
                )
            return
        counts = {
            "stored": self._stored,
            "refused": self._refused,
            "ignored": self._ignored,
            "seconds": seconds,
        }
        if self._over:
            self.log.info("association ended", action="association.ended", **counts)
        else:
            self.log.warning("connection lost", action="association.lost", why=why, **counts)
