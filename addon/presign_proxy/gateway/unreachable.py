"""Why an upstream cannot be connected to, in words for the audit log: which name, and what DNS said of it."""

from __future__ import annotations

import os
import re
import socket
import ssl
from typing import Final

from .proxy_error import MARK, ProxyError

NOT_LISTED: Final = "this destination belongs to no connection"
NOT_PUBLIC: Final = "this host does not resolve, or not to public addresses only"
OUR_OWN: Final = "this is an address of the gateway itself, or of its store"
NOT_IN_TIME: Final = "this host does not resolve, or not in time"
NOT_JUDGED: Final = "the gateway failed to judge this connection"
_REFUSED: Final = frozenset((NOT_LISTED, NOT_PUBLIC, OUR_OWN, NOT_IN_TIME, NOT_JUDGED))
"""Why a connection was not even dialled."""
_KILLED: Final = "Connection killed: "
"""What mitmproxy writes before such a reason."""
_VERIFIED: Final = re.compile(r"Certificate verify failed: ([ -~]{1,100})")
_NO_TLS: Final = "The remote server does not speak TLS."
"""What mitmproxy says of a TLS handshake that failed."""
_OF_NAME: Final = (62, 64)
"""OpenSSL's numbers for a certificate that is for another name, or for another address."""
_NUMBERLESS: Final = (
    (ConnectionResetError, "connection reset"),
    (ConnectionRefusedError, "connection refused"),
    (TimeoutError, "not in time"),
)
_NUMBERED: Final = re.compile(r"\[Errno (-?[0-9]{1,6})\]")


def of_error(host: str, error: OSError) -> str:
    """Return the reason for an error. Its own text may hold addresses, so only its number is used."""
    if isinstance(error, ProxyError):
        return str(error)
    if isinstance(error, socket.gaierror):
        return _unresolved(host, error.strerror or "no answer")
    if isinstance(error, ssl.SSLCertVerificationError):
        is_of_name = error.verify_code in _OF_NAME
        return _untrusted(host, "hostname mismatch" if is_of_name else error.verify_message)
    if isinstance(error, ssl.SSLError):  # its errno is no number of the system
        return _without_tls(host, (getattr(error, "reason", None) or "it failed").replace("_", " "))
    if error.errno:
        reason = os.strerror(error.errno).lower()
    else:
        reason = next((said for kind, said in _NUMBERLESS if isinstance(error, kind)), "it failed")
    return f"the upstream {host} cannot be connected to ({reason})"


def of_text(host: str, text: str) -> str | None:
    """Return the reason for the text of an error, as mitmproxy has it; None for a text of others."""
    text = text.removeprefix(_KILLED)
    if text in _REFUSED:
        return text
    if text.startswith(MARK):  # a `ProxyError`, whose text is ours
        return text
    if text == _NO_TLS:
        return _without_tls(host, "wrong version number")
    if match := _VERIFIED.match(text):
        return _untrusted(host, match[1])
    match = _NUMBERED.match(text)
    if match is None:
        return None
    number = int(match[1])
    if number < 0:  # the numbers of getaddrinfo
        return _unresolved(host, text[match.end() :].strip()[:100])
    return of_error(host, OSError(number, ""))


def _unresolved(host: str, said: str) -> str:
    return f"the upstream {host} does not resolve ({said.lower()})"


def _untrusted(host: str, said: str) -> str:
    said = said.lower().rstrip(".")
    if said == "hostname mismatch" or said.startswith("ip address mismatch"):
        return f"the certificate of the upstream {host} is for other names"
    return f"the certificate of the upstream {host} is not trusted ({said}): is `tls: {{ca: …}}` missing?"


def _without_tls(host: str, said: str) -> str:
    return f"the upstream {host} speaks no TLS, or none that fits ({said.lower()})"
