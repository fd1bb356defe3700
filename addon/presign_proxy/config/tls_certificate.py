"""The TLS certificate of the gateway's own names: read from two files, and checked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ..config_problems import Problem
from ..file_access import read_at_most
from .permissions import writable_by_others
from .schema.config import FrontConfig
from .strict_yaml import Document

MAX_BYTES: Final = 256 * 1024
"""The most bytes of a file; a chain of certificates has a few thousand."""
_AT: Final = ("gateway", "tls")
_OTHERS: Final = 0o007


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
    chain = _parsed(cert, "cert", document, problems)
    found = _parsed(key, "key", document, problems)
    if chain is None or found is None:
        return None
    if chain[0].public_key() != found.public_key():
        problems.append(document.problem((*_AT, "key"), "does not belong to the certificate"))
        return None
    return Certificate(tuple(chain), found)


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


def _parsed(path: Path, which: str, document: Document, problems: list[Problem]) -> Any:
    """Return the content of a file, or None. The parser's message is not repeated: it may quote the file."""
    try:
        raw, found = read_at_most(path, MAX_BYTES)
        if which == "key" and os.name == "posix" and found.st_mode & _OTHERS:
            problems.append(document.problem((*_AT, which), f"is readable by everybody: chmod o-rwx {path}"))
        if which == "cert":
            return x509.load_pem_x509_certificates(raw)
        return load_pem_private_key(raw, None)
    except OSError as error:
        why = (error.strerror or "cannot be read").lower()
    except TypeError:
        why = "is encrypted: the gateway cannot ask for a password, so use a key without one"
    except Exception:  # any error of the parser
        why = "holds no certificate in PEM form" if which == "cert" else "holds no private key in PEM form"
    problems.append(document.problem((*_AT, which), why))
    return None
