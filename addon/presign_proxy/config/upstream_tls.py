"""The files of a connection's `tls`: its own authorities, and the client certificate with its key."""

from __future__ import annotations

import hashlib
import time
from typing import Final

from ..config_problems import Location
from ..core.way_out import UpstreamTls
from ..signing.secret import Secret
from .build_credentials import FileSecrets
from .pem_files import read_certificates, read_private_key
from .schema.connections import TlsConfig

_NOT_READ: Final = "not read"


def read_upstream_tls(secrets: FileSecrets, at: Location, wanted: TlsConfig) -> UpstreamTls:
    """Read the files, and report each that cannot be used.

    All of them are secrets from outside, which a connection may lack while the others are served. While
    requests are only examined, none is read.
    """
    if secrets.offline:
        return UpstreamTls("", _NOT_READ if wanted.ca else None, _NOT_READ if wanted.client_cert else "")
    ca = _authorities(secrets, (*at, "ca"), wanted.ca)
    chain, key = "", None
    if wanted.client_cert is not None and wanted.client_key is not None:
        chain, key = _pair(secrets, at, wanted.client_cert, wanted.client_key)
    parts = (ca or "", chain, key.reveal() if key is not None else "")
    mark = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return UpstreamTls(mark, ca, chain, key)


def _authorities(secrets: FileSecrets, at: Location, name: str | None) -> str | None:
    """Return the authorities as PEM; an empty text, which trusts nobody, if they cannot be read."""
    if name is None:
        return None
    path = secrets.outside(name)
    found = read_certificates(path, lambda why: secrets.wrong_file(at, path, why))
    return found[0] if found is not None else ""


def _pair(secrets: FileSecrets, at: Location, cert: str, key: str) -> tuple[str, Secret | None]:
    def wrong_cert(why: str) -> None:
        secrets.wrong_file((*at, "client_cert"), cert_path, why)

    def wrong_key(why: str) -> None:
        secrets.wrong_file((*at, "client_key"), key_path, why)

    cert_path = secrets.outside(cert)
    key_path = secrets.outside(key)
    chain, private = read_certificates(cert_path, wrong_cert), read_private_key(key_path, wrong_key)
    if chain is None or private is None:
        return "", None
    leaf, now = chain[1][0], time.time()
    if leaf.public_key() != private[1].public_key():
        wrong_key("does not belong to client_cert")
    if leaf.not_valid_after_utc.timestamp() < now:
        wrong_cert(f"has expired, at {leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    if leaf.not_valid_before_utc.timestamp() > now:
        wrong_cert(f"is not valid before {leaf.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}")
    return chain[0], Secret(private[0])
