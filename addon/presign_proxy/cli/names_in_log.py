"""What the audit log shows of presigns: the names that were used, and for what a signature was used last."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any, Final

from ..observe.audit_reader import Lines, opened, record_of
from ..similar_names import alike
from .hints import command
from .workspace import Workspace

_READ: Final = 16 << 20
"""Most bytes that are read, from the end of the log. A revocation must not wait for a large file."""
_SIGNATURE: Final = re.compile(rb'"signature":"([0-9a-f]{32})"')
_SHOWN: Final = 3
_MEANING: Final = "If the name is mistyped, what you meant to revoke still works."


def remarks_on(
    workspace: Workspace, connection: str, name: str, again: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the doubts if nothing shows that a name was used, and remarks with the names that may be meant.

    Only the log can show it: who holds the secret signs offline, under any name. `presign run --id NAME`
    signs under NAME and a random part, so NAME alone revokes nothing of it.

    Args:
        again: the options of the suggested commands.
    """
    names, where = _known(workspace, connection)
    if name in names:
        return (), ()
    close = [one for one in names if one.startswith(f"{name}-")] or alike(name, names)
    doubt = f"Nothing shows that anybody has used {connection}/{name} so far: {where}."
    return (doubt, _MEANING), tuple(_meant(connection, close, again))


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


def _meant(connection: str, close: list[str], again: tuple[str, ...]) -> Iterator[str]:
    """Yield the commands for similar names, one a line."""
    if close:
        yield "The audit log has requests of similar names. To revoke one of those, too:"
        for one in close[-_SHOWN:]:
            yield f"  {command('revoke', '--id', f'{connection}/{one}', *again)}"
    if len(close) > _SHOWN:
        yield f"  … and {len(close) - _SHOWN} more"


def owners_of(workspace: Workspace, name: str) -> list[str]:
    """Return the connections that a presign of this name was used for, as far as the log can be read."""
    settings = workspace.config.audit
    if settings is None or settings.file == "-":
        return []
    try:
        records, _ = _records(workspace.base / settings.file)
    except OSError:
        return []
    owners = [record.get("connection") for record in records if record.get("id") == name]
    return list(dict.fromkeys(one for one in owners if one in workspace.entries))


def last_uses(workspace: Workspace, signatures: Set[str]) -> dict[str, dict[str, Any]]:
    """Return the last record of each signature id, as far as the log can be read."""
    settings = workspace.config.audit
    if settings is None or settings.file == "-" or not signatures:
        return {}
    try:
        tail = _tail(workspace.base / settings.file)[0].read()
    except OSError:
        return {}
    places = {found[1].decode(): found.start() for found in _SIGNATURE.finditer(tail)}
    uses = {}
    for one in places.keys() & signatures:
        begin, end = tail.rfind(b"\n", 0, places[one]) + 1, tail.find(b"\n", places[one])
        record = record_of(tail[begin : end if end >= 0 else None])
        if record is not None and record.get("signature") == one:
            uses[one] = record
    return uses


def _names(path: Path, connection: str) -> tuple[list[str], bool]:
    """Return the names in the last part of the log, the latest at the end, and whether that is all of it.

    Raises OSError.
    """
    records, is_whole = _records(path)
    found: dict[str, None] = {}
    for record in records:
        name = record.get("id")
        if record.get("connection") == connection and isinstance(name, str):
            found.pop(name, None)
            found[name] = None
    return list(found), is_whole


def _records(path: Path) -> tuple[Iterator[dict[str, Any]], bool]:
    """Return the records with a name in the last part of the log, and whether that is all. Raises OSError."""
    tail, is_whole = _tail(path)
    return iter(Lines(tail, containing=b'"id":"').records()), is_whole


def _tail(path: Path) -> tuple[io.BytesIO, bool]:
    """Return the whole lines in the last part of the log, and whether that is all. Raises OSError."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _READ))
        tail = io.BytesIO(file.read(_READ))
    if size > _READ:
        tail.readline()  # the rest of a line that began before
    return tail, size <= _READ
