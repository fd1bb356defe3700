"""Connections in the registry's file: finding, changing and checking them."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..config.registry_file.edit import Draft, changing
from ..config.strict_yaml import Document
from .colours import styled
from .progress import working
from .workspace import Entry, Failure, Workspace


def new_secret() -> str:
    """Return a new signing secret of 256 bits, in characters that are safe in a shell and a URL."""
    return f"sk_{secrets.token_urlsafe(32)}"


@contextmanager
def changing_registry(workspace: Workspace) -> Iterator[Draft]:
    """Lock and open the registry for changes; write it when the block ends without an exception."""
    openers = workspace.openers
    with changing(workspace.registry_path, openers) as draft:
        yield draft
        with working("writing the registry"):
            draft.write()


def managed(workspace: Workspace, draft: Draft, name: str) -> dict[str, Any]:
    """Return a connection as written in the registry. Raises Failure if it is not there."""
    found = draft.connections.get(name)
    if found is None:
        entry = workspace.entry(name)
        raise Failure(f"{entry.id} is in {workspace.path.name}, not in the registry: change it there")
    return dict(found)


def check(workspace: Workspace, name: str, data: dict[str, Any], draft: Draft) -> Entry:
    """Return the entry if it would load. Raises ConfigError."""
    entry = Entry(name, data, Document(str(draft.path), {}), managed=True)
    workspace.connection(entry)
    return entry


def names_of_keys(after: int = 0) -> Iterator[str]:
    """Return an endless sequence of names for signing keys."""
    return (f"k{number}" for number in itertools.count(after + 1))


def shown_once(secret: str | None) -> list[str]:
    """Return the lines that show a new signing secret; none if it was imported."""
    if secret is None:
        return []
    return [
        "",
        "Its signing secret, shown only once; anyone who has it can sign:",
        "",
        f"  {styled(secret, 'secret')}",
        "",
    ]


def draft_of(workspace: Workspace) -> Draft:
    """Return the present registry. Raises Failure if there is none."""
    _ = workspace.openers  # reports what is missing if there is no registry
    with working("reading the registry"):
        draft = workspace.draft
    if draft is None:
        raise Failure("there is no registry")
    return draft
