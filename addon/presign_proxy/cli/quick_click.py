"""click, imported without `inspect`, of which it asks one thing at a start: help texts without indentation.

`inspect` and what it imports (`ast`, `dis`, `tokenize`) are a tenth of all that `presign sign` does.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any, Final

_NAME: Final = "inspect"


class _Late(ModuleType):
    """What click takes for `inspect`, which is imported once a text has several lines."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(_NAME), name)

    @staticmethod
    def cleandoc(text: str) -> str:
        if "\n" in text or "\t" in text:
            return str(import_module(_NAME).cleandoc(text))
        return text.lstrip(" ")


def import_click() -> None:
    """click as ever. To be called before anything imports it, and where there is one thread."""
    if "click" in sys.modules or _NAME in sys.modules:
        return
    late = _Late(_NAME)
    sys.modules[_NAME] = late
    try:
        import click  # noqa: F401 - for the others
    finally:
        if sys.modules.get(_NAME) is late:
            del sys.modules[_NAME]  # whoever else imports it gets the module itself
