"""The authorities that a program has to trust: the system's and the gateway's, as PEM texts."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..file_access import read_at_most
from .environment import AUTHORITIES
from .place import Failure

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_MOST: Final = 16 << 20
_SYSTEM: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Gentoo
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS, BSD
)


def certificates_in(text: str) -> list[str]:
    """Return the certificates of a PEM text, each as a PEM text. All else, such as a key, is left out."""
    found = []
    for body in _PEM.findall(text):
        raw = "".join(body.split())
        lines = [raw[at : at + 64] for at in range(0, len(raw), 64)]
        found.append("\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""]))
    return found


def certificates_of(path: Path) -> list[str]:
    """Return the certificates of a file; empty if it holds none. Raises OSError."""
    raw, _ = read_at_most(path, _MOST)
    return certificates_in(raw.decode("utf-8", "replace"))


def system_authorities(environ: Mapping[str, str]) -> list[str]:
    """Return what programs trust on this machine, with what the environment adds. Raises Failure.

    `SSL_CERT_FILE` replaces the authorities of the system, as it does for the programs themselves.
    """
    own = [certificates for name in AUTHORITIES if (certificates := _named(environ.get(name, "")))]
    found = [] if _named(environ.get("SSL_CERT_FILE", "")) else _of_machine()
    whole = unique([*found, *(one for several in own for one in several)])
    if not whole:
        raise Failure("this machine has no file of certificate authorities: name one in $SSL_CERT_FILE")
    return whole


def bundle(certificates: Iterable[str]) -> str:
    """Return one PEM text."""
    return "".join(unique(certificates))


def unique(certificates: Iterable[str]) -> list[str]:
    """Return the certificates in their order, each once."""
    return list(dict.fromkeys(certificates))


def write_public(path: Path, raw: bytes) -> None:
    """Replace a file that everybody may read, in one step: a program may be reading it. Raises OSError."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            # Certificates are public, and programs of other users read them. Not by name: in a directory of
            # others, that may lead to another file by now.
            if hasattr(os, "fchmod"):
                os.fchmod(descriptor, 0o644)
        Path(draft).replace(path)
    except OSError:
        Path(draft).unlink(missing_ok=True)
        raise


def authorities_of(chain: Sequence[str], known: Sequence[str]) -> tuple[list[str], bool]:
    """Return the authorities above a server's chain that are not known yet, and whether they suffice.

    Args:
        chain: the certificates that the server sends, its own first.
        known: authorities that its clients trust already.
    """
    from cryptography import x509  # slow to import, and needed only if the gateway has its own certificate

    with warnings.catch_warnings(action="ignore"):  # of old authorities, whose owners nobody here is
        top = x509.load_pem_x509_certificate(chain[-1].encode())
        for pem in (chain[-1], *known):
            with contextlib.suppress(ValueError):  # one that no library reads is trusted by nobody
                above = x509.load_pem_x509_certificate(pem.encode())
                if above.subject == top.issuer and _has_signed(above, top):
                    return ([] if pem in known else [pem]), True
    return list(chain[1:]), False


def _has_signed(above: Certificate, below: Certificate) -> bool:
    try:
        below.verify_directly_issued_by(above)
    except Exception:  # an invalid signature, or a kind of key that cannot be verified
        return False
    return True


def _named(path: str) -> list[str]:
    """Return the certificates of a file that a variable names; empty without one that can be read."""
    try:
        return certificates_of(Path(path)) if path and Path(path).is_file() else []
    except (OSError, ValueError):
        return []


def _of_machine() -> list[str]:
    import ssl  # slow to import

    if sys.platform == "win32":
        kept = ssl.create_default_context().get_ca_certs(binary_form=True)
        return [one for der in kept for one in certificates_in(ssl.DER_cert_to_PEM_cert(der))]
    for path in (*_SYSTEM, ssl.get_default_verify_paths().openssl_cafile):
        if found := _named(path):
            return found
    import certifi  # mitmproxy depends on it

    return _named(certifi.where())
