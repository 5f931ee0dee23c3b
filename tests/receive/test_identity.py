"""User identity (PS3.7 annex D.3.3.7): right, wrong, absent, and never told to anybody."""

import base64
import hmac
import json
import pickle
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dicom_adapter.config.passcodes import check_passcode, hashed
from tests.receive.hostile import unmoved
from tests.receive.support import Log, Receiving, config, receiving
from tests.receive.wire import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    RELEASE_RP,
    RELEASE_RQ,
    associate_rq,
    raw,
)
from tests.support import PATIENCE, settings_of

ABSENT = ASSOCIATE_RJ, bytes((0, 1, 1, 1))
WRONG = ASSOCIATE_RJ, bytes((0, 1, 2, 1))
SECRET = b"pass/word"
USERS = f"users: {{alice: '{hashed(SECRET)}'}}"
ALICE = 2, b"alice", SECRET
ANSWER = b"\x59\x00\x00\x02\x00\x00"


def identified(
    kind: int, name: bytes, passcode: bytes = b"", *, wants: bool = True, called: bytes = b"TEST"
) -> bytes:
    """Return an A-ASSOCIATE-RQ with a user identity, behind its other user information."""
    fields = struct.pack(">H", len(name)) + name + struct.pack(">H", len(passcode)) + passcode
    item = struct.pack(">BxH", 0x58, len(fields) + 2) + bytes((kind, wants)) + fields
    request = bytearray(associate_rq(called))
    at = request.index(b"\x50\x00", 74 + 25)
    (length,) = struct.unpack_from(">H", request, at + 2)
    struct.pack_into(">H", request, at + 2, length + len(item))
    struct.pack_into(">L", request, 2, len(request) - 6 + len(item))
    return bytes(request) + item


def answer(port: int, request: bytes) -> tuple[int, bytes]:
    """Return the answer to an A-ASSOCIATE-RQ; who is let in releases."""
    with raw(port) as peer:
        # The release at once, as if the association were a formality.
        peer.send(request + RELEASE_RQ)
        found = peer.read()
        if found[0] == ASSOCIATE_AC:
            assert peer.read()[0] == RELEASE_RP
        return found


@contextmanager
def warm(adapter: Receiving) -> Iterator[None]:
    """Have the threads that check passcodes started, which stay."""
    with ExitStack() as stack:
        peers = [stack.enter_context(raw(adapter.port)) for _ in range(4)]
        for peer in peers:
            peer.send(identified(2, b"alice", b"password"))
        for peer in peers:
            assert peer.read() == WRONG
    yield


@pytest.mark.parametrize("processes", [1, 2])
def test_the_right_passcode_is_let_in(tmp_path: Path, log: Log, processes: int) -> None:
    """And answered where it is asked for; everybody else is rejected where one is required."""
    keys = f"{USERS}, require_user: true, processes: {processes}"
    with receiving(tmp_path, config(keys)) as adapter:
        kind, content = answer(adapter.port, identified(*ALICE))
        assert (kind, content.count(ANSWER)) == (ASSOCIATE_AC, 1)
        kind, content = answer(adapter.port, identified(*ALICE, wants=False))
        assert (kind, content.count(ANSWER)) == (ASSOCIATE_AC, 0)
        for wrong, rejected in (
            (identified(2, b"alice", b"password"), WRONG),
            (identified(2, b"bob", SECRET), WRONG),
            (identified(2, b"\xff\xfe", SECRET), WRONG),
            (identified(1, b"alice"), ABSENT),
            (identified(5, b"eyJh.eyJz.x"), ABSENT),
            (associate_rq(), ABSENT),
        ):
            assert answer(adapter.port, wrong) == rejected
        assert {rejection.why for rejection in adapter.listener.rejections()} == {
            "user identity: unknown user or wrong passcode",
            "no user identity with a proof, and one is required",
        }
    if processes == 1:
        assert [line["user"] for line in log.of("association.accepted")] == ["alice"] * 2
    for told in (b"bob", SECRET, b"password", b"eyJh"):
        assert told.decode() not in log.text


def test_what_is_not_configured_is_let_in(tmp_path: Path) -> None:
    """Without an answer, which would say that it is right."""
    with receiving(tmp_path) as adapter, unmoved(adapter):
        kind, content = answer(adapter.port, identified(*ALICE))
    assert (kind, content.count(ANSWER)) == (ASSOCIATE_AC, 0)


def test_it_can_be_required_by_an_ae_title_alone(tmp_path: Path, log: Log) -> None:
    """Elsewhere nobody needs one; but a wrong one is wrong everywhere."""
    keys = config(USERS, "TEST", "SAFE: require_user: true")
    with receiving(tmp_path, keys) as adapter, warm(adapter), unmoved(adapter):
        assert answer(adapter.port, associate_rq())[0] == ASSOCIATE_AC
        assert answer(adapter.port, associate_rq(b"SAFE")) == ABSENT
        for wants in (True, False):
            request = identified(*ALICE, wants=wants, called=b"SAFE")
            kind, content = answer(adapter.port, request)
            assert (kind, content.count(ANSWER)) == (ASSOCIATE_AC, wants)
        assert answer(adapter.port, identified(2, b"alice", b"password")) == WRONG
        assert answer(adapter.port, identified(2, b"bob", SECRET)) == WRONG
    for told in (SECRET, b"password"):
        assert told.decode() not in log.text


