"""`tokens` and `--project` as a user types them."""

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.support import CONFIG, running

TCP = CONFIG.replace("listen: null", 'listen: "127.0.0.1:0"') + "projects: {trial: {}}\n"


def test_tokens_in_order(cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is made and printed alone, lets in, is listed without its secret, and revoked."""
    with running(tmp_path, TCP) as made:
        (address,) = made.ready.grpc
        words = ("--role", "operator", "--project", "trial", "--name", "ann", "--lasts", "90d")
        created = cli("tokens", "create", *words)
        secret = created.out.strip()
        assert created.out == f"{secret}\n"
        assert created.err == "ann: this token is not shown again\n"
        assert cli("jobs", "list", "--server", address).code == 1
        monkeypatch.setenv("DICOM_ADAPTER_TOKEN", secret)
        assert cli("jobs", "list", "--server", address).out == "There are no jobs.\n"
        assert cli("jobs", "list", "--server", address, "--project", "default").code == 1
        denied = cli("status", "--server", address)
        assert (denied.code, denied.out) == (1, "")
        assert denied.err == (
            "dicom-adapter: ann has the role operator in the project trial alone, and this "
            "concerns all of them: use another token\n"
        )
        (row,) = cli("tokens", "list", "--json").rows
        assert secret not in str(row)
        assert (row["name"], row["role"], row["project"], row["revoked_at"]) == (
            "ann",
            "operator",
            "trial",
            None,
        )
        assert cli("tokens", "list").out.splitlines()[1].split()[:3] == ["ann", "operator", "trial"]
        assert cli("tokens", "revoke", "ann").out == "ann is revoked\n"
        revoked = cli("jobs", "list", "--server", address)
        assert (revoked.code, "the token 'ann' was revoked" in revoked.err) == (1, True)


def test_words_that_make_no_token(cli: Command, tmp_path: Path) -> None:
    """A wrong role, time or project is told with what there is; nothing is made."""
    with running(tmp_path, TCP):
        role = cli("tokens", "create", "--role", "boss")
        assert (role.code, "'viewer', 'operator', 'manager', 'admin'" in role.err) == (2, True)
        time = cli("tokens", "create", "--role", "viewer", "--lasts", "soon")
        assert (time.code, "must be a duration such as" in time.err) == (2, True)
        project = cli("tokens", "create", "--role", "viewer", "--project", "trail")
        assert (project.code, project.err) == (
            1,
            "dicom-adapter: there is no project 'trail'; there are default, trial\n",
        )
        assert cli("tokens", "list").out == "There are no tokens.\n"
