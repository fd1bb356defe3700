"""The search for the key that made a signature, for its owner. Offline; the gateway need not grant it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ..core.connection import Connection
from ..core.registry import Registry
from ..http.message import Request
from ..signing import canonical
from ..signing.keys import SigningKey
from ..signing.presign_scheme import Presign
from ..signing.source_scheme import Source

_AS_IT_IS: Final[Mapping[str, Callable[[bytes], bytes | None]]] = {"as it is": bytes}


def message_of(claim: Presign | Source, named: str) -> bytes | None:
    """Return the canonical string of a claim; None if nothing was signed.

    Args:
        named: the id of the connection, for a claim that names none.
    """
    if isinstance(claim, Source):
        return (
            None if claim.signature is None else canonical.source(claim.project, claim.url, claim.exp or "")
        )
    connection = claim.connection_id or named
    if claim.written is not None:
        return canonical.policy(connection, claim.expires, claim.methods, claim.paths, claim.written)
    return canonical.presign(connection, claim.expires, claim.methods, claim.paths)


def meant(registry: Registry, request: Request, claim: Presign | Source) -> list[Connection]:
    """Return the connections for which a claim may have been signed. Several only if it names none."""
    if isinstance(claim, Presign):
        if claim.connection_id is not None:
            found = registry.get(claim.connection_id, "presign")
        else:
            found = registry.addressed(request.origin, request.path)
        return [found] if found else []
    if claim.project:
        found = registry.get(claim.project, "source")
        return [found] if found else []
    return list(registry.destinations.intercepting.get(request.origin, ()))


def maker(connections: Iterable[Connection], claim: Presign | Source) -> tuple[Connection, SigningKey] | None:
    """Return the connection and the key that made the signature; None if none of these keys did.

    Keys past their `not_after` count too.
    """
    for connection in connections:
        named = claim._replace(project=connection.id) if isinstance(claim, Source) else claim
        message = message_of(named, connection.id)
        if message is None or claim.signature is None:
            continue
        only = claim.written.key if isinstance(claim, Presign) and claim.written is not None else ""
        for found in connection.keys.tries({"": message}, _AS_IT_IS, bytes.fromhex(claim.signature)):
            if only in ("", found.key.id):
                return connection, found.key
    return None
