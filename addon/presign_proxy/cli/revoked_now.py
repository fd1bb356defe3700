"""The mark `now` of what is revoked: gateways end what is under way, too.

The marks stand in a section of their own, so that each revocation has the same form with and without one: a
gateway that does not know the marks still refuses what is revoked.
"""

from __future__ import annotations

from typing import Any

from ..config.registry_file.build import revocations_of
from ..config.registry_file.edit import Draft


def mark(draft: Draft, section: str, name: str, at: str) -> None:
    """Have gateways end what is under way. Raises ConfigError.

    Args:
        section: `urls`, `ids`, `keys`, `connections` or `added_before`.
        at: the present; of `added_before`, the instant before which keys are revoked.
    """
    revocations_of(draft.content("revoked"), draft.path)  # reports errors in it
    marks = draft.revoked("now")
    for gone in [url for url in marks.get("urls", {}) if url not in draft.revoked("urls")]:
        unmark(draft, "urls", gone)  # it has expired, and its revocation was forgotten
    marks.setdefault(section, {})[name] = at


def unmark(draft: Draft, section: str, name: str) -> None:
    """Take the mark away, if there is one."""
    marks = draft.revoked("now")
    found: Any = marks.get(section)
    if isinstance(found, dict):
        found.pop(name, None)
        if not found:
            del marks[section]


def is_marked(draft: Draft, section: str, name: str) -> bool:
    """Return whether gateways end what is under way."""
    return name in (draft.revoked("now").get(section) or {})
