"""What a shell may complete: names that lie before the operator. Silent about everything that is wrong."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem


def complete_connections(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from .configured import names_of
    from .place import Place

    with suppress(Exception):
        names = names_of(Place.at(context.params.get("config")))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return []


def complete_presets(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from .workspace import Workspace

    with suppress(Exception):
        known = Workspace.at(context.params.get("config")).presets.known
        return [
            CompletionItem(name, help=one["name"])
            for name, one in known.items()
            if name.startswith(incomplete)
        ]
    return []
