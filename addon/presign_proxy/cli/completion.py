"""Names that a shell completes: connections, presets, settings, programs. Errors are ignored."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

PROGRAM: Final = "presign.program"
"""The key, in the context of `run`, of the words behind `--`, if that was typed."""


def complete_connections(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from .configured import names_of
    from .place import Place

    with suppress(Exception):
        names = names_of(Place.at(context.params.get("config")))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return []


def complete_run(context: click.Context, option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Propose connections; behind `--` a program of the PATH, and then files, as the shell itself would."""
    from click.shell_completion import CompletionItem

    program = context.meta.get(PROGRAM)
    if program is None:
        return complete_connections(context, option, incomplete)
    found = [] if program or not incomplete or "/" in incomplete else _programs(incomplete)
    return [CompletionItem(name) for name in found] or [CompletionItem(incomplete, type="file")]


def _programs(beginning: str) -> list[str]:
    """Return the names of the programs on the PATH that begin so, sorted."""
    import os

    names: set[str] = set()
    for directory in os.get_exec_path():
        with suppress(OSError), os.scandir(directory) as entries:
            names.update(
                one.name for one in entries if one.name.startswith(beginning) and os.access(one.path, os.X_OK)
            )
    return sorted(names)


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
