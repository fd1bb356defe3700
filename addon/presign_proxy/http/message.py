"""One request head as bytes. Both adapters make it, and the core decides on it."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..errors import Denied, Malformed
from ..regexes import late

Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields as (name, value), in the order received, with case and bytes unchanged."""

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request head; nginx and most upstreams stop at 8 to 32 KiB."""
MAX_FIELDS: Final = 100
"""Header fields of a request, as in Apache's LimitRequestFields."""

# RFC 9110, 5.1: a name is a token. RFC 9110, 5.5: a value contains no control character but HTAB, so no
# obs-fold either. LF is not among `CONTROLS` because `Head` joins lines with it; `check_grammar` counts it.
TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TOKENS: Final = TOKEN + b"\n"
CONTROLS: Final = bytes(octet for octet in (*range(0x20), 0x7F) if octet not in (0x09, 0x0A))
_BAD_IN_TARGET: Final = bytes((*range(0x21), 0x7F)) + b"#"
# RFC 9112, 2.3: a higher minor version is read as 1.1. HTTP/0.9 has no fields, so no Host either.
_VERSIONS: Final = frozenset((b"HTTP/2.0", b"HTTP/3", *(b"HTTP/1.%d" % minor for minor in range(10))))
# RFC 9112, 6.3. At most 18 digits, because parsers overflow in different ways beyond 63 bits.
_LENGTH = late(rb"0|[1-9][0-9]{0,17}")
_CHUNKED: Final = [b"chunked"]
WEBSOCKET: Final = b"websocket"


class Origin(NamedTuple):
    """Scheme, lower-case host name or address without brackets, and port."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The value of `Host`: brackets around IPv6, no default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORT.get(self.scheme) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


DEFAULT_PORT: Final = {"http": 80, "https": 443}


class Request(NamedTuple):
    """A request head, undecoded, and how it arrived.

    `version` is empty if the request line claims another protocol than the connection uses. `target` is the
    path and query of the request line. `origin` is where the client addressed the request: the absolute URL
    of its request line, the host of its CONNECT, its `Host` if there is nothing else, or the target of a
    reverse proxy. `names` are the client's other statements about the origin, which must all agree: host
    names as `host[:port]` (each `Host` and `:authority`, SNI), and the scheme of a URL. `tunnelled` is True
    inside a CONNECT and through SOCKS, where no proxy before the gateway can have added a field.
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
        """True if the client uses the gateway as its proxy: through a tunnel, or with an absolute URL."""
        return self.tunnelled or any(kind == "scheme" for kind, _ in self.names)

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> bytes | None:
        """The bytes after the first `?`; None if there is no `?`."""
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
    """Refuse a head that two HTTP parsers could read in two ways. Raises Malformed.

    mitmproxy would forward all of it unchanged. A head that passes has one meaning, written as HTTP/1 or as
    HTTP/2.
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
    # Names are counted, because a name with a line break in it would look like two good names.
    if head.joined.translate(None, _TOKENS) or b"" in names or len(names) != len(request.fields):
        raise Malformed("a header name is not a token")
    values = head.values
    if len(values.translate(None, CONTROLS)) != len(values) or values.count(b"\n") != breaks:
        raise Malformed("a header value holds a control character")
    hosts = names.count(b"host")
    # RFC 9112, 3.2: exactly one Host. HTTP/2 has :authority instead, and may repeat it in Host.
    if hosts > 1 or (hosts == 0 and request.version.startswith(b"HTTP/1")):
        raise Malformed(f"{hosts} Host fields")
    at = -1
    for _ in range(names.count(b"content-length")):
        at = names.index(b"content-length", at + 1)
        if not _LENGTH.fullmatch(request.fields[at][1]):
            raise Malformed("Content-Length is not a number of at most 18 digits")
    # RFC 9112, 6.1: a parser that knows `gzip, chunked` reads another body than one that does not.
    if (
        b"transfer-encoding" in names
        and [value.lower() for name, value in request.fields if name.lower() == b"transfer-encoding"]
        != _CHUNKED
    ):
        raise Malformed("Transfer-Encoding is not chunked alone")


def is_sound(request: Request) -> bool:
    """Return whether a request passes `check_grammar`. For requests that were refused before that check."""
    try:
        check_grammar(request, head_of(request))
    except Malformed:
        return False
    return True


def listed(fields: Fields, name: bytes) -> list[bytes]:
    """Return the lower-case elements of a list header, from all of its lines."""
    values = [value for one, value in fields if one.lower() == name]
    return [one for value in values for token in value.split(b",") if (one := token.strip(b" \t").lower())]


def asks_for_websocket(fields: Fields) -> bool:
    """Return whether a request asks for WebSocket: what comes behind it may be frames."""
    return WEBSOCKET in listed(fields, b"upgrade")


def asks_to_switch(fields: Fields) -> bool:
    """Return whether a request asks for another protocol on its connection (RFC 9110, 7.8)."""
    return bool(listed(fields, b"upgrade")) and b"upgrade" in listed(fields, b"connection")


def with_length(fields: Fields, length: int) -> Fields:
    """Return header fields for a body of this length: one Content-Length, whatever was announced."""
    kept = [field for field in fields if field[0].lower() != b"content-length"]
    return (*kept, (b"Content-Length", str(length).encode("ascii")))
