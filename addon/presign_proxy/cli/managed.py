"""A connection in the registry's file, as verbs find it, change it and check it."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..config.registry_file.edit import Draft, changing
from ..config.strict_yaml import Document
from .workspace import Entry, Failure, Workspace


def new_secret() -> str:
    """256 bits, in a form that survives a shell and a URL."""
    return f"sk_{secrets.token_urlsafe(32)}"


@contextmanager
def changing_registry(workspace: Workspace) -> Iterator[Draft]:
    """The registry to be changed; written, if the block says nothing against it, once it is well-formed."""
    openers = workspace.openers
    with changing(workspace.registry_path, openers) as draft:
        yield draft
        draft.write()


def managed(workspace: Workspace, draft: Draft, name: str) -> dict[str, Any]:
    """A connection of the registry, as it stands there. Raises Failure where it is none."""
    found = draft.connections.get(name)
    if found is None:
        entry = workspace.entry(name)
        raise Failure(f"{entry.id} is in {workspace.path.name}, not in the registry: change it there")
    return dict(found)


def check(workspace: Workspace, name: str, data: dict[str, Any], draft: Draft) -> Entry:
    """Raises ConfigError: what would not load is not written."""
    entry = Entry(name, data, Document(str(draft.path), {}), managed=True)
    workspace.connection(entry)
    return entry


def names_of_keys(after: int = 0) -> Iterator[str]:
    """Names for signing keys, one after the other."""
    return (f"k{number}" for number in itertools.count(after + 1))


def shown_once(secret: str | None) -> list[str]:
    """A new signing secret, for the one who asked for it; nothing where it was brought along."""
    if secret is None:
        return []
    return ["", "Its signing secret, shown this once; whoever has it can sign:", "", f"  {secret}", ""]


def draft_of(workspace: Workspace) -> Draft:
    """The registry as it is. Raises Failure where there is none."""
    _ = workspace.openers  # says what is missing where there is no registry
    draft = workspace.draft
    if draft is None:
        raise Failure("there is no registry")
    return draft
