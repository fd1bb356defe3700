"""A fast import of click, without `inspect`, which click uses at a start only to unindent help texts.

`inspect` and its imports (`ast`, `dis`, `tokenize`) take a tenth of the time of `presign sign`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any, Final

_NAME: Final = "inspect"


class _Late(ModuleType):
    """A stand-in for `inspect`, which imports the real module once a text has several lines."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(_NAME), name)

    @staticmethod
    def cleandoc(text: str) -> str:
        if "\n" in text or "\t" in text:
            return str(import_module(_NAME).cleandoc(text))
        return text.lstrip(" ")


def import_click() -> None:
    """Import click. Call it before any module imports click, while there is only one thread."""
    if "click" in sys.modules or _NAME in sys.modules:
        return
    late = _Late(_NAME)
    sys.modules[_NAME] = late
    try:
        import click  # noqa: F401 - other modules import it
    finally:
        if sys.modules.get(_NAME) is late:
            del sys.modules[_NAME]  # later imports get the real module
