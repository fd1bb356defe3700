"""Check that a hand-written file is whole: half of a YAML file is often valid YAML that says less.

An encrypted file or a JSON file is whole if it can be read at all. YAML is known to be whole if it ends with
YAML's own end mark, a line `...`, or if it is one mapping in braces. Other YAML is used after it has not
changed for a while; the wait is longer if something seems to be missing.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any, Final, Literal, NamedTuple

Ending = Literal["marked", "line", "open"]
"""marked: with an end mark or a closing brace. line: after a whole line. open: in the middle of a line."""

STILL: Final = 1.0
"""Seconds for which YAML without an end mark must not have changed."""
LONG: Final = 10.0
"""The same if the file lacks something that is in force, or ends in the middle of a line."""
NEVER: Final = math.inf

_END: Final = re.compile(rb"\.\.\.([ \t]+#.*)?")
"""The end mark. At the beginning of a line it ends a document even inside a block of text."""

Outline = dict[str, Any] | list[Any] | None
"""The keys and lengths of data, without the values."""


class Form(NamedTuple):
    """The facts about a file in force that are remembered."""

    ending: Ending
    outline: Outline
    digest: str


def ending_of(raw: bytes) -> Ending:
    """Return how a YAML or JSON file ends."""
    text = raw.rstrip()
    if _END.fullmatch(text[text.rfind(b"\n") + 1 :]):
        return "marked"
    lines = (line.strip() for line in raw.removeprefix(b"\xef\xbb\xbf").splitlines())
    first = next((line for line in lines if line and not line.startswith(b"#")), b"")
    if first.startswith(b"{") and text.endswith(b"}"):
        return "marked"  # if it parses, the last brace closes the first one
    return "line" if raw.endswith((b"\n", b"\r")) else "open"


def form_of(raw: bytes, data: Any) -> Form:
    """Return the form of a file. Args: data: the data parsed from it."""
    return Form(ending_of(raw), _outline(data), hashlib.sha256(raw).hexdigest())


def patience(now: Form, before: Form | None) -> float:
    """Return for how many seconds a file must not have changed before it is used; `NEVER` to refuse it.

    Args:
        before: the form of the same file in force; None if it is read for the first time.
    """
    if now.ending == "marked" or before is None or now.digest == before.digest:
        return 0.0
    if before.ending == "marked":
        return NEVER
    if now.ending == "open" or lacks(now.outline, before.outline):
        return LONG
    return STILL


def lacks(now: Outline, before: Outline) -> bool:
    """Return whether a key is missing that was there before, or a list has become shorter."""
    if isinstance(before, dict):
        return not isinstance(now, dict) or any(
            key not in now or lacks(now[key], found) for key, found in before.items()
        )
    if isinstance(before, list):
        return (
            not isinstance(now, list)
            or len(now) < len(before)
            or any(lacks(*pair) for pair in zip(now, before, strict=False))
        )
    return False


def _outline(data: Any) -> Outline:
    if isinstance(data, dict):
        return {key: _outline(found) for key, found in data.items()}
    return [_outline(one) for one in data] if isinstance(data, list) else None
