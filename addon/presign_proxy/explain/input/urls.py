"""URLs as people paste them, read as the client would that is given one."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ...http.hosts import is_loopback, parse_address, parse_authority
from ...http.message import Origin
from ...signing.carrier_names import API_PROXY, TOKEN_PATH
from ...signing.source_scheme import FORM

MAX_TEXT: Final = 256 * 1024
"""Characters of what is pasted; a request head is refused from 64 KiB on."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)(#.*)?", re.DOTALL)
_HOST_FIRST = re.compile(
    r"(?:localhost|[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?[/?]"
)
_BREAK = re.compile(r"[ \t]*[\r\n]+[ \t]*")
_GATEWAY_FORMS: Final = (API_PROXY, TOKEN_PATH)


class UnreadableUrl(ValueError):
    """What was pasted cannot be read. The text is for people and repeats nothing of what was pasted."""


class Located(NamedTuple):
    """A URL taken apart: `target` as it goes into the request line, `listener` where a gateway is assumed
    to listen at the URL's host; `assumed`, one sentence for everything that was guessed or dropped.
    """

    origin: Origin
    target: bytes
    userinfo: str | None
    listener: tuple[str, int] | None
    assumed: tuple[str, ...]


def looks_like_url(text: str) -> bool:
    """Whether a text is a URL, with or without its scheme, or the path of one."""
    return bool(_URL.match(text) or _HOST_FIRST.match(text) or text.startswith("/"))


def locate(text: str, gateway: str) -> Located:
    """Take a URL apart.

    Args:
        text: absolute, without its scheme, or a path, which is then the gateway's.
        gateway: `http(s)://host[:port]`.

    Raises Unreadable.
    """
    assumed: list[str] = []
    joined = _BREAK.sub("", text)
    if joined != text:
        assumed.append("The line breaks within the URL come from pasting and were taken out.")
    joined = _absolute(joined, gateway, assumed)
    match = _URL.fullmatch(joined)
    if match is None or match[1].lower() not in ("http", "https"):
        raise UnreadableUrl("a URL begins with http:// or https://")
    userinfo, _, host = match[2].rpartition("@")
    origin = parse_authority(host, match[1].lower())
    if origin is None:
        raise UnreadableUrl("the host of the URL is neither a name nor an address (or its port is none)")
    if match[4]:
        assumed.append("What follows # in the URL stays in the client: it is never sent.")
    target = _target(match[3], assumed)
    listener = _listener(origin, target)
    if listener is not None:
        assumed.append(f"A gateway listens on {origin.authority}.")
    return Located(origin, target, userinfo or None, listener, tuple(assumed))


def _absolute(text: str, gateway: str, assumed: list[str]) -> str:
    if text.startswith("/"):
        assumed.append(f"The path is one at the gateway, {gateway}.")
        return gateway.rstrip("/") + text
    if "://" not in text.partition("?")[0] and _HOST_FIRST.match(text):
        assumed.append("The URL has no scheme: http:// is what clients take then.")
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
    """Where a gateway is assumed to listen: at this machine's own names and at bare addresses, unless the
    URL is the API's own with a presign on it.
    """
    if not is_loopback(origin.host) and parse_address(origin.host) is None:
        return None
    path, _, query = target.partition(b"?")
    if b"X-Presign-" in query and not path.startswith(_GATEWAY_FORMS) and not FORM.match(path):
        return None
    return origin.host, origin.port