def test_guessing_holds_up_nobody(tmp_path: Path) -> None:
    """Passcodes are checked beside the loop; and who goes away meanwhile leaves nothing."""
    with receiving(tmp_path, config(USERS)) as adapter, warm(adapter), unmoved(adapter):
        for _ in range(20):
            with raw(adapter.port) as peer:
                peer.send(identified(2, b"alice", b"password"))
        begun = time.monotonic()
        assert answer(adapter.port, associate_rq())[0] == ASSOCIATE_AC
        assert time.monotonic() - begun < 0.5
        assert answer(adapter.port, identified(*ALICE))[0] == ASSOCIATE_AC
        assert adapter.listener.associations() == 0


def public(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public half of a key, in PEM form."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_right_token_is_let_in(tmp_path: Path, log: Log, processes: int) -> None:
    """Its subject is the user; late, early, foreign, forged or broken ones are rejected."""
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    (tmp_path / "idp.pem").write_bytes(public(key))
    now = int(time.time())
    right = {"sub": "scanner 3", "iss": "idp", "aud": ["us", "you"], "exp": now + 60}

    def token(key: ec.EllipticCurvePrivateKey = key, **claims: object) -> bytes:
        kept = {name: value for name, value in (right | claims).items() if value is not None}
        return jwt.encode(kept, key, "ES256").encode()

    unsigned = jwt.encode(right, "", "none").encode()
    # The public key as if it were a shared secret: whoever knows it could sign with that.
    parts = b".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "typ": "JWT"}, right)
    )
    mac = base64.urlsafe_b64encode(hmac.digest(public(key), parts, "sha256")).rstrip(b"=")
    wrong = {
        token(exp=now - 60): "the token has expired",
        token(nbf=now + 300): "the token is not valid yet",
        token(aud="them"): "the token is not for dicom.jwt.audience",
        token(iss="other"): "the token is not of dicom.jwt.issuer",
        token(other): "the token is not signed with dicom.jwt.key",
        token(sub=None): "the token lacks one of sub, exp, iss and aud",
        token(exp=None): "the token lacks one of sub, exp, iss and aud",
        unsigned: "the token is not valid",
        parts + b"." + mac: "the token is not valid",
        b"\xff\xfe": "the token is not valid",
    }
    keys = f"jwt: {{key: idp.pem, issuer: idp, audience: us}}, processes: {processes}"
    with receiving(tmp_path, config(f"{keys}, require_user: true")) as adapter:
        kind, content = answer(adapter.port, identified(5, token()))
        assert (kind, content.count(ANSWER)) == (ASSOCIATE_AC, 1)
        for forged in wrong:
            assert answer(adapter.port, identified(5, forged)) == WRONG
        assert answer(adapter.port, identified(*ALICE)) == ABSENT
        told = {rejection.why for rejection in adapter.listener.rejections()}
    assert told - {"no user identity with a proof, and one is required"} == {
        f"user identity: {why}" for why in wrong.values()
    }
    if processes == 1:
        assert [line["user"] for line in log.of("association.accepted")] == ["scanner 3"]
    for sent in (token(), *wrong):
        assert sent.decode("latin-1").rpartition(".")[0] not in log.text or b"." not in sent


def test_a15_a_token_leaves_nothing(tmp_path: Path, log: Log) -> None:
    """Right, wrong or absent where one is required: the others are served, and none is told."""
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    (tmp_path / "idp.pem").write_bytes(public(key))
    claims = {"sub": "scanner 3", "iss": "idp", "aud": "us", "exp": int(time.time()) + 60}
    right, forged = (jwt.encode(claims, signer, "ES256").encode() for signer in (key, other))
    keys = f"{USERS}, jwt: {{key: idp.pem, issuer: idp, audience: us}}"
    text = config(keys, "TEST", "SAFE: require_user: true")
    with receiving(tmp_path, text) as adapter, warm(adapter), unmoved(adapter):
        kind, content = answer(adapter.port, identified(5, right, called=b"SAFE"))
        assert (kind, content.count(ANSWER)) == (ASSOCIATE_AC, 1)
        assert answer(adapter.port, identified(5, forged)) == WRONG
        assert answer(adapter.port, identified(5, forged, called=b"SAFE")) == WRONG
        assert answer(adapter.port, associate_rq(b"SAFE")) == ABSENT
    for token in (right, forged):
        assert token.decode() not in log.text


def test_the_command_makes_a_hash(tmp_path: Path) -> None:
    """Another one each time, of what stands on standard input; it never says the passcode."""
    done = subprocess.run(
        [sys.executable, "-m", "dicom_adapter", "hash-passcode"],
        input=SECRET + b"\n",
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert SECRET not in done.stdout + done.stderr
    settings = settings_of(tmp_path, config(f"users: {{alice: '{done.stdout.decode().strip()}'}}"))
    passcode = settings.dicom.users["alice"]
    assert check_passcode(str(passcode)) == passcode
    assert passcode.matches(SECRET)
    assert not passcode.matches(SECRET + b" ")
    assert str(hashed(SECRET)) != str(hashed(SECRET))
    assert pickle.loads(pickle.dumps(passcode)) == passcode  # noqa: S301 - our own
    assert str(passcode)[-20:] not in repr(settings)
