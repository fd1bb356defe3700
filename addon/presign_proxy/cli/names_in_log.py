"""The names of presigns that the audit log has: a remark on one that it does not have."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..observe.audit_reader import Lines, opened
from ..similar_names import alike
from .hints import command
from .workspace import Workspace

_READ: Final = 16 << 20
"""Most bytes that are read, from the end of the log. A revocation must not wait for a large file."""
_SHOWN: Final = 3


def remarks_on(workspace: Workspace, connection: str, name: str) -> tuple[str, ...]:
    """Return remarks if nothing shows that anybody signed under a name, and the names that may be meant.

    Only the log can show it: who holds the secret signs offline, under any name. `presign run --id NAME`
    signs under NAME and a random part, so NAME alone revokes nothing of it.
    """
    names, where = _known(workspace, connection)
    if name in names:
        return ()
    close = [one for one in names if one.startswith(f"{name}-")] or alike(name, names)
    return (
        f"Nothing shows that anybody has signed as {connection}/{name}: {where}.",
        *_meant(connection, close),
    )


def _known(workspace: Workspace, connection: str) -> tuple[list[str], str]:
    """Return the names of a connection that the log shows, and a clause for a name that is not among them."""
    settings = workspace.config.audit
    if settings is None:
        return [], "the configuration names no audit log"
    if settings.file == "-":
        return [], "the audit log goes to the gateway's standard error, which cannot be read here"
    try:
        names, is_whole = _names(workspace.base / settings.file, connection)
    except FileNotFoundError:
        return [], "no gateway has written an audit log yet"
    except OSError:
        return [], "the audit log cannot be read"
    log = "the audit log" if is_whole else f"the end of the audit log ({_READ >> 20} MiB)"
    return names, f"{log} has no request of that name"


def _meant(connection: str, close: list[str]) -> Iterator[str]:
    """Yield the commands for similar names, one a line."""
    if close:
        yield "It has requests of similar names. To revoke one of those, too:"
        yield from (f"  {command('revoke', '--id', f'{connection}/{one}')}" for one in close[-_SHOWN:])
    if len(close) > _SHOWN:
        yield f"  … and {len(close) - _SHOWN} more"


def _names(path: Path, connection: str) -> tuple[list[str], bool]:
    """Return the names in the last part of the log, the latest at the end, and whether that is all of it.

    Raises OSError.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _READ))
        tail = io.BytesIO(file.read(_READ))
    if size > _READ:
        tail.readline()  # the rest of a line that began before
    found: dict[str, None] = {}
    for record in Lines(tail, containing=b'"id":"').records():
        name = record.get("id")
        if record.get("connection") == connection and isinstance(name, str):
            found.pop(name, None)
            found[name] = None
    return list(found), size <= _READ
