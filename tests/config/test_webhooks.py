"""Webhooks: what is wrong with one is told before anything starts, and no secret with it."""

import base64
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_adapter.config import Settings, changes
from tests.certificates import Authority

Mistakes = Callable[[str], list[str]]
Configure = Callable[[str], Settings]

KEY = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"
REST = "pipelines: {lung: {command: [x]}}\nae_titles: {CHEST: {settings: {pipeline-a: lung}}}\n"
HOOK = "webhooks: {ris: {url: 'https://ris/x', secret: keys, %s}}\n"


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """Keys, and files that hold none."""
    Authority(tmp_path)
    (tmp_path / "keys").write_text(f"{KEY}\n\n  {KEY}  \n")
    (tmp_path / "plain").write_text("open sesame, for long enough\n")
    (tmp_path / "short").write_text(f"{KEY}\nwhsec_c2hvcnQ=\n")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "many").write_text(f"{KEY}\n" * 9)


def test_a_webhook_needs_an_address_and_a_key_alone(configured: Configure) -> None:
    """It is told of every end of every job then; its keys are in no text of the settings."""
    found = configured(REST + HOOK % "").webhooks["ris"]
    assert found.on == ("finished", "failed", "cancelled")
    assert (found.pipelines, found.ae_titles, found.timeout, found.ca) == ((), (), 10, None)
    assert found.secret.keys == (bytes(range(32)),) * 2
    for text in (repr(found), str(found.secret)):
        assert KEY.removeprefix("whsec_") not in text
        assert "\\x01" not in text


ONE_MISTAKE = {
    "on: [finnished]": (
        r"on\[0\]: must be a state that a job comes into \(in_queue, processing, .*\) or what "
        r"moves it \(create, .*\), not 'finnished'; did you mean 'finished'\?"
    ),
    "on: []": "on: must have at least 1 in it, and has none",
    "on: [5]": r"on\[0\]: must be a state that .*, not 5",
    "pipelines: [lungs]": (
        r"pipelines\[0\]: there is no pipeline 'lungs', configured are lung; did you mean 'lung'\?"
    ),
    "ae_titles: [CHESS]": (
        r"ae_titles\[0\]: there is no AE title 'CHESS', configured are CHEST; "
        r"did you mean 'CHEST'\?"
    ),
    "timeout: 0s": "timeout: must be longer than 0s",
    "timeout: 2m": "timeout: must be at most 60, not '2m'",
    "ca: none.pem": "ca: cannot be read: No such file or directory: .*/none.pem",
    "ca: plain": "ca: holds no CERTIFICATE in PEM form: .*/plain",
    "method: GET": (
        "method: is an unknown key; allowed are url, secret, on, pipelines, ae_titles, timeout, ca"
    ),
}


@pytest.mark.parametrize(("text", "mistake"), ONE_MISTAKE.items(), ids=ONE_MISTAKE)
def test_one_mistake(mistakes: Mistakes, text: str, mistake: str) -> None:
    """It is told with its line and key, and what is allowed."""
    (told,) = mistakes(REST + HOOK % text)
    assert re.fullmatch(f"3: webhooks.ris.{mistake}", told), told


@pytest.mark.parametrize(
    ("secret", "mistake"),
    [
        ("none", "cannot be read: No such file or directory: .*/none"),
        ("plain", "must hold whsec_ and 24 to 64 bytes .*, and key 1 of .*/plain is none; make"),
        ("short", "must hold whsec_ and 24 to 64 bytes .*, and key 2 of .*/short is none; make"),
        ("empty", "holds no key: .*/empty; make one with"),
        ("binary", "must be text in ASCII, and is not: .*/binary"),
        ("many", "holds more than 8 keys: .*/many"),
        ("5", "must be the path of a file, not 5"),
        (KEY, "must be the path of a file with the key in it, not the key"),
    ],
)
def test_a_secret_that_is_none_is_not_told(mistakes: Mistakes, secret: str, mistake: str) -> None:
    """The file and the line are named; what stands there may be a key all the same."""
    (told,) = mistakes(
        REST + (HOOK % "").replace("keys", f'"{secret}"' if secret == KEY else secret)
    )
    assert re.match(f"3: webhooks.ris.secret: {mistake}", told), told
    assert KEY not in told
    assert "sesame" not in told


@pytest.mark.parametrize(
    "url",
    [
        "ftp://ris/secret-path",
        "ris/secret-path",
        "https://",
        "https://ris:99999/secret-path",
        "https://ris:0/secret-path",
        "https://[::1/secret-path",
        "https://ann:secret-path@ris/",
        "https://ris/secret path",
        "https://ris/secret-path#part",
        "https://r\u00eds/secret-path",
    ],
)
def test_an_address_that_is_none_is_not_told(mistakes: Mistakes, url: str) -> None:
    """What is allowed is told; what stands there may be known to the receiver's friends alone."""
    (told,) = mistakes(REST + (HOOK % "").replace("https://ris/x", url))
    assert told.startswith("3: webhooks.ris.url: must be ")
    assert "secret" not in told


def test_what_would_never_be_looked_at_is_a_mistake(mistakes: Mistakes) -> None:
    """Authorities need TLS, names must be such, and jobs must run here."""
    plain = (HOOK % "ca: ca.pem").replace("https:", "http:")
    assert mistakes(REST + plain) == [
        "3: webhooks.ris.ca: is not looked at: url begins with http://"
    ]
    (told,) = mistakes(REST + (HOOK % "").replace("ris:", "RIS/1:"))
    assert told.startswith("3: webhooks.RIS/1: a webhook's name has 1 to 63 of a-z")
    remote = "platform: {address: 'h:1'}\nae_titles: {A: {settings: {a: p}}}\n"
    assert mistakes(remote + HOOK % "pipelines: [any], ae_titles: [A]") == [
        "3: webhooks: must not be here: webhooks are configured where jobs run (platform.address)"
    ]


def test_a_platform_alone_takes_any_ae_title(configured: Configure) -> None:
    """Those of the adapters that submit to it are not its own, so it cannot know them."""
    alone = "pipelines: {lung: {command: [x]}}\n" + HOOK % "ae_titles: [FAR]"
    assert configured(alone).webhooks["ris"].ae_titles == ("FAR",)


def test_a_new_key_in_the_same_file_is_a_change(configured: Configure, tmp_path: Path) -> None:
    """A reload takes it over; the change names the file's key of the configuration, not more."""
    before = configured(REST + HOOK % "")
    (tmp_path / "keys").write_text(KEY)
    (change,) = changes(before, configured(REST + HOOK % ""))
    assert (change.key, change.change) == ("webhooks.ris.secret", "changed")
