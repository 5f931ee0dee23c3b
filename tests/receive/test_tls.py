"""Receiving by TLS: who is let in, who is not, and that nobody holds up the others."""

import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.certificates import DAY, SERVER, Authority
from tests.receive.hostile import good_instance, unmoved
from tests.receive.support import (
    CT,
    Log,
    Receiving,
    config,
    data_set_of,
    free_port,
    receiving,
    run,
)
from tests.receive.wire import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    RELEASE_RP,
    RELEASE_RQ,
    Raw,
    associate_rq,
    raw,
    store_rq,
)
from tests.support import PATIENCE, SUCCESS, make_instance, settings_of


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority with certificates for the service and for one client, CT1."""
    found = Authority(tmp_path)
    found.issue("service", usage=(SERVER,))
    found.issue("CT1", dns=("ct1.hospital.example",))
    found.revoke(found.issue("revoked"))
    return found


def tls(port: int, more: str = "") -> str:
    """Return the keys of `dicom` that serve TLS on a port."""
    return (
        f"tls: {{port: {port}, certificate: service.pem, key: service.key, ca: ca.pem, "
        f"crl: crl.pem{more and ', ' + more}}}"
    )


@contextmanager
def served(
    folder: Path, more: str = "", dicom: str = "", rest: str = ""
) -> Iterator[tuple[Receiving, int]]:
    """Listen with TLS; return the listener and the port of TLS."""
    port = free_port()
    text = config(f"{tls(port, more)}{dicom and ', ' + dicom}", more=rest)
    with receiving(folder, text) as adapter:
        assert adapter.ports[-1] == port
        yield adapter, port


def client(folder: Path, name: str = "CT1", ca: str = "ca.pem") -> ssl.SSLContext:
    """Return a client's side with a certificate, or without one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(folder / ca)
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


