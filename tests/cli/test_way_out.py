"""What the command says of the way out, and how it sets it; never a user or a password."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.asking import SECRET, Grant
from support.config import write_config
from support.lab import bearer_connection
from support.mutual_tls import client_files
from support.shell import Shell

PROXY = {
    "url": "http://us3r-name@proxy.test:3128",
    "password": {"env": "PROXY_PASSWORD"},
    "no_proxy": [".in.test"],
}
PASSWORD = "pr0xy-pass-word"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, PROXY_PASSWORD=PASSWORD)


def written(shell: Shell, **connections: dict[str, Any]) -> None:
    config = {"gateway": {"upstream_proxy": PROXY}, "connections": connections}
    write_config(config, shell.directory)


def api(host: str, **more: Any) -> dict[str, Any]:
    return bearer_connection(f"https://{host}", SECRET, **more)


def test_check_says_which_way_is_taken(shell: Shell) -> None:
    written(shell, conn=api("api.test"), direct=api("api.test", upstream_proxy="none"))
    found = shell.presign("check")
    way = "through http://proxy.test:3128, with 1 exception; 1 connection directly"
    assert f"upstreams are reached {way}" in found.all
    told = json.loads(shell.presign("check", "--json").out)
    assert told["way_out"] == way
    assert PASSWORD not in found.all
    assert "us3r-name" not in found.all


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("conn", "reached through http://proxy.test:3128"),
        ("exempt", "reached directly: the proxy is not for it"),
        ("direct", "reached directly: upstream_proxy is none"),
    ],
)
def test_explain_says_which_way_a_request_takes(shell: Shell, name: str, said: str) -> None:
    """Without the password, which the command need not be able to read."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(shell.directory / "ca.pem"))
    cert, key = client_files(authority, "alice", shell.directory)
    tls = {"ca": "ca.pem", "client_cert": cert, "client_key": key}
    written(
        shell,
        conn=api("api.test", tls=tls),
        exempt=api("a.in.test"),
        direct=api("api.test", upstream_proxy="none"),
    )
    Path(key).unlink()
    found = shell.presign("explain", f"http://presign.local{Grant(name).target('x')}")
    assert said in found.all
    assert ("the client certificate of the connection is shown" in found.all) is (name == "conn")
    assert ("only the authorities of tls.ca are trusted" in found.all) is (name == "conn")


def test_the_settings_of_a_registered_connection_are_typed(shell: Shell) -> None:
    assert shell.presign("init").code == 0
    (shell.directory / "key").write_text("sk-KEY-0123456789")
    (shell.directory / "key").chmod(0o600)
    added = shell.presign(
        "connections", "add", "conn_a", "--upstream", "https://api.test", "--auth", "bearer",
        "--credential-file", "key",
    )  # fmt: skip
    assert added.code == 0, added.all
    trustme.CA().cert_pem.write_to_path(str(shell.directory / "ca.pem"))
    done = shell.presign("connections", "set", "conn_a", "upstream_proxy=none", "tls.ca=ca.pem", "--yes")
    assert done.code == 0, done.all
    shown = json.loads(shell.presign("connections", "show", "conn_a", "--json").out)["entry"]
    assert (shown["upstream_proxy"], shown["tls"]) == ("none", {"ca": "ca.pem"})
    # The files are the gateway's: the user of the command need not be able to read them.
    assert shell.presign("connections", "set", "conn_a", "tls.ca=gone.pem", "--yes").code == 0
    assert "/here/gone.pem: no such file or directory" in shell.presign("check").all
    assert shell.presign("connections", "set", "conn_a", "upstream_proxy=", "tls.ca=", "--yes").code == 0
