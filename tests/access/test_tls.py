"""The TCP port of the API by TLS: real certificates, real handshakes."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_adapter.addresses import socket_address
from dicom_adapter.errors import ConfigError, UnavailableError
from dicom_adapter.lifecycle import Role
from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.credentials import Credentials
from dicom_adapter.rpc.tokens import to_role
from dicom_adapter.v1 import jobs_pb2, tokens_pb2
from tests.certificates import SERVER, Authority
from tests.cli.shell import as_process
from tests.support import CONFIG, Running, running

LISTEN = 'grpc: {listen: "localhost:0", tls: {certificate: one.pem, key: one.key}}'


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that has issued the server's certificate."""
    made = Authority(tmp_path)
    made.issue("one", usage=(SERVER,), dns=["localhost"])
    return made


@pytest.fixture
def served(authority: Authority) -> Iterator[Running]:
    """A service whose API is served by TLS."""
    with running(authority.folder, CONFIG.replace("grpc: {listen: null}", LISTEN)) as made:
        yield made


def token(served: Running) -> str:
    """Return the secret of a new token."""
    with Client(socket_address(served.service.settings)) as owner:
        request = tokens_pb2.CreateTokenRequest(role=to_role(Role.VIEWER))
        return owner.tokens.CreateToken(request).secret


def ask(served: Running, secret: str, ca: Path | None) -> None:
    """Ask for the jobs, over TCP."""
    with Client(served.ready.grpc[0], Credentials(secret, ca)) as client, client.errors():
        client.jobs.ListJobs(jobs_pb2.ListJobsRequest(), timeout=10)


def test_callers_are_served_by_tls_alone(served: Running, authority: Authority) -> None:
    """Who trusts the authority is; who trusts another, or speaks plainly, is not."""
    secret = token(served)
    ask(served, secret, authority.path)
    other = authority.folder / "elsewhere"
    other.mkdir()
    with pytest.raises(UnavailableError):
        ask(served, secret, Authority(other).path)
    with pytest.raises(UnavailableError):
        ask(served, secret, None)


def test_a_certificate_is_replaced_while_it_serves(served: Running, authority: Authority) -> None:
    """A reload shows the new one from the next connection on: nobody is cut off for it."""
    secret = token(served)
    with Client(served.ready.grpc[0], Credentials(secret, authority.path)) as before:
        before.jobs.ListJobs(jobs_pb2.ListJobsRequest(), timeout=10)
        host, _, port = served.ready.grpc[0].rpartition(":")
        old = ssl.get_server_certificate((host, int(port)))
        authority.issue("one", usage=(SERVER,), dns=["localhost"])
        served.service.reload()
        assert ssl.get_server_certificate((host, int(port))) != old
        before.jobs.ListJobs(jobs_pb2.ListJobsRequest(), timeout=10)
    ask(served, secret, authority.path)


def test_a_caller_must_have_a_certificate_where_an_authority_is_named(
    tmp_path: Path, authority: Authority
) -> None:
    """A token alone does not do then."""
    listen = LISTEN.replace("one.key}", "one.key, ca: ca.pem}")
    with running(tmp_path, CONFIG.replace("grpc: {listen: null}", listen)) as made:
        with pytest.raises(UnavailableError):
            ask(made, token(made), authority.path)
        with Client(socket_address(made.service.settings)) as owner:
            owner.jobs.ListJobs(jobs_pb2.ListJobsRequest())


def test_commands_take_token_and_authority_from_the_environment(
    served: Running, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And say what is missing."""
    words = ("jobs", "list", "--server", served.ready.grpc[0])
    monkeypatch.setenv("DICOM_ADAPTER_CA", os.fspath(authority.path))
    unknown = as_process(*words, folder=authority.folder)
    assert (unknown.code, unknown.out) == (1, "")
    assert "the command line takes it from DICOM_ADAPTER_TOKEN" in unknown.err
    monkeypatch.setenv("DICOM_ADAPTER_TOKEN", token(served))
    assert as_process(*words, folder=authority.folder).out == "There are no jobs.\n"
    monkeypatch.setenv("DICOM_ADAPTER_CA", "nowhere.pem")
    absent = as_process(*words, folder=authority.folder)
    assert (absent.code, absent.out) == (1, "")
    assert "nowhere.pem: No such file or directory (DICOM_ADAPTER_CA)" in absent.err


@pytest.mark.parametrize(
    ("grpc", "told"),
    [
        (
            'listen: "0.0.0.0:0"',
            "without TLS: give grpc.tls a certificate and key, listen on 127.0.0.1, or make",
        ),
        ('listen: "scanner:0"', "grpc.listen: lets others in without TLS"),
        (
            "tls: {certificate: one.pem, key: two.key}",
            "grpc.tls.key: is not the key of",
        ),
        ("tls: {certificate: one.key, key: one.key}", "grpc.tls.certificate: holds no CERTIFICATE"),
    ],
)
def test_what_would_not_be_safe_is_refused(
    tmp_path: Path, authority: Authority, grpc: str, told: str
) -> None:
    """With the line, and what to do."""
    authority.issue("two", usage=(SERVER,))
    config = CONFIG.replace("listen: null", grpc)
    with pytest.raises(ConfigError) as refused, running(tmp_path, config):
        pass
    assert told in str(refused.value)


def test_plain_text_beyond_this_machine_is_for_those_who_say_so(tmp_path: Path) -> None:
    """Then it is served."""
    config = CONFIG.replace("listen: null", 'listen: "0.0.0.0:0", allow_plaintext: true')
    with running(tmp_path, config) as made:
        ask(made, token(made), None)


def test_a_platform_behind_tls(tmp_path: Path, served: Running, authority: Authority) -> None:
    """An adapter calls it with its token, by TLS; a wrong authority is told as the trouble."""
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "token").write_text(token(served) + "\n")
    config = f"""
grpc: {{listen: null}}
dicom: {{host: 127.0.0.1, port: 0}}
platform: {{address: "{served.ready.grpc[0]}", token: token, ca: {authority.path}}}
ae_titles:
  NEAR: {{settings: {{pipeline-copy: copy}}}}
"""
    (tmp_path / "near" / "dicom-adapter.yaml").write_text(config)
    answer = as_process("jobs", "list", folder=tmp_path / "near")
    assert (answer.code, answer.out) == (0, "There are no jobs.\n")
