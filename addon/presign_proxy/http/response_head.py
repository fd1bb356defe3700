"""The head of an upstream's answer over HTTP/1, in the one reading that both paths have of it.

What is read beyond RFC 9112 is what real servers write and curl and nginx read alike: a chunked body that is
said to be chunked twice, lines that end in LF. The client gets it framed anew, and no other request goes over
its connection: whoever disagrees about where it ends disagrees about nothing else. All else is refused;
docs/answers.md has the table.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .message import MAX_HEAD, Fields

MAX_RESPONSE_HEAD: Final = 4 * MAX_HEAD
"""Bytes of a head, those of interim heads before it included."""

MAX_RESPONSE_FIELDS: Final = 5000
"""Fields of a head, as many as curl takes. Each costs as much as a hundred bytes of one."""

UNFRAMED: Final = {
    204: frozenset((b"content-length", b"transfer-encoding")),
    304: frozenset((b"transfer-encoding",)),
}
"""Answers that end with their head, whatever it says, and the fields that must not stand there: some clients
would wait for a body (RFC 9110, 8.6; RFC 9112, 6.1). A 304 may tell the length of what it speaks of.
"""
NO_STATUS: Final = "the upstream's answer has no status of three digits"
TOO_LARGE: Final = "the head of the upstream's answer is too large"
TOO_MANY: Final = "the head of the upstream's answer has too many fields"

# None of these repetitions gives back what it has taken: a head is read once, whatever is wrong with it.
_TEXT: Final = rb"[^\x00-\x08\x0a-\x1f\x7f]*+"
_LINE: Final = rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: (" + _TEXT + rb"))?"
_FIELD: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++:" + _TEXT
_HEAD: Final = re.compile(_LINE + rb"\r\n((?:" + _FIELD + rb"\r\n)*+)\r\n")
_LOOSE_HEAD: Final = re.compile(_LINE + rb"\r?\n((?:" + _FIELD + rb"\r?\n)*+)\r?\n")
_STATUS_LINE: Final = re.compile(_LINE + rb"\r?\n")
# Beyond 63 bits every parser has an overflow of its own.
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,17}")
_LENGTHS: Final = frozenset(map(len, (b"connection", b"content-length", b"transfer-encoding")))
_NO_HEAD: Final = "the head of the upstream's answer is not as HTTP/1.1 has it"
_NO_STATUS_LINE: Final = "the upstream's answer has no status line of HTTP/1.0 or HTTP/1.1"


class UnreadableHead(Exception):
    """An answer that could be read in two ways, or in none. Its text is a constant, for the audit log."""


class ResponseHead(NamedTuple):
    """A head that has one reading.

    `fields` hold one Content-Length at most, or one Transfer-Encoding. `length` is that of the
    body, None where it is chunked or ends with the connection. `keeps` says whether another request may go
    over the same connection, as far as the head says; `regular`, whether it is written as RFC 9112 wants it.
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
        """RFC 9110, 15.2: any number of them may precede the answer; 101 ends HTTP and is the answer."""
        return self.status < 200 and self.status != 101

    def written(self) -> bytes:
        """The head as it should have come."""
        lines = [b"HTTP/%b %d %b" % (self.version, self.status, self.reason)]
        lines += [b"%b: %b" % field for field in self.fields]
        return b"\r\n".join(lines) + b"\r\n\r\n"


class HeadSearch:
    """Finds the heads of one answer in what has come of it."""

    __slots__ = ("_begun", "_seen", "_size")

    def __init__(self) -> None:
        self._seen = self._size = 0
        self._begun = False
        """Whether the first line was looked at: it may be long, and the rest may come byte by byte."""

    def find(self, data: bytes, at: int = 0) -> tuple[ResponseHead, int] | None:
        """The head that stands in `data` from `at` on, and where what is behind it begins; None where its end
        has not come.

        To be asked again with more of the same, or with what is behind. Raises Unreadable; where the first
        line is there and begins no answer, at once: nothing better would follow.
        """
        ends = [found + 3] if (found := data.find(b"\n\r\n", at + self._seen)) >= 0 else []
        # A line in LF alone may end the head before.
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
    """A whole head, with the empty line that ends it. Raises Unreadable."""
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
    # A body announced where there is none may come all the same.
    keeps = keeps and (status not in UNFRAMED or not (length or chunked))
    straight = once and regular is not None
    reason = found[3] or b""
    return ResponseHead(version, status, reason, tuple(fields), length, chunked, keeps and straight, straight)


def _is_chunked(codings: list[bytes], version: bytes) -> bool:
    """Whether a body comes in chunks. Some frameworks say so twice, and send it in chunks once: curl and
    nginx read them so. RFC 9112, 6.1: no other coding was asked for; HTTP/1.0 has none.
    """
    named = {token.strip(b" \t").lower() for value in codings for token in value.split(b",")}
    if named != {b"chunked"} or version == b"1.0":
        raise UnreadableHead("the upstream uses a transfer coding that was not asked for")
    return True


def _length(sizes: list[bytes]) -> int:
    """Of a list of equal numbers RFC 9112, 6.3 lets one be taken. No server needs that, and nginx, llhttp and
    mitmproxy refuse it.
    """
    if len(sizes) > 1 or not _LENGTH.fullmatch(sizes[0]):
        raise UnreadableHead("the upstream's answer has a Content-Length that is no one number")
    return int(sizes[0])


def _coded_once(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Fields with one Transfer-Encoding, which says that the body comes in chunks."""
    others = [field for field in fields if field[0].lower() != b"transfer-encoding"]
    return [*others, (b"Transfer-Encoding", b"chunked")]


def _keeps(values: list[bytes], version: bytes) -> bool:
    """Whether the upstream says that it takes another request; `values` are those of `Connection`."""
    options = {token.strip(b" \t").lower() for value in values for token in value.split(b",")}
    return b"close" not in options and (version == b"1.1" or b"keep-alive" in options)
