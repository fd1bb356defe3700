"""The parser for the head of an upstream's HTTP/1 answer. The flow path and the lane both use it.

It accepts two forms beyond RFC 9112, because real servers write them and curl and nginx read them alike: a
body that is declared chunked twice, and lines that end in LF. The client gets such an answer with new
framing, and the upstream connection is not used again. So even if the upstream meant another end of the body,
no other request is affected. All other forms are refused; docs/answers.md has the table.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .message import MAX_HEAD, Fields

MAX_RESPONSE_HEAD: Final = 4 * MAX_HEAD
"""Most bytes of a head, together with the interim heads before it."""

MAX_RESPONSE_FIELDS: Final = 5000
"""Most fields of a head, as in curl. Each field costs as much as a hundred bytes of a value."""

UNFRAMED: Final = {
    204: frozenset((b"content-length", b"transfer-encoding")),
    304: frozenset((b"transfer-encoding",)),
}
"""Statuses whose answers always end with their head, and the fields that such a head must not contain.

With such a field, some clients would wait for a body (RFC 9110, 8.6; RFC 9112, 6.1). A 304 may have the
Content-Length of the representation that it confirms.
"""
NO_STATUS: Final = "the upstream's answer has no status of three digits"
TOO_LARGE: Final = "the head of the upstream's answer is too large"
TOO_MANY: Final = "the head of the upstream's answer has too many fields"

# All repetitions are possessive, so nothing is matched twice: the time is linear, whatever the head contains.
_TEXT: Final = rb"[^\x00-\x08\x0a-\x1f\x7f]*+"
_LINE: Final = rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: (" + _TEXT + rb"))?"
_FIELD: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++:" + _TEXT
_HEAD: Final = re.compile(_LINE + rb"\r\n((?:" + _FIELD + rb"\r\n)*+)\r\n")
_LOOSE_HEAD: Final = re.compile(_LINE + rb"\r?\n((?:" + _FIELD + rb"\r?\n)*+)\r?\n")
_STATUS_LINE: Final = re.compile(_LINE + rb"\r?\n")
# Parsers overflow in different ways beyond 63 bits.
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,17}")
_LENGTHS: Final = frozenset(map(len, (b"connection", b"content-length", b"transfer-encoding")))
_NO_HEAD: Final = "the head of the upstream's answer is not valid HTTP/1.1"
_NO_STATUS_LINE: Final = "the upstream's answer has no status line of HTTP/1.0 or HTTP/1.1"


class UnreadableHead(Exception):
    """An answer that has no reading, or more than one. The text is a constant, for the audit log."""


class ResponseHead(NamedTuple):
    """A head that has exactly one reading.

    `fields` contain at most one Content-Length or one Transfer-Encoding. `length` is the length of the body;
    None if the body is chunked or ends with the connection. `keeps` is True if, according to the head,
    another request may use the same connection. `regular` is True if the head is written as RFC 9112
    requires.
    """

    version: bytes
    status: int
    reason: bytes
    fields: Fields
    length: int | None
    chunked: bool
    keeps: bool
    regular: bool

    @property
    def is_interim(self) -> bool:
        """True for an interim answer. Any number may precede the final one (RFC 9110, 15.2).

        101 is not interim here: it ends HTTP on the connection, so it is the final answer.
        """
        return self.status < 200 and self.status != 101

    def written(self) -> bytes:
        """Return the bytes of this head, written as RFC 9112 requires."""
        lines = [b"HTTP/%b %d %b" % (self.version, self.status, self.reason)]
        lines += [b"%b: %b" % field for field in self.fields]
        return b"\r\n".join(lines) + b"\r\n\r\n"


class HeadSearch:
    """A search for the heads of one answer in the bytes received so far."""

    __slots__ = ("_begun", "_seen", "_size")

    def __init__(self) -> None:
        self._seen = self._size = 0
        self._begun = False
        """True if the first line was checked. It may be long, and the rest may arrive byte by byte."""

    def find(self, data: bytes, at: int = 0) -> tuple[ResponseHead, int] | None:
        """Return the head that begins at `at` in `data`, and where it ends; None if it is not complete yet.

        Call it again with more of the same data, or for the next head. Raises UnreadableHead. A first line
        that begins no answer is refused as soon as it is complete, before the end of the head.
        """
        ends = [found + 3] if (found := data.find(b"\n\r\n", at + self._seen)) >= 0 else []
        # An empty line that ends in LF alone may end the head earlier.
        if (found := data.find(b"\n\n", at + self._seen, ends[0] if ends else len(data))) >= 0:
            ends = [found + 2]
        end = ends[0] if ends else len(data)
        if self._size + end - at > MAX_RESPONSE_HEAD:
            raise UnreadableHead(TOO_LARGE)
        if not ends:
            if not self._begun and data.find(b"\n", at + self._seen) >= 0:
                if not _STATUS_LINE.match(data, at):
                    raise UnreadableHead(_NO_STATUS_LINE)
                self._begun = True
            self._seen = max(end - at - 2, 0)
            return None
        self._seen, self._size, self._begun = 0, self._size + end - at, False
        return parse(data[at:end]), end


def parse(raw: bytes) -> ResponseHead:
    """Parse a whole head, including the empty line at its end. Raises UnreadableHead."""
    regular = found = _HEAD.fullmatch(raw)
    if found is None and (found := _LOOSE_HEAD.fullmatch(raw)) is None:
        begun = _STATUS_LINE.match(raw)
        raise UnreadableHead(_NO_HEAD if begun else _NO_STATUS_LINE)
    if found[4].count(b"\n") > MAX_RESPONSE_FIELDS:
        raise UnreadableHead(TOO_MANY)
    status, version = int(found[2]), b"1." + found[1]
    fields: list[tuple[bytes, bytes]] = []
    sizes: list[bytes] = []
    codings: list[bytes] = []
    options: list[bytes] = []
    for line in found[4].splitlines():
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        fields.append((name, value))
        if len(name) in _LENGTHS:
            key = name.lower()
            if key == b"content-length":
                sizes.append(value)
            elif key == b"transfer-encoding":
                codings.append(value)
            elif key == b"connection":
                options.append(value)
    chunked = bool(codings) and _is_chunked(codings, version)
    length = _length(sizes) if sizes else None
    if chunked and sizes:
        raise UnreadableHead("the upstream's answer has a Content-Length and a Transfer-Encoding")
    once = not chunked or (len(codings) == 1 and b"," not in codings[0])
    if not once:
        fields = _coded_once(fields)
    keeps = (version == b"1.1" and not options) or _keeps(options, version)
    # The upstream may send a body that it announced, even with a status that has none.
    keeps = keeps and (status not in UNFRAMED or not (length or chunked))
    straight = once and regular is not None
    reason = found[3] or b""
    return ResponseHead(version, status, reason, tuple(fields), length, chunked, keeps and straight, straight)


def _is_chunked(codings: list[bytes], version: bytes) -> bool:
    """Return True for a chunked body; raise UnreadableHead for any other coding.

    Some frameworks declare chunked twice and send chunks once; curl and nginx read them so. RFC 9112, 6.1: we
    asked for no other coding, and HTTP/1.0 has none.
    """
    named = {token.strip(b" \t").lower() for value in codings for token in value.split(b",")}
    if named != {b"chunked"} or version == b"1.0":
        raise UnreadableHead("the upstream uses a transfer coding that was not asked for")
    return True


def _length(sizes: list[bytes]) -> int:
    """Parse Content-Length. Raises UnreadableHead unless it is given once, as one number.

    RFC 9112, 6.3 permits a list of equal numbers. No server needs that, and nginx, llhttp and mitmproxy
    refuse it.
    """
    if len(sizes) > 1 or not _LENGTH.fullmatch(sizes[0]):
        raise UnreadableHead("the upstream's answer has a Content-Length that is not one number")
    return int(sizes[0])


def _coded_once(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the fields with exactly one Transfer-Encoding: chunked."""
    others = [field for field in fields if field[0].lower() != b"transfer-encoding"]
    return [*others, (b"Transfer-Encoding", b"chunked")]


def _keeps(values: list[bytes], version: bytes) -> bool:
    """Return whether the upstream accepts another request, according to the values of its `Connection`."""
    options = {token.strip(b" \t").lower() for value in values for token in value.split(b",")}
    return b"close" not in options and (version == b"1.1" or b"keep-alive" in options)
