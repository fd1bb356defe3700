"""`presign check` says what `presign serve` would say, before it is started."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.asking import SECRET
from support.config import write_config
from support.lab import bearer_connection
from support.serving import Serve
from support.shell import Done, Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def configured(shell: Shell, **more: Any) -> None:
    write_config(config(**more), shell.directory)


def config(**more: Any) -> dict[str, Any]:
    limited = bearer_connection("http://127.0.0.1:9", SECRET) | {"limits": [{"rate": "60/minute"}]}
    return {"connections": {"conn_a": limited}, "audit": {"file": "audit.jsonl"}} | more


def found(done: Done) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(done.out)
    assert said["ok"] is (done.code == 0)
    return said


def files(shell: Shell) -> set[str]:
    return {path.name for path in shell.directory.iterdir()}


def test_counters_that_workers_would_not_share_are_warned_of(shell: Shell) -> None:
    configured(shell, limits={"store": "memory://"})
    warnings = found(shell.presign("check", "--json"))["warnings"]
    assert sum("`presign serve` accepts it only with one worker" in one for one in warnings) == 1


@pytest.mark.parametrize(
    ("pasted", "warned"),
    [
        ("$OPENAI_API_KEY", "its API key is a $variable"),
        ("${OPENAI_API_KEY}", "its API key is a $variable"),
        ("bearer sk-0123456789", "its API key begins with Bearer, which the gateway adds"),
        ("sk-0123456789$", None),
        ("bearersk-0123456789", None),
    ],
)
def test_what_was_pasted_with_a_key_or_instead_of_it_is_told(
    pasted: str, warned: str | None, shell: Shell
) -> None:
    entry = config()["connections"]["conn_a"] | {"auth": {"type": "bearer", "token": pasted}}
    configured(shell, connections={"conn_a": entry})
    about = [one for one in found(shell.presign("check", "--json"))["warnings"] if "its API key" in one]
    assert len(about) == (warned is not None)
    assert not about or (warned or "") in about[0]
    assert "0123456789" not in "".join(about)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("logs/audit.jsonl", "there is no directory {here}/logs"),
        ("config.yaml/audit.jsonl", "not a directory"),
        (".", "is a directory, a device or a pipe, not a file"),
        ("link", "is a symbolic link: name the file itself"),
    ],
)
def test_an_audit_log_that_cannot_be_opened_is_told_as_serve_tells_it(
    file: str, why: str, shell: Shell, tmp_path: Path
) -> None:
    configured(shell, audit={"file": file})
    (shell.directory / "link").symlink_to("there")
    before = files(shell)
    done = shell.presign("check", "--json")
    assert done.code == 1
    (error,) = found(done)["errors"]
    assert error == f"{shell.directory}/config.yaml: audit.file: {why.format(here=shell.directory)}"
    assert files(shell) == before

    served = tmp_path / "served"
    served.mkdir(mode=0o700)
    (served / "link").symlink_to("there")
    status, log = Serve(served, config(audit={"file": file})).run()
    assert status == 1
    assert error.replace(str(shell.directory), str(served)) in log


def test_a_log_in_a_directory_that_cannot_be_written_is_told(shell: Shell) -> None:
    """For root too, whom no mode keeps out: nobody writes in /proc."""
    configured(shell, audit={"file": "/proc/self/audit.jsonl"})
    (error,) = found(shell.presign("check", "--json"))["errors"]
    assert "audit.file: " in error


def test_a_store_that_could_not_be_counted_in_is_told(shell: Shell) -> None:
    configured(shell, limits={"store": f"sqlite:///{shell.directory}/state/presign.db"})
    done = shell.presign("check", "--json")
    assert done.code == 1
    (error,) = found(done)["errors"]
    assert "limits.store: limited requests would be answered 503: presign.db: there is no" in error
    assert f"there is no directory {shell.directory}/state" in error


def test_a_store_that_is_something_else_is_told(shell: Shell) -> None:
    configured(shell, limits={"store": f"sqlite:///{shell.directory}/config.yaml"})
    (error,) = found(shell.presign("check", "--json"))["errors"]
    assert "limits.store: " in error
    assert "file is not a database" in error


def test_a_look_at_what_can_be_opened_leaves_nothing_behind(shell: Shell) -> None:
    """What root looks at, the gateway's own user has to be able to make."""
    configured(shell, limits={"store": f"sqlite:///{shell.directory}/presign.db"})
    before = files(shell)
    done = shell.presign("check", "--json", "--confdir", "authority/of/its/own")
    assert (done.code, found(done)["errors"]) == (0, [])
    assert files(shell) == before


