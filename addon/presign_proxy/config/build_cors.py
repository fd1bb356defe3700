"""The rules of `cors`, built from a validated entry."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.cors import ANY, Cors
from .schema.cors import CorsEntry


def cors_of(entry: CorsEntry, sent: Iterable[bytes], *, cookies: bool) -> Cors:
    """Return the rules of an entry.

    Args:
        sent: names of headers that clients of the connection send: those that hold a key token, and those
            that the gateway would add. A page may always send them.
        cookies: whether the connection passes cookies on. Only then may a page send its cookies.
    """
    named = frozenset([name.lower().encode() for name in entry.headers])
    return Cors(
        frozenset([origin.encode() for origin in entry.origins]),
        frozenset((ANY,)) if ANY in named else named | {name.lower() for name in sent},
        tuple([name.encode() for name in entry.expose]),
        entry.max_age,
        cookies,
    )
