"""The TLS certificate of the gateway's own names: read from two files, and checked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from ..config_problems import Problem
from .pem_files import read_certificates, read_private_key
from .permissions import writable_by_others
from .schema.config import FrontConfig
from .strict_yaml import Document

_AT: Final = ("gateway", "tls")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A chain, the gateway's own certificate first, and its private key."""

    chain: tuple[x509.Certificate, ...]
    key: Any

    def __repr__(self) -> str:
        return "Certificate(…)"


def files_of(wanted: FrontConfig | None, base: Path) -> list[Path]:
    """Return the files to read, certificate first; empty if none are configured."""
    return [base / wanted.cert, base / wanted.key] if wanted else []


def read_certificate(
    wanted: FrontConfig | None, base: Path, document: Document, problems: list[Problem]
) -> Certificate | None:
    """Read the configured certificate. Return None if there is none, or if it adds to the problems."""
    if wanted is None:
        return None
    cert, key = files_of(wanted, base)
    problems += [*writable_by_others(cert), *writable_by_others(key)]
    chain = read_certificates(cert, lambda why: problems.append(document.problem((*_AT, "cert"), why)))
    found = read_private_key(key, lambda why: problems.append(document.problem((*_AT, "key"), why)))
    if chain is None or found is None:
        return None
    if chain[1][0].public_key() != found[1].public_key():
        problems.append(document.problem((*_AT, "key"), "does not belong to the certificate"))
        return None
    return Certificate(tuple(chain[1]), found[1])


def advice_on(
    certificate: Certificate | None, hosts: frozenset[str], document: Document
) -> Iterator[Problem]:
    """Yield warnings: the certificate can be used, but probably not as its owner expects."""
    if certificate is None:
        return
    leaf = certificate.chain[0]
    if leaf.not_valid_after_utc.timestamp() < time.time():
        yield document.problem((*_AT, "cert"), "has expired")
    names = _names(leaf)
    for host in sorted(hosts):
        if host not in names and "*." + host.partition(".")[2] not in names:
            yield document.problem((*_AT, "cert"), f"does not name {host}")


def _names(leaf: x509.Certificate) -> set[str]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(one.value).lower() for one in found}
