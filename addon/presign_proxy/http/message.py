"""One request head as bytes: what the core decides on, whichever adapter took it off the wire."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..errors import Denied, Malformed
from ..regexes import late

Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields in the order they were received: (name, value), case and bytes kept."""

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request head; nginx and most upstreams stop at 8 to 32 KiB."""
MAX_FIELDS: Final = 100
"""Header fields of a request, as in Apache's LimitRequestFields."""

# RFC 9110, 5.1: a name is a token; RFC 9110, 5.5: a value holds no control but HTAB, so no obs-fold either.
# Line breaks are counted instead, see `Head`.
TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TOKENS: Final = TOKEN + b"\n"
CONTROLS: Final = bytes(octet for octet in (*range(0x20), 0x7F) if octet not in (0x09, 0x0A))
_BAD_IN_TARGET: Final = bytes((*range(0x21), 0x7F)) + b"#"
# RFC 9112, 2.3: a higher minor version is read as 1.1. HTTP/0.9 has no fields, so no Host either.
_VERSIONS: Final = frozenset((b"HTTP/2.0", b"HTTP/3", *(b"HTTP/1.%d" % minor for minor in range(10))))
# RFC 9112, 6.3; and 18 digits, because beyond 63 bits every parser has an overflow of its own.
_LENGTH = late(rb"0|[1-9][0-9]{0,17}")
_CHUNKED: Final = [b"chunked"]


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

    `version` is empty where the request line claims another protocol than the connection speaks.
    `target` is the path and query of the request line. `origin` is where the client addressed the request:
    the absolute URL of its request line, the host it CONNECTed to, `Host` where there is nothing else, or
    the target of a reverse proxy. `names` are what else the client said of it, which must all agree: host
    names as `host[:port]` (each `Host` and `:authority`, SNI), and the scheme of a URL. `tunnelled` says
    that it came inside a CONNECT, or through SOCKS, where no proxy before the gateway can have added a word.
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
    tunnelled: bool = False

    @property
    def is_proxied(self) -> bool:
        """Whether the gateway is the client's proxy: it asked for a tunnel, or with a whole URL."""
        return self.tunnelled or any(kind == "scheme" for kind, _ in self.names)

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> bytes | None:
        """What follows the first `?`; None where there is none."""
        _, mark, query = self.target.partition(b"?")
        return query if mark else None


class Head(NamedTuple):
    """The header fields of a request joined, so that one search covers them all.

    `names` are lower-case, in order; `joined` and `values` are names and values, one per line.
    """

    names: list[bytes]
    joined: bytes
    values: bytes


def head_of(request: Request) -> Head:
    if not request.fields:
        return Head([], b"", b"")
    joined = b"\n".join([name for name, _ in request.fields]).lower()
    values = b"\n".join([value for _, value in request.fields])
    return Head(joined.split(b"\n"), joined, values)


def check_size(request: Request, head: Head) -> None:
    """Raises Denied("too_large") over `MAX_HEAD` bytes or `MAX_FIELDS` fields."""
    count = len(request.fields)
    size = len(request.method) + len(request.target) + len(head.joined) + len(head.values) + 4 * count
    if count > MAX_FIELDS or size > MAX_HEAD:
        raise Denied("too_large", f"{count} header fields, {size} bytes")


def check_grammar(request: Request, head: Head) -> None:
    """Refuse what two HTTP parsers could read in two ways; mitmproxy forwards all of it as it is.

    Raises Malformed. A request that passes can be written as HTTP/1 or HTTP/2 with one meaning.
    """
    if request.version not in _VERSIONS:
        raise Malformed("the request line claims a version of HTTP that is not spoken here")
    if not request.method or request.method.translate(None, TOKEN):
        raise Malformed("the method is not a token")
    target = request.target
    if len(target.translate(None, _BAD_IN_TARGET)) != len(target) or not target.startswith(b"/"):
        raise Malformed("the request target is not an absolute path without spaces, controls and fragment")
    breaks = max(len(request.fields) - 1, 0)
    names = head.names
    # Names are counted: a line break in one would make it look like two good ones.
    if head.joined.translate(None, _TOKENS) or b"" in names or len(names) != len(request.fields):
        raise Malformed("a header name is not a token")
    values = head.values
    if len(values.translate(None, CONTROLS)) != len(values) or values.count(b"\n") != breaks:
        raise Malformed("a header value holds a control character")
    hosts = names.count(b"host")
    # RFC 9112, 3.2: exactly one; HTTP/2 has :authority instead and may repeat it here.
    if hosts > 1 or (hosts == 0 and request.version.startswith(b"HTTP/1")):
        raise Malformed(f"{hosts} Host fields")
    at = -1
    for _ in range(names.count(b"content-length")):
        at = names.index(b"content-length", at + 1)
        if not _LENGTH.fullmatch(request.fields[at][1]):
            raise Malformed("Content-Length is not a number of at most 18 digits")
    # RFC 9112, 6.1: `gzip, chunked` is another body to whoever knows that coding than to whoever does not.
    if (
        b"transfer-encoding" in names
        and [value.lower() for name, value in request.fields if name.lower() == b"transfer-encoding"]
        != _CHUNKED
    ):
        raise Malformed("Transfer-Encoding is not chunked alone")


def is_sound(request: Request) -> bool:
    """Whether it passes `check_grammar`, for a request that was refused before it came to that."""
    try:
        check_grammar(request, head_of(request))
    except Malformed:
        return False
    return True
