"""The files of `tls:` — each that cannot be used is an error that names its connection and its place."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from presign_proxy.config.load import Loaded, load
from presign_proxy.config_problems import ConfigError
from support.asking import SECRET
from support.config import write_config
from support.lab import bearer_connection
from support.mutual_tls import client_files

PLACE = "connections.conn.tls"


@pytest.fixture
def good(tmp_path: Path) -> dict[str, str]:
    """Names of files that can be used, relative to the configuration."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    client_files(authority, "alice", tmp_path)
    return {"ca": "ca.pem", "client_cert": "alice.crt", "client_key": "alice.key"}


def loaded(tmp_path: Path, tls: dict[str, str], upstream: str = "https://api.test") -> Loaded:
    tmp_path.chmod(0o700)
    connection = bearer_connection(upstream, SECRET, tls=tls)
    return load(write_config({"connections": {"conn": connection}}, tmp_path), {})


def problems(tmp_path: Path, tls: dict[str, str], **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, tls, **more)
    return [str(one).removeprefix(f"{tmp_path / 'config.yaml'}:") for one in error.value.problems]


def test_good_files_are_read_and_watched(tmp_path: Path, good: dict[str, str]) -> None:
    found = loaded(tmp_path, good)
    tls = found.registry.connections["conn"].tls
    assert tls is not None
    assert tls.ca is not None
    assert tls.ca.startswith("-----BEGIN CERTIFICATE")
    assert tls.key is not None
    assert "PRIVATE KEY" in tls.key.reveal()
    assert "PRIVATE KEY" not in repr(found.registry.connections["conn"])
    assert {tmp_path / name for name in good.values()} <= found.lent.files.keys()


SYSTEM = Path("/etc/ssl/certs/ca-certificates.crt")


@pytest.mark.skipif(not SYSTEM.exists(), reason="Debian's authorities are elsewhere")
def test_the_systems_authorities_are_taken_without_a_warning_of_the_library(tmp_path: Path) -> None:
    """Some have a serial number of zero: `presign check` printed a line of its own source."""
    with warnings.catch_warnings(action="error"):
        assert loaded(tmp_path, {"ca": str(SYSTEM)}).registry.connections["conn"].tls is not None


def test_settings_are_the_same_after_a_reload_unless_their_files_change(
    tmp_path: Path, good: dict[str, str]
) -> None:
    first, again = (loaded(tmp_path, good).registry.connections["conn"].tls for _ in range(2))
    assert first == again
    client_files(trustme.CA(), "alice", tmp_path)
    assert loaded(tmp_path, good).registry.connections["conn"].tls != first


def encrypted(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    kind = serialization.BestAvailableEncryption(b"pass")
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, form, kind))


def expired(tmp_path: Path) -> None:
    authority = trustme.CA()
    ended = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)
    found = authority.issue_cert(
        common_name="alice", not_after=ended, not_before=ended - datetime.timedelta(1)
    )
    (tmp_path / "alice.crt").write_bytes(found.cert_chain_pems[0].bytes())
    (tmp_path / "alice.key").write_bytes(found.private_key_pem.bytes())


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda at: (at / "ca.pem").unlink(), "/ca.pem: no such file or directory"),
    "no certificate": (
        lambda at: (at / "ca.pem").write_text("secret words"),
        f"{PLACE}.ca: holds no certificate in PEM form",
    ),
    "no key": (
        lambda at: (at / "alice.key").write_text("secret words"),
        f"{PLACE}.client_key: holds no private key in PEM form",
    ),
    "the key of another": (
        lambda at: (at / "alice.key").write_bytes(trustme.CA().issue_cert("b.test").private_key_pem.bytes()),
        f"{PLACE}.client_key: does not belong to client_cert",
    ),
    "a password": (encrypted, f"{PLACE}.client_key: is encrypted: the gateway cannot ask for a password"),
    "its end": (expired, f"{PLACE}.client_cert: has expired, at 2020-01-02T00:00:00Z"),
    "readers": (lambda at: (at / "alice.key").chmod(0o644), f"{PLACE}.client_key: is readable by everybody"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_used_is_an_error_of_its_connection(
    tmp_path: Path, good: dict[str, str], name: str
) -> None:
    change, why = BROKEN[name]
    change(tmp_path)
    found = problems(tmp_path, good)
    assert [one for one in found if why in one], found
    assert all(one[0].isdigit() for one in found), "each with line and column"
    assert "secret words" not in "".join(found)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path, good: dict[str, str]) -> None:
    """Its writer would be trusted as the upstream."""
    (tmp_path / "ca.pem").chmod(0o666)
    assert ["writable by others" in one for one in problems(tmp_path, good)] == [True]


@pytest.mark.parametrize(
    ("tls", "upstream", "problem"),
    [
        ({}, "https://api.test", "needs ca, or client_cert and client_key"),
        ({"client_cert": "a"}, "https://api.test", "client_cert and client_key belong together"),
        ({"client_key": "a"}, "https://api.test", "client_cert and client_key belong together"),
        ({"ca": "ca.pem"}, "http://127.0.0.1:1", "has no effect: there is no https upstream"),
        ({"ca": "ca.pem", "insecure": "x"}, "https://api.test", "is not a key that is known here"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    tmp_path: Path, good: dict[str, str], tls: dict[str, str], upstream: str, problem: str
) -> None:
    found = problems(tmp_path, tls, upstream=upstream)
    assert [one for one in found if problem in one], found
