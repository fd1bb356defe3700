"""PyYAML, imported without the one regular expression that takes longer than the rest of it.

Its reader in Python, which nothing here uses, compiles an expression over all of Unicode when it is imported:
that is a fifth of all that `presign sign` does.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

_LAST: Final = "\U0010ffff"
"""A class of characters up to this one takes long."""


class _Later:
    """A regular expression that is compiled when it is first searched for; `re` keeps it from then on."""

    def __init__(self, pattern: str, flags: int) -> None:
        self._pattern = pattern
        self._flags = flags

    def search(self, text: str) -> re.Match[str] | None:
        return re.compile(self._pattern, self._flags).search(text)


def import_yaml() -> None:
    """PyYAML as ever. To be called before anything imports it, and where there is one thread."""
    if "yaml" in sys.modules:
        return
    compiled = re.compile

    def compile_later(pattern: Any, flags: int = 0) -> Any:
        if isinstance(pattern, str) and _LAST in pattern:
            return _Later(pattern, flags)
        return compiled(pattern, flags)

    vars(re)["compile"] = compile_later
    try:
        import yaml  # noqa: F401 - for the others
    finally:
        vars(re)["compile"] = compiled
