"""The forms and places of key tokens, besides those of the credential itself."""

from __future__ import annotations

from functools import lru_cache

from ..core.connection import KeyForms
from ..core.credentials import CredentialSlots
from ..http.field_names import header_key, param_key
from .schema.connections import KeySlots


@lru_cache(maxsize=1024)
def key_forms(shapes: tuple[str, ...], passwords: tuple[str, ...]) -> KeyForms:
    """Return what may stand beside a key token. Equal values share one object."""
    return KeyForms(frozenset(map(str.encode, shapes)), frozenset(map(str.encode, passwords)))


def key_slots(entry: KeySlots) -> CredentialSlots:
    """Return the places in which a key token may also stand."""
    return CredentialSlots(
        frozenset([header_key(name.encode()) for name in entry.headers]),
        frozenset([param_key(name.encode()) for name in entry.params]),
    )
