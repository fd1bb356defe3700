"""How careless upstreams read a path: decoders in every order that has let somebody out of a directory."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from itertools import product
from urllib.parse import unquote_to_bytes

Step = Callable[[bytes], bytes]


def _same(path: bytes) -> bytes:
    return path


def _twice(path: bytes) -> bytes:
    return unquote_to_bytes(unquote_to_bytes(path))


def overlong(raw: bytes) -> bytes:
    """UTF-8 as decoders read it that mask bits and check nothing: C0 AE, E0 80 AE and C0 2E are dots."""
    found, at = bytearray(), 0
    while at < len(raw):
        lead = raw[at]
        # As many octets as the lead has ones, also five and six, as UTF-8 once had it.
        more = next(count for count in range(8) if not lead << count & 0x80) - 1 if lead < 0xFE else 0
        tail = raw[at + 1 : at + 1 + more]
        if more < 1 or len(tail) < more:
            found.append(lead)
            at += 1
            continue
        point = lead & (0x3F >> more)
        for octet in tail:
            point = point << 6 | octet & 0x3F
        found += chr(point).encode("utf-8", "surrogatepass") if point < 0x110000 else b"?"
        at += 1 + more
    return bytes(found)


def percent_u(path: bytes) -> bytes:
    """IIS: `%u002e`, and full-width forms written so, in their best fit."""

    def char(match: re.Match[bytes]) -> bytes:
        text = chr(int(match[1], 16))
        return unicodedata.normalize("NFKC", text).encode("utf-8", "surrogatepass")

    return re.sub(rb"%[uU]([0-9A-Fa-f]{4})", char, path)


def folded(path: bytes) -> bytes:
    """Full-width and other compatibility forms as what they look like, and Windows' best fit."""
    text = path.decode("utf-8", "surrogateescape")
    fits = str.maketrans("\u2215\u2044\u29f8\u2216\u29f5\u29f9\u2024", "///\\\\\\.")
    folds = unicodedata.normalize("NFKC", text.translate(fits))
    return folds.encode("utf-8", "surrogateescape")


def backslash(path: bytes) -> bytes:
    return path.replace(b"\\", b"/")


def cut(path: bytes) -> bytes:
    """C: a NUL ends the string; and what once more is taken for query or fragment ends the path."""
    return re.split(rb"[\x00?#]", path, maxsplit=1)[0]


def without_parameters(path: bytes) -> bytes:
    return re.sub(rb";[^/\\]*", b"", path)


def windows(path: bytes) -> bytes:
    """Windows drops dots and blanks at the end of a name, unless nothing but dots is left of it."""
    return b"/".join(re.sub(rb"^(\.{1,2})[ .]*$", rb"\1", part) for part in path.split(b"/"))


DECODED: tuple[Step, ...] = (_same, unquote_to_bytes, _twice)
READ: tuple[Step, ...] = (_same, overlong, folded)
OTHERS: tuple[tuple[Step, ...], ...] = tuple(
    product(
        (_same, without_parameters), (_same, percent_u), (_same, cut), (_same, backslash), (_same, windows)
    )
)


def readings(path: bytes) -> Iterator[bytes]:
    """Every path that some upstream may find in `path`, before it removes dot segments."""
    seen: set[bytes] = set()
    for before, decode, read in product((_same, without_parameters), DECODED, READ):
        decoded = read(decode(percent_u(before(path)) if decode is _twice else before(path)))
        for steps in OTHERS:
            text = decoded
            for step in steps:
                text = step(text)
            if text not in seen:
                seen.add(text)
                yield text


def resolved(path: bytes) -> list[bytes] | None:
    """The segments that are left once dot segments are removed; None where it climbs above the root."""
    found: list[bytes] = []
    for segment in path.split(b"/")[1:]:
        if segment == b"..":
            if not found:
                return None
            found.pop()
        elif segment not in (b"", b"."):
            found.append(segment)
    return found


def stays_below(path: bytes, *prefix: bytes) -> bool:
    """Whether every upstream finds itself below the prefix."""
    for reading in readings(path):
        segments = resolved(reading)
        if segments is None or tuple(segments[: len(prefix)]) != prefix:
            return False
    return True
