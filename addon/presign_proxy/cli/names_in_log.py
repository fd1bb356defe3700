"""The names of presigns that the audit log has: a hint for a mistyped one."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Final

from ..observe.audit_reader import Lines, opened
from ..similar_names import alike
from .hints import quoted
from .workspace import Workspace

_READ: Final = 16 << 20
"""Most bytes that are read, from the end of the log. A revocation must not wait for a large file."""
_SHOWN: Final = 3


def remarks_on(workspace: Workspace, connection: str, name: str) -> tuple[str, ...]:
    """Return a remark if the log has no such name, but a similar one; nothing if the log cannot be read.

    `presign run --id NAME` signs under NAME and a random part, so NAME alone revokes nothing of it.
    """
    settings = workspace.config.audit
    if settings is None or settings.file == "-":
        return ()
    try:
        names = _names(workspace.base / settings.file, connection)
    except OSError:
        return ()
    if name in names:
        return ()
    close = [one for one in names if one.startswith(f"{name}-")] or alike(name, names)
    if not close:
        return ()
    which = [quoted("revoke", "--id", f"{connection}/{one}") for one in close[-_SHOWN:]]
    more = ", …" if len(close) > _SHOWN else ""
    return (f"The audit log has no request of that name, but of another one: {', '.join(which)}{more}",)


def _names(path: Path, connection: str) -> list[str]:
    """Return the names in the last part of the log, each once, the latest at the end. Raises OSError."""
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
    return list(found)
