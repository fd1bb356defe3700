"""The headers of one request that are not forwarded, and the reasons."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..core.connection import Connection
from ..core.strip_list import HOP_BY_HOP, is_credential
from ..http.field_names import header_key

_PRESIGN: Final = "the presign"
_CREDENTIAL: Final = "can carry a credential"
_HOP: Final = "for this hop only"
_ROUTE: Final = "can name the client, or another destination"
_OF_HOP: Final = HOP_BY_HOP | {b"accept-encoding", b"expect"}
_COOKIES: Final = frozenset((b"cookie", b"cookie2"))


def reasons(
    names: Iterable[bytes], nominated: frozenset[bytes], connection: Connection | None
) -> tuple[str, ...]:
    """Return one line for each reason, with the headers that are removed for it.

    Args:
        names: the names of the removed headers, as received.
        nominated: the folded names that `Connection` lists.
    """
    slots = connection.slots.headers if connection else frozenset()
    found: dict[str, list[str]] = {}
    for name in names:
        key = header_key(name)
        why = _CREDENTIAL if key in slots else _HOP if key in nominated else _reason(key)
        found.setdefault(why, []).append(name.decode("ascii", "replace"))
    return tuple(f"removed, {why}: {', '.join(them)}" for why, them in found.items() if why != _PRESIGN)


def _reason(key: bytes) -> str:
    if key.startswith(b"x-presign") or key == b"referer":
        return _PRESIGN
    if is_credential(key) or key in _COOKIES:
        return _CREDENTIAL
    return _HOP if key in _OF_HOP else _ROUTE