@contextmanager
def secured(port: int, context: ssl.SSLContext) -> Iterator[Raw]:
    """Connect by TLS, and close after."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain,
        context.wrap_socket(plain) as connection,
    ):
        yield Raw(connection)


def answer(port: int, context: ssl.SSLContext, calling: bytes = b"CT1") -> tuple[int, bytes]:
    """Return the answer to an A-ASSOCIATE-RQ by TLS; type 0 where TLS is refused."""
    try:
        with secured(port, context) as peer:
            peer.send(associate_rq(calling=calling))
            return peer.read()
    except OSError:
        return 0, b""


def alert(port: int, context: ssl.SSLContext) -> str:
    """Return the alert by which TLS is refused, as OpenSSL names it; empty without one."""
    try:
        with secured(port, context) as peer:
            peer.send(associate_rq())
            peer.read()
    except ssl.SSLError as error:
        return error.reason
    return ""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_instances_are_stored_byte_for_byte(
    tmp_path: Path, authority: Authority, version: ssl.TLSVersion
) -> None:
    """PDUs of many records each, and the next message sent before the answer to the one before."""
    del authority
    context = client(tmp_path)
    context.minimum_version = context.maximum_version = version
    instances = [make_instance(PixelData=bytes([n]) * 900_000) for n in range(3)]
    sent = b""
    for number, instance in enumerate(instances):
        path = tmp_path / f"{number}.dcm"
        instance.save_as(path)
        uid = str(instance.SOPInstanceUID).encode()
        sent += store_rq(CT.encode(), uid, data_set_of(path), number + 1)
    with served(tmp_path, dicom="max_pdu: 1048576") as (adapter, port):
        with secured(port, context) as peer:
            peer.send(associate_rq())
            assert peer.read()[0] == ASSOCIATE_AC
            peer.send(sent)
            assert [peer.status() for _ in instances] == [SUCCESS] * 3
            peer.send(RELEASE_RQ)
            assert peer.read()[0] == RELEASE_RP
        stored = [data_set_of(instance.path) for instance in adapter.stored()]
    assert stored == [data_set_of(tmp_path / f"{number}.dcm") for number in range(3)]


@pytest.mark.dcmtk
def test_dcmtk_stores_by_tls(tmp_path: Path, authority: Authority, log: Log) -> None:
    """Another implementation of TLS and DICOM, with a profile of BCP 195."""
    del authority
    make_instance().save_as(tmp_path / "one.dcm")
    pem = [tmp_path / name for name in ("CT1.key", "CT1.pem", "ca.pem", "one.dcm")]
    words = ("storescu", "-v", "+tls", *pem[:2], "+cf", pem[2], "-aec", "TEST", "127.0.0.1")
    with served(tmp_path) as (adapter, port):
        done = run(*words, port, pem[3])
        assert done.returncode == 0, done.stdout
        assert len(adapter.stored()) == 1
        (line,) = log.wait_for("association.accepted")
        assert line["certificate"] == ["ct1", "ct1.hospital.example"]
        # The AE title is served on the plain port, too.
        assert run("echoscu", "-aec", "TEST", "127.0.0.1", adapter.port).returncode == 0


def test_several_processes_serve_tls(tmp_path: Path, authority: Authority) -> None:
    """Each builds its own side, also after a reload."""
    with served(tmp_path, dicom="processes: 2") as (adapter, port):
        assert answer(port, client(tmp_path))[0] == ASSOCIATE_AC
        authority.revoke(authority.issue("late"))
        assert answer(port, client(tmp_path, "late"))[0] == ASSOCIATE_AC
        adapter.listener.reload(
            settings_of(tmp_path, (tmp_path / "dicom-adapter.yaml").read_text())
        )
        until = time.monotonic() + PATIENCE
        # Each process is told, and takes over when it comes to it.
        while answer(port, client(tmp_path, "late"))[0] and time.monotonic() < until:
            time.sleep(0.05)
        assert answer(port, client(tmp_path, "late"))[0] == 0
        assert answer(port, client(tmp_path))[0] == ASSOCIATE_AC


def test_who_speaks_no_tls_is_told_apart(tmp_path: Path, authority: Authority, log: Log) -> None:
    """A plain peer on the port of TLS, and TLS on the plain port: one line each, and closed."""
    del authority
    with served(tmp_path) as (adapter, port), unmoved(adapter):
        for words in (associate_rq(), b"GET / HTTP/1.1\r\n\r\n"):
            with raw(port) as peer:
                begun = time.monotonic()
                peer.send(words)
                with suppress(ConnectionResetError):
                    while peer.connection.recv(4096):
                        pass
                assert time.monotonic() - begun < 1
        refused = log.wait_for("tls.refused", 2)
        assert {line["why"] for line in refused} == {"the peer does not speak TLS"}
        assert answer(adapter.port, client(tmp_path))[0] == 0
        (aborted,) = log.wait_for("association.aborted")
        assert aborted["why"] == (
            "the peer broke the protocol: it speaks TLS, and this port does not"
        )
        assert answer(port, client(tmp_path))[0] == ASSOCIATE_AC
    assert len(log.of("tls.refused")) == 2
    assert not log.of("association.none")


def test_a_silent_peer_holds_up_nobody(tmp_path: Path, authority: Authority, log: Log) -> None:
    """Before and in the middle of its handshake; after dicom.timeouts.association it is closed."""
    del authority
    context = client(tmp_path)
    hello, nothing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(nothing, hello).do_handshake()
    with (
        served(tmp_path, dicom="timeouts: {association: 1s}") as (adapter, port),
        unmoved(adapter),
        ExitStack() as open_,
    ):
        silent = [open_.enter_context(raw(port)) for _ in range(20)]
        begun = hello.read()
        for number, peer in enumerate(silent):
            peer.send(begun[: number * 20])
        silent.append(open_.enter_context(raw(port)))
        silent[-1].send(begun)
        assert silent[-1].connection.recv(1) == b"\x16", "it waits for the client's certificate"
        best = min(_seconds(port, context) for _ in range(5))
        assert best < 0.1
        ended = log.wait_for("association.none", len(silent))
        assert {line["why"] for line in ended} == {
            "no association in dicom.timeouts.association=1 s"
        }


def _seconds(port: int, context: ssl.SSLContext) -> float:
    begun = time.monotonic()
    assert answer(port, context)[0] == ASSOCIATE_AC
    return time.monotonic() - begun


STRANGERS: dict[str, tuple[str, Callable[[Authority], object]]] = {
    "": ("the peer has no certificate", lambda _: None),
    "expired": (
        "the peer's certificate: certificate has expired",
        lambda ca: ca.issue("expired", starts=-2 * DAY, ends=-DAY),
    ),
    "early": (
        "the peer's certificate: certificate is not yet valid",
        lambda ca: ca.issue("early", starts=DAY),
    ),
    "revoked": ("the peer's certificate: certificate revoked", lambda _: None),
    "server": (
        "the peer's certificate: unsuitable certificate purpose",
        lambda ca: ca.issue("server", usage=(SERVER,)),
    ),
    "stranger": (
        "the peer's certificate: unable to get local issuer certificate",
        lambda ca: Authority(ca.folder, "other").issue("stranger"),
    ),
}


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_is_not_trusted_is_refused(
    tmp_path: Path, authority: Authority, log: Log, name: str, version: ssl.TLSVersion
) -> None:
    """In the handshake, with an alert, one line of the log, and no association."""
    why, prepare = STRANGERS[name]
    prepare(authority)
    context = client(tmp_path, name)
    context.minimum_version = context.maximum_version = version
    with served(tmp_path) as (adapter, port), unmoved(adapter):
        assert "ALERT" in alert(port, context)
        (line,) = log.wait_for("tls.refused")
        assert (line["why"], line["level"], line["port"]) == (why, "warning", port)
        assert line["address"] == "127.0.0.1"
        assert answer(port, client(tmp_path))[0] == ASSOCIATE_AC
    assert not log.of("association.rejected")


def test_a_client_that_does_not_trust_us_says_so(
    tmp_path: Path, authority: Authority, log: Log
) -> None:
    """Its alert is told: the fault is to be looked for in our certificate, or at the client."""
    del authority
    Authority(tmp_path, "other")
    with served(tmp_path) as (adapter, port), unmoved(adapter):
        assert answer(port, client(tmp_path, ca="other.pem"))[0] == 0
        (line,) = log.wait_for("tls.refused")
    assert line["why"] == "the peer gives up: unknown ca"


def test_a_client_without_certificate_where_none_is_required(
    tmp_path: Path, authority: Authority
) -> None:
    """It is served; one with a certificate that is not trusted is refused all the same."""
    Authority(tmp_path, "other").issue("stranger")
    del authority
    with (
        served(tmp_path, "require_client_certificate: false") as (adapter, port),
        unmoved(adapter),
    ):
        assert answer(port, client(tmp_path, ""))[0] == ASSOCIATE_AC
        assert answer(port, client(tmp_path, "stranger"))[0] == 0


def _weak_version(version: ssl.TLSVersion) -> Callable[[ssl.SSLContext], None]:
    def choose(context: ssl.SSLContext) -> None:
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("DEFAULT:@SECLEVEL=0")

    return choose


def _weak_ciphers(ciphers: str) -> Callable[[ssl.SSLContext], None]:
    def choose(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{ciphers}:@SECLEVEL=0")

    return choose


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize(
    "weaken",
    [
        _weak_version(ssl.TLSVersion.TLSv1),
        _weak_version(ssl.TLSVersion.TLSv1_1),
        _weak_ciphers("ECDHE-ECDSA-AES256-SHA384"),
        _weak_ciphers("eNULL"),
        _weak_ciphers("aNULL"),
        _weak_ciphers("AES128-GCM-SHA256"),
    ],
    ids=["TLS 1.0", "TLS 1.1", "CBC", "no encryption", "no authentication", "no forward secrecy"],
)
def test_weak_cryptography_is_refused(
    tmp_path: Path, authority: Authority, log: Log, weaken: Callable[[ssl.SSLContext], None]
) -> None:
    """Whatever the client would be content with."""
    del authority
    context = client(tmp_path)
    weaken(context)
    with served(tmp_path) as (adapter, port), unmoved(adapter):
        assert answer(port, context)[0] == 0
        log.wait_for("tls.refused")


BOUND = """
sources:
  CT1: {ae_title: CT1, host: 127.0.0.1, certificate: CT1.hospital.example}
  MR1: {ae_title: MR1, host: 127.0.0.1, certificate: MR1}
  OLD: {ae_title: OLD, host: 127.0.0.1}
  SCU: {ae_title: SCU, host: 127.0.0.1}
