"""Why an upstream cannot be connected to, in words for the audit log: which name, and what DNS said of it."""

from __future__ import annotations

import os
import re
import socket
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
_NUMBERED: Final = re.compile(r"\[Errno (-?[0-9]{1,6})\]")


def of_error(host: str, error: OSError) -> str:
    """Return the reason for an error. Its own text may hold addresses, so only its number is used."""
    if isinstance(error, ProxyError):
        return str(error)
    if isinstance(error, socket.gaierror):
        return _unresolved(host, error.strerror or "no answer")
    number = error.errno
    reason = os.strerror(number).lower() if number else type(error).__name__
    return f"the upstream {host} cannot be connected to ({reason})"


def of_text(host: str, text: str) -> str | None:
    """Return the reason for the text of an error, as mitmproxy has it; None for a text of others."""
    text = text.removeprefix(_KILLED)
    if text in _REFUSED:
        return text
    if text.startswith(MARK):  # a `ProxyError`, whose text is ours
        return text
    match = _NUMBERED.match(text)
    if match is None:
        return None
    number = int(match[1])
    if number < 0:  # the numbers of getaddrinfo
        return _unresolved(host, text[match.end() :].strip()[:100])
    return of_error(host, OSError(number, ""))


def _unresolved(host: str, said: str) -> str:
    return f"the upstream {host} does not resolve ({said.lower()})"
