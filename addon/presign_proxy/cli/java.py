"""The trust store and the options with which a Java program uses the gateway: it reads no PEM files."""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from .environment import java_proxy

OPTIONS: Final = "JAVA_TOOL_OPTIONS"
_PASSWORD: Final = "presign"  # noqa: S105 - Java wants one; the store holds certificates alone


def is_installed(environ: Mapping[str, str]) -> bool:
    """Return whether a program could be one of Java."""
    return bool(environ.get("JAVA_HOME")) or shutil.which("java", path=environ.get("PATH")) is not None


def trust_store(certificates: Sequence[str]) -> bytes:
    """Return PEM texts as a trust store in the format PKCS #12, which Java has read since version 8."""
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
    from cryptography.hazmat.primitives.serialization.pkcs12 import (
        PKCS12Certificate,
        serialize_java_truststore,
    )
    from cryptography.x509 import load_pem_x509_certificate

    found = []
    with warnings.catch_warnings(action="ignore"):  # of old authorities, whose owners nobody here is
        for number, pem in enumerate(certificates):
            with contextlib.suppress(ValueError):  # one that no library reads is trusted by nobody
                certificate = load_pem_x509_certificate(pem.encode())
                found.append(PKCS12Certificate(certificate, f"presign-{number}".encode()))
    return serialize_java_truststore(found, BestAvailableEncryption(_PASSWORD.encode()))


def trust_option(store: str) -> str:
    """Return the options with which Java uses a trust store of this format and password."""
    return f"-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStorePassword={_PASSWORD}"


def options(environ: Mapping[str, str], store: Path, base: str, *, proxied: bool, local: bool) -> str:
    """Return the value of `JAVA_TOOL_OPTIONS`: what stands there already, and what the gateway needs.

    Args:
        proxied: whether all requests go through the gateway.
        local: whether those to this machine do so too.
    """
    found = [environ.get(OPTIONS, ""), trust_option(_quoted(store))]
    if proxied:
        found += [java_proxy(base), java_proxy(base).replace("-Dhttps.", "-Dhttp.")]
    if proxied and local:
        found.append("-Dhttp.nonProxyHosts=")
    return " ".join(filter(None, found))


def _quoted(path: Path) -> str:
    text = os.fspath(path)
    return f'"{text}"' if " " in text else text
