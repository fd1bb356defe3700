"""What to type next: whole command lines that work where they are printed."""

from __future__ import annotations

import click

from .. import invocation


def command(*arguments: str) -> str:
    """A line for the shell: the command as it was called, for the configuration that it was called for."""
    context = click.get_current_context(silent=True)
    config = context.params.get("config") if context else None
    return invocation.presign(*arguments, *(("--config", str(config)) if config else ()))


def quoted(*arguments: str) -> str:
    """The same inside a sentence."""
    return f"`{command(*arguments)}`"
