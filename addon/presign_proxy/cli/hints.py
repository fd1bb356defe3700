"""What to type next: whole command lines that work where they are printed."""

from __future__ import annotations

from collections.abc import Iterable

import click

from ..config import invocation


def command(*arguments: str) -> str:
    """A line for the shell: the command as it was called, for the configuration that it was called for."""
    context = click.get_current_context(silent=True)
    config = context.params.get("config") if context else None
    return invocation.presign(*arguments, *(("--config", str(config)) if config else ()))


def quoted(*arguments: str) -> str:
    """The same inside a sentence."""
    return f"`{command(*arguments)}`"


def no_preset(name: str, known: Iterable[str]) -> str:
    """There is none of that name; the nearest ones, or where they are listed."""
    from ..similar_names import did_you_mean

    hint = did_you_mean(name, known) or f"{quoted('presets')} shows them"
    return f"there is no preset {name[:64]!r}: {hint}"
