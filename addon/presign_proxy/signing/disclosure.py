"""Whether a text would let its reader use a presign: no upstream and nobody else is sent such a header.

Who sends it is an honest client whose program tells where it is or comes from (`HX-Current-URL`, `Ping-From`,
a cookie). So what is looked for is a presign as programs write it down: as it is, percent-encoded any number
of times, in JSON, or in base64. Its name, its digits and the letters of a token are the same in all but the
last, and nothing has to be decoded to find them.
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
"""Bytes of the shortest one that can be used: `sig=`, 64 digits, and more."""
MAX_ESCAPES: Final = 256
"""Escapes in a path or a header field that is looked at for what it tells."""
MAX_RUNS: Final = 32
"""Long runs of base64 in one text that are decoded; one that holds more is taken for one that tells."""
_EQUALS: Final = r"(?:=|(?:%(?:25){0,3}|\\{1,4}u00)3d)"
# In lists of fields the value has a name of its own, as in HAR; some write `=` as `\u003d` in JSON, as Gson.
_FIELD: Final = re.compile(
    rb"x-presign-signature(?:[^a-z]{0,12}value)?[^a-z]{0,12}?(?:(?:u00)?3d)?" + grammar.SIGNATURE.encode()
)
_SIGNED: Final = re.compile(rf"sig{_EQUALS}{grammar.SIGNATURE}".encode())
_UNTIL: Final = re.compile(rf"exp{_EQUALS}[0-9]".encode())
_LONGEST_PLAIN: Final = 96
"""Letters of base64 in a row that hold no presign; the shortest takes more."""
# Tried only behind a blank: a text of many short words costs a step for each.
_long = re.compile(rb" ([^ ]{%d,})" % (_LONGEST_PLAIN + 1)).findall
# Of each twelfth byte of a text, eight in a row are of such a run: quick to see, and seldom so by chance.
_has_run = re.compile(rb"[^ ]{8}").search
_LETTERS: Final = bytes(
    octet if (chr(octet).isascii() and chr(octet).isalnum()) or octet in b"+/-_" else 0x20
    for octet in range(256)
)
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


def discloses(text: bytes) -> bool:
    """Whether a usable presign stands in a text. In linear time: each byte is looked at a few times."""
    if len(text) < LEAST:
        return False
    if _shows(text):
        return True
    runs = _runs(text)
    return len(runs) > MAX_RUNS or any(map(_shows, _decoded(runs)))


def shows_signature(folded: bytes) -> bool:
    """Whether a signature of scheme presign stands in a text that is folded, behind its name."""
    return folded.find(b"x-presign-signature") >= 0 and _FIELD.search(folded) is not None


def _shows(text: bytes) -> bool:
    folded = fold_decoded(text)
    if shows_signature(folded):
        return True
    if folded.find(b"sig") >= 0 and _SIGNED.search(folded) and _UNTIL.search(folded):
        return True
    return shows_token(text)


def _runs(text: bytes) -> list[bytes]:
    """What in a text may be base64, in either alphabet, and long enough."""
    if len(text) <= _LONGEST_PLAIN:
        return []
    if 0 < text.count(b"%") <= MAX_ESCAPES:  # of base64 only `+`, `/` and `=` are ever escaped
        text = decodings(text)[-1]
    letters = text.translate(_LETTERS)
    return _long(b" " + letters) if _has_run(letters[::12]) else []


def _decoded(runs: list[bytes]) -> Iterator[bytes]:
    """What stands in base64, whatever of the same letters stands before it."""
    for run in runs:
        standard = run.translate(_STANDARD)
        for start in range(4):
            # Padded with zeros: also of a quantum that is cut, the digits that are there are read.
            yield binascii.a2b_base64(standard[start:] + b"A" * (-(len(run) - start) % 4))
