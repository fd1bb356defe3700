"""The sentence for a holder with a good signature: what was signed, and when to come again.

It says what the holder could read from the presign himself. Before a good signature, only the constants of
`errors` are said.
"""

from __future__ import annotations

from typing import Final

from ..errors import MESSAGE, Denied
from ..signing.presign_scheme import Presign
from ..signing.source_scheme import Source
from ..units import in_words, instant
from .decision import Facts

_MOST: Final = 300
"""Most characters of a signed list: it may be 8 KiB long."""
_REPEATING: Final = ("method_not_allowed", "path_not_allowed", "host_mismatch", "lifetime_too_long")
"""Codes that a holder understands from what was signed."""


def sentence_for(denied: Denied, claim: Presign | Source | None, facts: Facts, now: int) -> str | None:
    """Return the sentence for the client; None for that of the code.

    Without a good signature, and in scheme source, it is the one that the refusal has.
    """
    if not facts.verified or not isinstance(claim, Presign):
        return denied.sentence
    return _sentence(denied, claim, facts, now)


def _sentence(denied: Denied, presign: Presign, facts: Facts, now: int) -> str | None:
    code, expires = denied.code, facts.expires
    if denied.sentence is not None and code not in ("method_not_allowed", "path_not_allowed"):
        return denied.sentence
    if code == "expired" and expires:
        return f"This presigned request expired {in_words(now - expires)} ago, at {instant(expires)}."
    begins = presign.written.not_before if presign.written is not None else ""
    if code == "not_yet_valid" and begins:
        wait = in_words(int(begins) - now)
        return f"This presigned request is valid from {instant(int(begins))} on: in {wait}."
    if code == "client_not_allowed" and presign.written is not None:
        return f"{MESSAGE[code]} It is for clients in {_cut(presign.written.client)}."
    if code in _REPEATING:
        return f"{denied.sentence or MESSAGE[code]} {_signed(presign)}"
    return denied.sentence


def _signed(presign: Presign) -> str:
    expires = int(presign.expires)
    until = f"valid until {instant(expires)}" if expires else "valid without expiry"
    return f"Signed: methods {_cut(presign.methods)}; paths {_cut(presign.paths)}; {until}."


def _cut(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[:_MOST]}…"