"""


def test_a_source_is_bound_to_its_certificate(
    tmp_path: Path, authority: Authority, log: Log
) -> None:
    """By common name or DNS name, whatever the case; RJ 1/1/3 with another one, or without TLS."""
    authority.issue("MR1")
    refused = ASSOCIATE_RJ, bytes((0, 1, 1, 3))
    with (
        served(tmp_path, dicom="reject_unknown_sources: true", rest=BOUND) as (adapter, port),
        unmoved(adapter),
    ):
        ct, mr = client(tmp_path), client(tmp_path, "MR1")
        assert answer(port, ct, b"CT1")[0] == ASSOCIATE_AC
        assert answer(port, mr, b"MR1")[0] == ASSOCIATE_AC
        assert answer(port, ct, b"OLD")[0] == ASSOCIATE_AC
        assert answer(port, ct, b"MR1") == refused
        assert answer(port, mr, b"CT1") == refused
        with raw(adapter.port) as peer:
            peer.send(associate_rq(calling=b"CT1"))
            assert peer.read() == refused
        (one, *_) = log.wait_for("association.rejected", 3)
        assert one["why"] == "certificate matches no source of this calling AE title"
        assert one["certificate"] == ["ct1", "ct1.hospital.example"]


def test_a_title_with_a_port_of_its_own_stays_plain(tmp_path: Path, authority: Authority) -> None:
    """It is not reached by TLS, nor the others by its port."""
    del authority
    own, port = free_port(), free_port()
    text = config(tls(port), "TEST", f"OWN: port: {own}")
    with receiving(tmp_path, text) as adapter:
        assert adapter.ports[1:] == (own, port)
        with secured(port, client(tmp_path)) as peer:
            peer.send(associate_rq(called=b"OWN"))
            assert peer.read() == (ASSOCIATE_RJ, bytes((0, 1, 1, 7)))
        with raw(own) as peer:
            peer.send(associate_rq(called=b"OWN"))
            assert peer.read()[0] == ASSOCIATE_AC


def test_stopping_aborts_by_tls(tmp_path: Path, authority: Authority) -> None:
    """A peer in an association is told, and told that nothing was cut off."""
    del authority
    with served(tmp_path) as (adapter, port), secured(port, client(tmp_path)) as peer:
        peer.send(associate_rq())
        assert peer.read()[0] == ASSOCIATE_AC
        adapter.listener.stop(0)
        assert peer.read()[0] == ABORT
        assert peer.read()[0] == 0


def test_nothing_is_renegotiated(tmp_path: Path, authority: Authority) -> None:
    """What a client was let in with holds until the end of its connection."""
    del authority
    names = [tmp_path / name for name in ("CT1.pem", "CT1.key", "ca.pem")]
    words: list[str | Path] = [
        "openssl",
        "s_client",
        "-tls1_2",
        "-cert",
        names[0],
        "-key",
        names[1],
        "-CAfile",
    ]
    with served(tmp_path) as (adapter, port), unmoved(adapter):
        done = subprocess.run(
            [*words, names[2], "-connect", f"127.0.0.1:{port}"],
            input=b"R\n",
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    assert b"RENEGOTIATING" in done.stdout + done.stderr
    assert b"no renegotiation" in done.stderr


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_nothing_is_resumed_beyond_a_reload(
    tmp_path: Path, authority: Authority, version: ssl.TLSVersion
) -> None:
    """Who is revoked by then cannot go on with the session of a connection before it."""
    late = authority.issue("late")
    context = client(tmp_path, "late")
    context.minimum_version = context.maximum_version = version
    with served(tmp_path) as (adapter, port), unmoved(adapter):
        with secured(port, context) as peer:
            peer.send(associate_rq())
            assert peer.read()[0] == ASSOCIATE_AC
            assert isinstance(peer.connection, ssl.SSLSocket)
            session = peer.connection.session
        authority.revoke(late)
        adapter.listener.reload(
            settings_of(tmp_path, (tmp_path / "dicom-adapter.yaml").read_text())
        )
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
            context.wrap_socket(plain, session=session) as again,
        ):
            again.sendall(associate_rq())
            assert not again.recv(1)


def test_c6_a_replaced_certificate_drops_nobody(
    tmp_path: Path, authority: Authority, log: Log
) -> None:
    """Who is inside stores on; the next one sees the new one, whose end is told in time."""
    context, instance = client(tmp_path), good_instance()
    with served(tmp_path) as (adapter, port), unmoved(adapter):
        before = _serial(port, context)
        with secured(port, context) as peer:
            peer.send(associate_rq())
            assert peer.read()[0] == ASSOCIATE_AC
            message = store_rq(CT.encode(), instance.uid, instance.data)
            peer.send(message[:500])
            authority.issue("service", usage=(SERVER,), ends=29 * DAY)
            assert not log.of("tls.expiring")
            adapter.listener.reload(
                settings_of(tmp_path, (tmp_path / "dicom-adapter.yaml").read_text())
            )
            assert _serial(port, context) != before
            peer.send(message[500:])
            assert peer.status() == SUCCESS
            peer.send(RELEASE_RQ)
            assert peer.read()[0] == RELEASE_RP
        (line,) = log.of("tls.expiring")
    assert line["level"] == "warning"


def _serial(port: int, context: ssl.SSLContext) -> object:
    """Return the serial number of the certificate that the service shows."""
    with secured(port, context) as peer:
        assert isinstance(peer.connection, ssl.SSLSocket)
        found = peer.connection.getpeercert()
    assert found
    return found["serialNumber"]
