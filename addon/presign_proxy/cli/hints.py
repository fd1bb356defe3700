"""Suggested next commands: whole command lines that work where they are printed."""

from __future__ import annotations

from collections.abc import Iterable

import click

from ..config import pasteable_command


def command(*arguments: str) -> str:
    """Return a shell line that calls the command as it was called, with the same configuration."""
    context = click.get_current_context(silent=True)
    config = context.params.get("config") if context else None
    return pasteable_command.presign(*arguments, *(("--config", str(config)) if config else ()))


def quoted(*arguments: str) -> str:
    """Return the command line in backquotes, for use in a sentence."""
    return f"`{command(*arguments)}`"


def no_preset(name: str, known: Iterable[str]) -> str:
    """Return a message that no such preset exists, with the nearest names or the verb that lists them."""
    from ..similar_names import did_you_mean

    hint = did_you_mean(name, known) or f"{quoted('presets')} shows them"
    return f"there is no preset {name[:64]!r}: {hint}"
