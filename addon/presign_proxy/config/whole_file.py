"""Whether a file that people write is whole: half of a YAML file is often a YAML file, and says less.

What is encrypted or JSON is whole where it can be read at all. YAML is known to be whole where it ends with
YAML's own end of a document, a line `...`, or is one mapping in braces. Any other YAML is believed after it
has been left alone for a while, the longer the more it looks as if something were missing.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any, Final, Literal, NamedTuple

Ending = Literal["marked", "line", "open"]
"""With an end mark (or a closing brace); after a whole line; in the middle of one."""

STILL: Final = 1.0
"""Seconds for which YAML without an end mark must not have changed."""
LONG: Final = 10.0
"""The same where it lacks something that is in force, or ends in the middle of a line."""
NEVER: Final = math.inf

_END: Final = re.compile(rb"\.\.\.([ \t]+#.*)?")
"""It stands at the beginning of a line, where it ends a document even inside of a block of text."""

Outline = dict[str, Any] | list[Any] | None
"""The keys and lengths of data, without any value."""


class Form(NamedTuple):
    """What is remembered of a file that is in force."""

    ending: Ending
    outline: Outline
    digest: str


def ending_of(raw: bytes) -> Ending:
    """How a YAML or JSON file ends."""
    text = raw.rstrip()
    if _END.fullmatch(text[text.rfind(b"\n") + 1 :]):
        return "marked"
    lines = (line.strip() for line in raw.removeprefix(b"\xef\xbb\xbf").splitlines())
    first = next((line for line in lines if line and not line.startswith(b"#")), b"")
    if first.startswith(b"{") and text.endswith(b"}"):
        return "marked"  # what parses has closed the brace that came first
    return "line" if raw.endswith((b"\n", b"\r")) else "open"


def form_of(raw: bytes, data: Any) -> Form:
    """Args: data: what was parsed of it."""
    return Form(ending_of(raw), _outline(data), hashlib.sha256(raw).hexdigest())


def patience(now: Form, before: Form | None) -> float:
    """Seconds for which a file has to have been left alone before it is used; `NEVER` for none that will do.

    Args:
        before: the same file as it is in force; None where it is read for the first time.
    """
    if now.ending == "marked" or before is None or now.digest == before.digest:
        return 0.0
    if before.ending == "marked":
        return NEVER
    if now.ending == "open" or lacks(now.outline, before.outline):
        return LONG
    return STILL


def lacks(now: Outline, before: Outline) -> bool:
    """Whether something was there before that is not any more: a key, or as many items."""
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
