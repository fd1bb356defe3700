"""Regular expressions that are compiled when they are first used.

To compile one takes as long as many searches, and a start of the command uses few of those that its modules
hold. From its first use on, one is as quick as any: it has the compiled one's own methods.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

_METHODS: Final = ("findall", "finditer", "fullmatch", "match", "search", "split", "sub", "subn")


class LateRegex:
    """What `re.compile` would have made, with `pattern`, `flags` as they were given, and its methods."""

    __slots__ = ("flags", "pattern", *_METHODS)

    def __init__(self, pattern: str | bytes, flags: int) -> None:
        self.pattern = pattern
        self.flags = flags

    def __getattr__(self, name: str) -> Any:
        """Asked for what is not set yet: a method before the first use."""
        if name not in _METHODS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        compiled = re.compile(self.pattern, self.flags)
        for method in _METHODS:  # of two threads that come here at once, both set the same
            setattr(self, method, getattr(compiled, method))
        return getattr(compiled, name)


def late[Text: (str, bytes)](pattern: Text, flags: int = 0) -> re.Pattern[Text]:
    """The same as `re.compile`, later. An error in the pattern is raised at the first use, too."""
    return cast("re.Pattern[Text]", LateRegex(pattern, flags))
