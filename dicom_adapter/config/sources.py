"""The sources: who may send, and who is asked for studies."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from dicom_adapter.config.document import KeyPath
from dicom_adapter.config.http import AuthoritiesFile, PasswordFile, check_url
from dicom_adapter.config.section import Section
from dicom_adapter.config.tokens import BearerTokenFile
from dicom_adapter.config.values import MAX_PORT, AETitleText, Flag, Kind, Network, Text, Whole


def _url(value: str) -> str:
    example = "https://pacs.example/dicom-web"
    return check_url(value, example, "name it by user, and its password's file by password")


DicomwebUrl: TypeAlias = Annotated[
    str, AfterValidator(_url), Kind("`https://` or `http://` address")
]


class Source(Section):
    """Who may send by C-STORE; with a `port`, also [who is asked for studies](composing.md)."""

    ae_title: AETitleText = Field(description="The calling AE title.")
    host: Network = Field(description="The address, or network of addresses, that it calls from.")
    certificate: Text | None = Field(
        default=None,
        description="A name in its certificate: the common name, or a DNS name.",
    )
    port: Annotated[Whole, Field(ge=1, le=MAX_PORT)] | None = Field(
        default=None,
        description="Where it is asked for studies by C-FIND; `host` is one address then.",
    )
    retrieve: Literal["c-move", "c-get"] = Field(
        default="c-move",
        description="How studies come from it: it sends them to our AE title, which it has to "
        "know (`c-move`), or over the association that we open (`c-get`).",
    )

    tls: Flag = Field(
        default=False,
        description="Whether it is asked by TLS: it is shown the certificate of `dicom.tls`, and "
        "needs one of its `ca`.",
    )

    @property
    def is_asked(self) -> bool:
        """Whether studies can be fetched from it."""
        return self.port is not None


class DicomwebSource(Section):
    """Where there is a `url`: a DICOMweb server, asked for studies by QIDO-RS and WADO-RS."""

    url: DicomwebUrl = Field(description="Where its services are, without `/studies`.")
    user: Text | None = Field(default=None, description="Who we are to it, beside `password`.")
    password: PasswordFile | None = Field(
        default=None, description="A file with the password that it knows us by."
    )
    token: BearerTokenFile | None = Field(
        default=None, description="A file with a token that it knows us by, instead of a password."
    )
    ca: AuthoritiesFile | None = Field(
        default=None,
        description="The authorities whose certificates are trusted, in PEM form.",
        json_schema_extra={"default": "those of the machine"},
    )

    @property
    def is_asked(self) -> bool:
        """Whether studies can be fetched from it: always."""
        return True


def asking_problems(
    sources: Mapping[str, Source | DicomwebSource], written: Mapping[str, Mapping[str, object]]
) -> Iterator[tuple[KeyPath, str]]:
    """Yield which sources cannot be asked as they are; `written` is the file's own `sources`."""
    for name, source in sources.items():
        path = ("sources", name)
        if isinstance(source, DicomwebSource):
            yield from _web_problems(path, source, written[name])
        elif source.port is None:
            for key in ("retrieve", "tls"):
                if key in written[name]:
                    yield (*path, key), "is not looked at without a port to ask at"
        elif source.host.num_addresses > 1:
            told = f"must be one address where there is a port, not the network {source.host}"
            yield (*path, "host"), f"{told}: name the network in a source of its own"


def _web_problems(
    path: KeyPath, source: DicomwebSource, written: Mapping[str, object]
) -> Iterator[tuple[KeyPath, str]]:
    # What is written, and wrong, was told already.
    if source.user is not None and "password" not in written:
        yield (*path, "password"), "is missing beside user"
    if source.password is not None and "user" not in written:
        yield (*path, "user"), "is missing beside password"
    if source.password is not None and source.token is not None:
        yield (*path, "token"), "must not stand beside password: one of the two says who we are"
    if source.ca is not None and source.url.startswith("http:"):
        yield (*path, "ca"), "is not looked at: url begins with http://"
