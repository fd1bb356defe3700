"""One request head as bytes: what the core decides on, whichever adapter took it off the wire."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .errors import Denied, Malformed

Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields in the order they were received: (name, value), case and bytes kept."""

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request head; nginx and most upstreams stop at 8 to 32 KiB."""
MAX_FIELDS: Final = 100
"""Header fields of a request, as in Apache's LimitRequestFields."""

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.1: a token
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110, 5.5: no control but HTAB; so no obs-fold
_BAD_TARGET = re.compile(rb"[\x00-\x20\x7f]")


class Origin(NamedTuple):
    """Scheme, lower-case host name or address without brackets, and port."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """As it stands in `Host`: brackets around IPv6, no default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORT.get(self.scheme) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


DEFAULT_PORT: Final = {"http": 80, "https": 443}


class Request(NamedTuple):
    """A request head, undecoded, and how it came.

    `target` is the path and query of the request line. `origin` is where the client addressed the request:
    the absolute URL of its request line, the host it CONNECTed to, `Host` where there is nothing else, or
    the target of a reverse proxy. `names` are the further host names the client gave (each `Host` and
    `:authority`, SNI), as `host[:port]`, which must all agree with it.
    """

    method: bytes
    target: bytes
    fields: Fields
    version: bytes
    origin: Origin
    names: tuple[tuple[str, str], ...] = ()
    listener: tuple[str, int] | None = None
    reverse: bool = False
    client: str = ""

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> bytes | None:
        """What follows the first `?`; None where there is none."""
        _, mark, query = self.target.partition(b"?")
        return query if mark else None

    @property
    def size(self) -> int:
        return (
            len(self.method)
            + len(self.target)
            + 12
            + sum(len(name) + len(value) + 4 for name, value in self.fields)
        )


def check_size(request: Request) -> None:
    """Raises Denied("too_large") over `MAX_HEAD` bytes or `MAX_FIELDS` fields."""
    if len(request.fields) > MAX_FIELDS or request.size > MAX_HEAD:
        raise Denied("too_large", f"{len(request.fields)} header fields, {request.size} bytes")


def check_grammar(request: Request) -> None:
    """Refuse what two HTTP parsers could read in two ways; mitmproxy forwards all of it as it is.

    Raises Malformed. A request that passes can be written as HTTP/1 or HTTP/2 with one meaning.
    """
    if not _NAME.fullmatch(request.method):
        raise Malformed("the method is not a token")
    if _BAD_TARGET.search(request.target) or not request.target.startswith(b"/"):
        raise Malformed("the request target is not an absolute path without spaces and controls")
    if b"#" in request.target:
        raise Malformed("the request target holds a fragment")
    hosts = 0
    for name, value in request.fields:
        hosts += name.lower() == b"host"
        if not _NAME.fullmatch(name):
            raise Malformed("a header name is not a token")
        if _BAD_VALUE.search(value):
            raise Malformed(f"header {_shown(name)} holds a control character")
    # RFC 9112, 3.2: exactly one; HTTP/2 has :authority instead and may repeat it here.
    if hosts > 1 or (hosts == 0 and request.version.startswith(b"HTTP/1")):
        raise Malformed(f"{hosts} Host fields")


def _shown(name: bytes) -> str:
    return name[:40].decode("ascii", "replace")
