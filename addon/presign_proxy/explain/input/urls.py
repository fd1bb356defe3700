"""The parser of pasted URLs. It reads a URL as a client would."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ...http.hosts import is_loopback, parse_address, parse_authority
from ...http.message import Origin
from ...signing.carrier_names import API_PROXY, TOKEN_PATH
from ...signing.source_scheme import FORM

MAX_TEXT: Final = 256 * 1024
"""Most characters of pasted text. The gateway refuses request heads of more than 64 KiB."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)(#.*)?", re.DOTALL)
_HOST_FIRST = re.compile(
    r"(?:localhost|[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?[/?]"
)
_BREAK = re.compile(r"[ \t]*[\r\n]+[ \t]*")
_GATEWAY_FORMS: Final = (API_PROXY, TOKEN_PATH)


class UnreadableUrl(ValueError):
    """Pasted text that cannot be read. The message repeats nothing of the pasted text."""


class Located(NamedTuple):
    """A parsed URL.

    `target` is as in the request line. `listener` is set if a gateway is assumed to listen at the URL's host.
    `assumed` has one sentence for each guess and for each dropped part.
    """

    origin: Origin
    target: bytes
    userinfo: str | None
    listener: tuple[str, int] | None
    assumed: tuple[str, ...]


def looks_like_url(text: str) -> bool:
    """Return whether a text is a URL, with or without a scheme, or the path of one."""
    return bool(_URL.match(text) or _HOST_FIRST.match(text) or text.startswith("/"))


def locate(text: str, gateway: str) -> Located:
    """Parse a URL.

    Args:
        text: an absolute URL, a URL without its scheme, or a path at the gateway.
        gateway: `http(s)://host[:port]`.

    Raises UnreadableUrl.
    """
    assumed: list[str] = []
    joined = _BREAK.sub("", text)
    if joined != text:
        assumed.append("The line breaks within the URL come from pasting and were removed.")
    joined = _absolute(joined, gateway, assumed)
    match = _URL.fullmatch(joined)
    if match is None or match[1].lower() not in ("http", "https"):
        raise UnreadableUrl("a URL begins with http:// or https://")
    userinfo, _, host = match[2].rpartition("@")
    origin = parse_authority(host, match[1].lower())
    if origin is None:
        raise UnreadableUrl("the host of the URL is neither a name nor an address, or its port is not valid")
    if match[4]:
        assumed.append("The part after # in the URL stays in the client: it is never sent.")
    target = _target(match[3], assumed)
    listener = _listener(origin, target)
    if listener is not None:
        assumed.append(f"A gateway listens on {origin.authority}.")
    return Located(origin, target, userinfo or None, listener, tuple(assumed))


def _absolute(text: str, gateway: str, assumed: list[str]) -> str:
    if text.startswith("/"):
        assumed.append(f"The path is taken as a path at the gateway, {gateway}.")
        return gateway.rstrip("/") + text
    if "://" not in text.partition("?")[0] and _HOST_FIRST.match(text):
        assumed.append("The URL has no scheme: clients use http:// then.")
        return f"http://{text}"
    return text


def _target(text: str, assumed: list[str]) -> bytes:
    if not text.startswith("/"):
        text = f"/{text}"
    if " " in text:
        assumed.append("Clients send a space in a URL as %20.")
        text = text.replace(" ", "%20")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise UnreadableUrl("the URL is not Unicode text") from None


def _listener(origin: Origin, target: bytes) -> tuple[str, int] | None:
    """Return where a gateway is assumed to listen: at loopback names and at bare addresses.

    None if the URL is the API's own with a presign in its query.
    """
    if not is_loopback(origin.host) and parse_address(origin.host) is None:
        return None
    path, _, query = target.partition(b"?")
    if b"X-Presign-" in query and not path.startswith(_GATEWAY_FORMS) and not FORM.match(path):
        return None
    return origin.host, origin.port
