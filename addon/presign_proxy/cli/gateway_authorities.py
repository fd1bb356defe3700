"""The gateway's own authorities: the one it makes for interception, and that of `gateway.tls`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from .authorities import authorities_of, certificates_of
from .place import Failure
from .workspace import Workspace

_CERTIFICATE: Final = "mitmproxy-ca-cert.pem"
_WITH_KEY: Final = "mitmproxy-ca.pem"


class OwnCertificate(NamedTuple):
    """What clients must trust besides, so that they accept the certificate of `gateway.tls`.

    `complete` is False if the authority of the certificate is neither in its file nor known here.
    """

    file: Path | None = None
    authorities: Sequence[str] = ()
    complete: bool = True


def in_directory(confdir: Path) -> Path:
    """Return the file of the authority in the directory of a gateway."""
    alone = confdir / _CERTIFICATE
    # An operator's own authority may have only the file that holds its key too.
    return alone if alone.exists() or not (confdir / _WITH_KEY).exists() else confdir / _WITH_KEY


def interception(file: Path) -> list[str]:
    """Return the authority of interception, without its key. Raises Failure if there is none yet."""
    try:
        found = certificates_of(file)
    except FileNotFoundError:
        raise Failure(
            f"{file} does not exist: the gateway makes it at its first start, in its --confdir; copy it from"
            " there, and name it with --ca"
        ) from None
    except OSError as error:
        raise Failure(f"{file}: {(error.strerror or 'cannot be read').lower()}") from None
    if not found:
        raise Failure(f"{file} holds no certificate in PEM form")
    return found


def own_certificate(workspace: Workspace | None, known: Sequence[str]) -> OwnCertificate:
    """Return what `gateway.tls` needs beyond the known authorities. Raises Failure, ConfigError."""
    tls = workspace.config.gateway.tls if workspace is not None and workspace.is_configured else None
    if workspace is None or tls is None:
        return OwnCertificate()
    file = workspace.base / tls.cert
    try:
        chain = certificates_of(file)
    except OSError as error:
        raise Failure(f"gateway.tls.cert: {file}: {(error.strerror or 'cannot be read').lower()}") from None
    if not chain:
        raise Failure(f"gateway.tls.cert: {file} holds no certificate in PEM form")
    return OwnCertificate(file, *authorities_of(chain, known))
