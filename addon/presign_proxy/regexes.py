"""Regular expressions that are compiled on first use.

Compiling a pattern takes as long as many searches, and one run of the command uses few of the patterns in
its modules. After the first use there is no overhead: the object holds the methods of the compiled pattern.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

_METHODS: Final = ("findall", "finditer", "fullmatch", "match", "search", "split", "sub", "subn")


class LateRegex:
    """A pattern with the methods of `re.Pattern`. `pattern` and `flags` are the arguments of `re.compile`."""

    __slots__ = ("flags", "pattern", *_METHODS)

    def __init__(self, pattern: str | bytes, flags: int) -> None:
        self.pattern = pattern
        self.flags = flags

    def __getattr__(self, name: str) -> Any:
        """Compile the pattern and return one of its methods. Called only before the first use."""
        if name not in _METHODS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        compiled = re.compile(self.pattern, self.flags)
        for method in _METHODS:  # if two threads come here at once, both set the same methods
            setattr(self, method, getattr(compiled, method))
        return getattr(compiled, name)


def late[Text: (str, bytes)](pattern: Text, flags: int = 0) -> re.Pattern[Text]:
    """Compile a pattern on first use, as `re.compile`. An error in the pattern is raised then, too."""
    return cast("re.Pattern[Text]", LateRegex(pattern, flags))
