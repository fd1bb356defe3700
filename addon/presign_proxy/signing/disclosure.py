"""Detection of presigns in texts. A header that discloses a usable presign is never sent on.

The senders of such headers are honest clients whose programs report their current or previous URL
(`HX-Current-URL`, `Ping-From`, a cookie). So we look for the forms in which programs write a presign: plain,
percent-encoded any number of times, in JSON, or in base64. In all of them but base64, the name, the hex
digits and the letters of a token are unchanged. They are found without decoding.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import Final

from ..http.field_names import fold_decoded
from ..http.percent import decodings
from . import grammar
from .tokens import shows_token

LEAST: Final = 72
"""Bytes of the shortest usable presign: `sig=`, 64 digits, and more."""
MAX_ESCAPES: Final = 256
"""Most escapes in a path or a header field that is searched for a presign."""
MAX_RUNS: Final = 32
"""Most long runs of base64 that are decoded in one text. A text with more counts as one with a presign."""
_EQUALS: Final = r"(?:=|(?:%(?:25){0,3}|\\{1,4}u00)3d)"
# In lists of fields the value has a name of its own, as in HAR. Some JSON encoders, as Gson, write `=` as
# `\u003d`.
_FIELD: Final = re.compile(
    rb"x-presign-signature(?:[^a-z]{0,12}value)?[^a-z]{0,12}?(?:(?:u00)?3d)?" + grammar.SIGNATURE.encode()
)
_SIGNED: Final = re.compile(rf"sig{_EQUALS}{grammar.SIGNATURE}".encode())
_UNTIL: Final = re.compile(rf"exp{_EQUALS}[0-9]".encode())
_LONGEST_PLAIN: Final = 96
"""Longest run of base64 letters that is not decoded: the shortest presign takes more."""
# The pattern begins with a blank, so that a text of many short words costs one step for each word.
_long = re.compile(rb" ([^ ]{%d,})" % (_LONGEST_PLAIN + 1)).findall
# Applied to every twelfth byte of a text. A run of that length has eight of them in a row. This is quick to
# check, and seldom true by chance.
_has_run = re.compile(rb"[^ ]{8}").search
_LETTERS: Final = bytes(
    octet if (chr(octet).isascii() and chr(octet).isalnum()) or octet in b"+/-_" else 0x20
    for octet in range(256)
)
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


def discloses(text: bytes) -> bool:
    """Return whether a text contains a usable presign. Takes linear time: each byte is read a few times."""
    if len(text) < LEAST:
        return False
    if _shows(text):
        return True
    runs = _runs(text)
    return len(runs) > MAX_RUNS or any(map(_shows, _decoded(runs)))


def shows_signature(folded: bytes) -> bool:
    """Return whether a folded text contains the name of the signature field, followed by a signature."""
    return folded.find(b"x-presign-signature") >= 0 and _FIELD.search(folded) is not None


def _shows(text: bytes) -> bool:
    folded = fold_decoded(text)
    if shows_signature(folded):
        return True
    if folded.find(b"sig") >= 0 and _SIGNED.search(folded) and _UNTIL.search(folded):
        return True
    return shows_token(text)


def _runs(text: bytes) -> list[bytes]:
    """Return the parts of a text that may be base64, in either alphabet, and are long enough."""
    if len(text) <= _LONGEST_PLAIN:
        return []
    if 0 < text.count(b"%") <= MAX_ESCAPES:  # in base64 only `+`, `/` and `=` are ever escaped
        text = decodings(text)[-1]
    letters = text.translate(_LETTERS)
    return _long(b" " + letters) if _has_run(letters[::12]) else []


def _decoded(runs: list[bytes]) -> Iterator[bytes]:
    """Yield each run decoded at all four alignments, because other letters may precede the base64 in it."""
    for run in runs:
        standard = run.translate(_STANDARD)
        for start in range(4):
            # Padded with zero bits, so that the digits of an incomplete last quantum are decoded too.
            yield binascii.a2b_base64(standard[start:] + b"A" * (-(len(run) - start) % 4))
