"""Who may associate with which AE title, and what may be sent there."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts

from dicom_adapter.config import DicomSettings, Settings, Source
from dicom_adapter.model import Resend
from dicom_adapter.receive.pdu import is_ae_title, printable_ae_title

VERIFICATION = "1.2.840.10008.1.1"

# Where DICOM's own SOP classes lie, and among them those of storage (PS3.6 annex A).
_STANDARD = "1.2.840.10008."
_STORAGE = "1.2.840.10008.5.1.4.1.1."

# Registered as transfer syntaxes, but no encodings of a data set that C-STORE could carry:
# MIME and XML (PS3.5 A.6, retired) and Papyrus 3 (withdrawn).
_NOT_FOR_STORAGE = frozenset(
    {"1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2", "1.2.840.10008.1.20"}
)


@dataclass(frozen=True)
class Refusal:
    """An A-ASSOCIATE-RJ (PS3.8 table 9-21) and why."""

    result: int
    source: int
    diagnostic: int
    why: str


@dataclass(frozen=True)
class Caller:
    """Who asks for an association, as far as the peer's word, address and certificate tell."""

    #: As they were sent: for comparing only, never for a log.
    calling: str = field(repr=False)
    called: str = field(repr=False)
    address: str
    port: int
    #: The names in the certificate of a peer that came by TLS, in lower case.
    certificate: frozenset[str] = frozenset()

    @property
    def calling_ae_title(self) -> str:
        """The calling AE title, fit for a log."""
        return printable_ae_title(self.calling)

    @property
    def called_ae_title(self) -> str:
        """The called AE title, fit for a log."""
        return printable_ae_title(self.called)


@dataclass(frozen=True)
class Title:
    """An AE title, as far as receiving goes."""

    title: str
    port: int | None
    requires_user: bool
    resend: Resend
    ignored_sop_classes: frozenset[str]
    #: None for all of storage.
    accepted_sop_classes: frozenset[str] | None


@dataclass(frozen=True)
class Rules:
    """What of the configuration receiving goes by."""

    dicom: DicomSettings
    titles: Mapping[str, Title]
    sources: tuple[Source, ...]
    #: What is to be left free on the spool's volume, in bytes.
    reserve: int

    @classmethod
    def of(cls, settings: Settings) -> "Rules":
        """Return the rules of a configuration; the settings of job processors are none of them."""
        return cls(
            # A read-only view cannot be sent to another process.
            dicom=settings.dicom.model_copy(update={"users": dict(settings.dicom.users)}),
            titles={
                title.title: Title(
                    title.title,
                    title.port,
                    settings.dicom.require_user
                    if title.require_user is None
                    else title.require_user,
                    title.resend,
                    frozenset(title.ignored_sop_classes),
                    None
                    if title.accepted_sop_classes is None
                    else frozenset(title.accepted_sop_classes),
                )
                for title in settings.ae_titles.values()
            },
            sources=tuple(
                source for source in settings.sources.values() if isinstance(source, Source)
            ),
            reserve=settings.storage.reserve,
        )

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports of all AE titles, each once, in their order; that of TLS is the last."""
        plain = [self.ports_of(title)[0] for title in self.titles.values()]
        every = [port for title in self.titles.values() for port in self.ports_of(title)]
        return tuple(dict.fromkeys([*plain, *every]))

    def ports_of(self, title: Title) -> tuple[int, ...]:
        """Return the configured ports of an AE title, that of TLS last."""
        if title.port is not None:
            return (title.port,)
        tls = self.dicom.tls
        return (self.dicom.port,) if tls is None else (self.dicom.port, tls.port)


class Policy:
    """Decides over associations and presentation contexts by one configuration."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._storage = frozenset(
            str(context.abstract_syntax) for context in AllStoragePresentationContexts
        ) | frozenset(rules.dicom.private_sop_classes)

    def admit(self, caller: Caller) -> Title | Refusal:
        """Return the AE title that a caller reaches on the port it came to, or the refusal."""
        refusal = self._refuse_source(caller)
        if refusal is not None:
            return refusal
        title = self._rules.titles.get(caller.called)
        if title is None or caller.port not in self._rules.ports_of(title):
            return Refusal(1, 1, 7, "called AE title not recognized on this port")
        return title

    def _refuse_source(self, caller: Caller) -> Refusal | None:
        if not is_ae_title(caller.calling):
            return Refusal(1, 1, 3, "calling AE title is empty or not of the repertoire")
        if not self._rules.dicom.reject_unknown_sources:
            return None
        named = [source for source in self._rules.sources if source.ae_title == caller.calling]
        if not named:
            return Refusal(1, 1, 3, "calling AE title matches no source")
        address = ipaddress.ip_address(caller.address)
        named = [source for source in named if address in source.host]
        if not named:
            return Refusal(1, 1, 3, "address matches no source of this calling AE title")
        if not any(_is_certified(caller, source) for source in named):
            return Refusal(1, 1, 3, "certificate matches no source of this calling AE title")
        return None

    def accepts(self, title: Title, abstract_syntax: str) -> bool:
        """Tell whether a SOP class is negotiated with an AE title."""
        if abstract_syntax == VERIFICATION:
            return True
        if abstract_syntax in title.ignored_sop_classes:
            # Negotiated all the same: a sender that is refused here may not send the rest.
            return True
        if title.accepted_sop_classes is not None:
            return abstract_syntax in title.accepted_sop_classes
        return abstract_syntax in self._storage

    def shut_out(self, title: Title, accepted: Iterable[str], refused: Iterable[str]) -> str:
        """Return why nothing can be stored in an association that has proposed storage.

        It is empty where something can be, or nothing of the kind was proposed: a C-ECHO.

        Args:
            title: The AE title that was reached.
            accepted: The SOP classes of the presentation contexts that were accepted.
            refused: Those of the contexts that were refused.
        """
        proposed = [sop_class for sop_class in refused if self._is_storage(sop_class)]
        if not proposed or any(sop_class != VERIFICATION for sop_class in accepted):
            return ""
        if any(self.accepts(title, sop_class) for sop_class in proposed):
            return "no proposed transfer syntax is one that data sets are stored in"
        limited = title.accepted_sop_classes is not None
        key = "accepted_sop_classes" if limited else "dicom.private_sop_classes"
        return f"no proposed storage SOP class is accepted: see {key}"

    def _is_storage(self, sop_class: str) -> bool:
        """Tell whether a SOP class is one of storage, or private and so may be one."""
        standard = sop_class.startswith(_STANDARD)
        return not standard or sop_class.startswith(_STORAGE) or sop_class in self._storage


def _is_certified(caller: Caller, source: Source) -> bool:
    """Tell whether a caller has the certificate that a source is bound to, if it is to one."""
    return source.certificate is None or source.certificate.lower() in caller.certificate


def choose_transfer_syntax(proposed: Iterable[str]) -> str | None:
    """Return the transfer syntax to take of those proposed for one presentation context.

    The proposer's order decides: it lists first what it has.
    """
    return next((syntax for syntax in proposed if is_transfer_syntax(syntax)), None)


def is_transfer_syntax(uid: str) -> bool:
    """Tell whether a data set can be stored in this transfer syntax: every standard one."""
    return UID(uid).type == "Transfer Syntax" and uid not in _NOT_FOR_STORAGE
