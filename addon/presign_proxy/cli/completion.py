"""Names that a shell completes: connections, presets and settings. Errors are ignored."""

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


def complete_keys(context: click.Context, option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Propose the ids of a connection's signing keys, or CONNECTION/KEY if no connection is named before."""
    from click.shell_completion import CompletionItem

    from .configured import keys_of
    from .place import Place

    with suppress(Exception):
        keys = keys_of(Place.at(context.params.get("config")))
        # Behind an option that still lacks its value, click has not sorted out the arguments.
        named = [*(context.params.get(one) for one in ("connection", "name")), *context.args]
        name = next((one for one in named if isinstance(one, str)), None)
        if name is not None and option.name != "key":
            found = list(keys.get(name, ()))
        else:
            found = [f"{one}/{key}" for one, ids in keys.items() for key in ids]
        return [CompletionItem(one) for one in found if one.startswith(incomplete)]
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


def complete_settings(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(f"{key}=") for key in _settable(context) if key.startswith(incomplete)]


def complete_keys_of_settings(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(key) for key in _settable(context) if key.startswith(incomplete)]


def _settable(context: click.Context) -> list[str]:
    """Return the keys that may be set in the connection that is named before."""
    from .setting_schema import keys_of
    from .workspace import Workspace

    with suppress(Exception):
        workspace, name = Workspace.at(context.params.get("config")), context.params.get("name")
        entry = workspace.entries.get(name) if name else None
        return list(keys_of(entry.data.get("scheme", "presign") if entry else "presign"))
    return []
