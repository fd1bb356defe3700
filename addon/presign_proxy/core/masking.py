"""Masking: a credential that an upstream echoes does not reach the client, in any known encoding."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import quote, quote_plus

from .credentials import Injector

MIN_LENGTH: Final = 8
"""Shorter values are not masked, because they occur in ordinary text by chance."""
_SURE: Final = 32
"""Bytes of the beginning of a form that no text has by chance, and a hostile text only every 32 bytes."""
_PRINTABLE: Final = bytes(octet for octet in range(0x20, 0x7F) if octet != 0x25).decode()
"""What gRPC leaves as it is in a `grpc-message`."""
MAX_SHOWN: Final = 3
"""Most bytes at the end of a piece that are sent after a short wait, although a form may begin with them.

A user may be reading the stream, and many words end in such a letter. The bytes reveal next to nothing: most
keys begin with three known characters.
"""


def forms(secret: bytes) -> frozenset[bytes]:
    """Return the recognised encodings of a secret: raw, URL (once and twice), JSON, HTML, hex and base64.

    base64 in all three alignments, so that it is also found inside an encoded `Bearer …` or `user:…`.
    """
    text = secret.decode("utf-8", "replace")
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for quoted in _url_forms(text):
        for once in (quoted, _lower_escapes(quoted)):
            # Twice where a URL stands in the query of a URL: `?next=%2Flogin%3Fnext%3D…`.
            found |= {once.encode(), once.replace("%", "%25").encode()}
    found |= {form.encode() for form in (*_json_forms(text), *_html_forms(text))}
    for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
        found |= set(_aligned(secret, alphabet))
    return frozenset(form for form in found if len(form) >= MIN_LENGTH)


def _url_forms(text: str) -> Iterator[str]:
    """Yield the URL encodings of a text.

    They are Python's and Java's form encoding, RFC 3986, JavaScript's encodeURIComponent and encodeURI, and
    that of `grpc-message`.
    """
    for safe in ("", "/", "!'()*", ";,/?:@&=+$-_.!~*'()#"):
        yield quote(text, safe=safe)
    yield quote_plus(text)
    yield quote(text, safe="").replace("~", "%7E")
    yield quote(text, safe=_PRINTABLE)


def _json_forms(text: str) -> Iterator[str]:
    """Yield the JSON encodings. PHP escapes the slash too; Go and Gson escape characters special in HTML."""
    for plain in (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        yield plain
        yield plain.replace("/", "\\/")
        for chars in ("<>&", "<>&'=", "<>&'+\"`", "<>&'/"):
            for style in ("\\u%04x", "\\u%04X"):
                yield _escaped(plain, {char: style % ord(char) for char in chars})


def _html_forms(text: str) -> Iterator[str]:
    yield html.escape(text, quote=False)
    for single, double in (
        ("&#x27;", "&quot;"),
        ("&#39;", "&quot;"),
        ("&#39;", "&#34;"),
        ("&#039;", "&quot;"),
    ):
        yield _escaped(text, {"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": single, '"': double})


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(char, char) for char in text)


def _lower_escapes(quoted: str) -> str:
    head, *rest = quoted.split("%")
    return "%".join([head, *(part[:2].lower() + part[2:] for part in rest)])


def _aligned(secret: bytes, encode: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """Yield base64 of the secret after 0, 1 and 2 other bytes, without digits that depend on neighbours."""
    for before in range(3):
        encoded = encode(bytes(before) + secret).rstrip(b"=")
        first = (0, 2, 3)[before]
        last = len(encoded) - (1 if (before + len(secret)) % 3 else 0)
        yield encoded[first:last]


class Mask:
    """A mask for some secrets. It replaces each form by as many asterisks, so that the length stays true."""

    __slots__ = ("_forms", "_long", "_longest", "_shortest", "_starts")

    def __init__(self, secrets: Iterable[bytes]) -> None:
        found = {form for secret in secrets if len(secret) >= MIN_LENGTH for form in forms(secret)}
        self._forms = tuple(sorted(found, key=lambda form: (-len(form), form)))
        # Forms longer than `_SURE`: each with its first `_SURE` bytes, and how far from an end it may begin.
        self._long = tuple((form, form[:_SURE], len(form) - 1) for form in self._forms if len(form) > _SURE)
        self._longest = max(map(len, found), default=0)
        self._shortest = min(map(len, found), default=0)
        firsts = b"".join(sorted({re.escape(form[:1]) for form in found}))
        self._starts = re.compile(b"[" + firsts + b"]" if found else b"(?!)")

    def __bool__(self) -> bool:
        return bool(self._forms)

    def mask(self, data: bytes) -> bytes:
        if len(data) < self._shortest:
            return data
        for form in self._forms:
            if form in data:
                data = data.replace(form, b"*" * len(form))
        return data

    def tail(self, data: bytes) -> int:
        """Return how many bytes at the end may be the beginning of a form that the next bytes complete."""
        # A form longer than `_SURE` is searched by its first `_SURE` bytes. A search by its first letter
        # would be slow, because a hostile body may consist of that letter.
        found, size = 0, len(data)
        for form, first, most in self._long:
            at = data.find(first, size - most if size > most else 0)
            while at >= 0:
                if form.startswith(data[at:]):
                    found = max(found, size - at)
                    break
                at = data.find(first, at + 1)
        if found:
            return found
        for match in self._starts.finditer(data, max(0, len(data) - min(self._longest, _SURE) + 1)):
            rest = data[match.start() :]
            if any(form.startswith(rest) for form in self._forms):
                return len(rest)
        return 0


@lru_cache(maxsize=1024)
def mask_for(injector: Injector, others: tuple[Injector, ...] = ()) -> Mask:
    """Return the mask of a connection's credential, in all forms in which it is sent. It is made once."""
    return Mask([*injector.rendered(), *[form for other in others for form in other.rendered()]])


class MaskedStream:
    """A mask for a body that arrives in chunks. It holds back only bytes that may be the start of a secret.

    If such bytes were sent after a wait, they are remembered. If they were the start of a secret, the rest of
    the secret is masked.
    """

    __slots__ = ("_held", "_mask", "_passed")

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""
        self._passed = b""

    def __call__(self, chunk: bytes) -> bytes:
        """Return the bytes that may be sent. An empty chunk ends the body."""
        if not chunk and not self._held:
            return b""
        before = len(self._passed)
        data = self._passed + self._held + chunk if before or self._held else chunk
        data = self._mask.mask(data)
        cut = len(data) - (self._mask.tail(data) if chunk else 0)
        start = max(cut, before)
        self._passed, self._held = data[cut:before], data[start:]
        return data[before:start]

    @property
    def is_short(self) -> bool:
        """True if so few bytes are held back that they may be sent if nothing more arrives."""
        return bool(self._held) and len(self._passed) + len(self._held) <= MAX_SHOWN

    def overdue(self) -> bytes:
        """Return the bytes that may be sent because nothing more has arrived for a while.

        Never reveals more than `MAX_SHOWN` bytes of a secret, in however many pieces the secret arrives.
        """
        if not self.is_short:
            return b""
        found, self._passed, self._held = self._held, self._passed + self._held, b""
        return found