def test_an_authority_that_could_not_be_made_is_told(shell: Shell) -> None:
    configured(shell)
    done = shell.presign("check", "--confdir", "config.yaml/ca")
    assert done.code == 1
    assert f"{shell.directory}/config.yaml: not a directory" in done.out


def test_a_port_of_the_admin_listener_that_is_in_use_is_warned_of(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        admin = f"127.0.0.1:{taken.getsockname()[1]}"
        configured(shell, admin={"listen": admin})
        done = shell.presign("check", "--json")
        assert done.code == 0
        assert [line for line in found(done)["warnings"] if line.startswith("admin.listen")] == [
            f"admin.listen: cannot listen on {admin}: address already in use. "
            "Fine if this gateway is running there; a second one would not start"
        ]
    assert "admin.listen" not in shell.presign("check").out


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("https://presign.example.com/base", True),
        ("https://Presign.Local:8443", False),
        ("http://localhost:8080", False),
        ("http://[::1]:8080", False),
        ("http://192.0.2.7:8080", False),
    ],
)
def test_a_gateway_that_does_not_know_the_name_in_its_own_url_is_warned_of(
    url: str, warned: bool, shell: Shell
) -> None:
    configured(shell, gateway={"hosts": ["presign.local"], "url": url})
    warnings = found(shell.presign("check", "--json"))["warnings"]
    said = "gateway.url: names presign.example.com, which gateway.hosts does not list"
    assert any(said in one for one in warnings) is warned
    assert any("gateway.url" in one for one in warnings) is warned


@pytest.mark.parametrize(
    ("url", "plain_http", "warned"),
    [
        ("http://presign.local:8443", False, True),
        ("http://presign.local:8443", True, False),
        ("https://presign.local:8443", False, False),
        ("http://127.0.0.1:8080", False, False),
    ],
)
def test_a_url_without_tls_of_a_gateway_that_refuses_plain_http_is_warned_of(
    url: str, plain_http: bool, warned: bool, shell: Shell
) -> None:
    """URLs that were signed with it were refused on all other machines."""
    leaf = trustme.CA().issue_cert("presign.local")
    leaf.cert_chain_pems[0].write_to_path(str(shell.directory / "cert.pem"))
    (shell.directory / "key.pem").touch(mode=0o600)
    (shell.directory / "key.pem").write_bytes(leaf.private_key_pem.bytes())
    tls = {"cert": "cert.pem", "key": "key.pem", "plain_http": plain_http}
    configured(shell, gateway={"hosts": ["presign.local"], "url": url, "tls": tls})
    answer = found(shell.presign("check", "--json"))
    assert answer["errors"] == []
    said = "gateway.url: begins with http://, and with gateway.tls the gateway refuses plain HTTP"
    assert any(said in one for one in answer["warnings"]) is warned


def test_a_certificate_that_is_not_there_is_named(shell: Shell) -> None:
    configured(shell, gateway={"tls": {"cert": "tls/cert.pem", "key": "tls/key.pem"}})
    errors = found(shell.presign("check", "--json"))["errors"]
    missing = [shell.directory / "tls" / name for name in ("cert.pem", "key.pem")]
    assert all(any(f"{path}: no such file or directory" in one for one in errors) for path in missing)


def test_a_port_for_clients_that_is_in_use_is_warned_of(shell: Shell) -> None:
    configured(shell)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert (
            f"warning  cannot listen on {address}: something else does"
            in shell.presign("check", "--listen", address).out
        )
    assert "cannot listen" not in shell.presign("check", "--listen", address).out


def test_what_would_record_the_keys_of_tls_sessions_is_warned_of(shell: Shell) -> None:
    configured(shell)
    assert "$SSLKEYLOGFILE is set" in shell.presign("check", SSLKEYLOGFILE="keys.log").out
