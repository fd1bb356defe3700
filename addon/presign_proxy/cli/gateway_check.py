"""The check that a gateway answers at its URL, before a program is started that depends on it."""

from __future__ import annotations

import http.client
import ssl
from urllib.parse import urlsplit

from .hints import quoted
from .place import Failure

_PATIENCE = 5.0
"""Seconds that the gateway may take."""
_NOT_FOUND = "not_found"
"""The gateway's answer to a request at one of its own names that has no presign."""


def check_gateway(base: str, authorities: str | None, *, by_name: bool) -> None:
    """Raise Failure unless a gateway answers. The request holds nothing secret.

    Args:
        authorities: a PEM text of those that verify a gateway with TLS; None for those of Python.
        by_name: whether the program will send requests to the gateway's own name.
    """
    code = _answered(base, authorities)
    host = urlsplit(base).hostname
    if code is None:
        raise Failure(
            f"something answers at {base}, but it is no gateway that knows itself as {host}: give its URL"
            f" with --base, or list {host} in gateway.hosts. {_SKIP}"
        )
    if by_name and code != _NOT_FOUND:
        raise Failure(
            f"the gateway at {base} does not know the name {host}: list it in gateway.hosts. {_SKIP}"
        )


_SKIP = "--no-check starts the program anyway."


def _answered(base: str, authorities: str | None) -> str | None:
    """Return the code of the gateway's refusal, or None if something else has answered. Raises Failure."""
    url = urlsplit(base)
    try:
        connection = _connection(url.hostname or "", url.port, url.scheme, authorities)
        try:
            connection.request("GET", f"{url.path}/", headers={"Connection": "close"})
            return connection.getresponse().getheader("X-Presign-Error")
        finally:
            connection.close()
    except ssl.SSLCertVerificationError as error:
        raise Failure(_refused(base, authorities, error.verify_message)) from None
    except ssl.SSLError:
        raise Failure(f"{base} does not speak TLS: is it http://?") from None
    except ValueError:
        raise Failure(f"--base {base} is not a URL of a gateway") from None
    except http.client.HTTPException:
        return None
    except OSError as error:
        why = (error.strerror or str(error) or "no answer").lower()
        raise Failure(
            f"no gateway answers at {base} ({why}): start it with {quoted('serve')}, or name its URL with"
            f" --base. {_SKIP}"
        ) from None


def _refused(base: str, authorities: str | None, why: str) -> str:
    """Return what is wrong with the gateway's certificate: its authority is unknown, or lacks something."""
    if _is_known(base, authorities):
        return (
            f"the authority of the certificate of {base} is known, but Python 3.13 and later want all fields"
            f" that RFC 5280 requires ({why}). An authority that all programs accept is made with"
            f" `openssl req -x509 -addext keyUsage=critical,keyCertSign,cRLSign …`. {_SKIP}"
        )
    return f"the certificate of {base} is not trusted ({why}): name its authority with --ca"


def _is_known(base: str, authorities: str | None) -> bool:
    """Return whether the certificate is trusted as soon as RFC 5280 is not taken to the letter."""
    context = ssl.create_default_context(cadata=authorities)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    url = urlsplit(base)
    connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=_PATIENCE, context=context)
    try:
        connection.connect()
    except OSError:  # as every error of TLS is
        return False
    finally:
        connection.close()
    return True


def _connection(
    host: str, port: int | None, scheme: str, authorities: str | None
) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=_PATIENCE)
    context = ssl.create_default_context(cadata=authorities)
    return http.client.HTTPSConnection(host, port, timeout=_PATIENCE, context=context)
