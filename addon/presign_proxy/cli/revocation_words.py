"""What is said of a revocation that was made or cancelled."""

from __future__ import annotations

from typing import Any, Final

from ..core.revocations import EVERY

SOON: Final = "gateways notice within a second"
AT_ONCE: Final = "gateways notice within a second, and end what is under way within two"
_NAMES: Final = {
    "urls": "The URL with signature id",
    "ids": "Everything signed as",
    "keys": "The key",
    "connections": "The connection",
}


def sentence(section: str, name: str, value: Any, *, undo: bool, now: bool) -> str:
    """Return what has become of a target.

    Args:
        value: its value in the registry.
        now: whether what is under way is ended, too.
    """
    state = "no longer revoked" if undo else "revoked"
    return f"{_named(section, name, value)} is {state}; {AT_ONCE if now else SOON}."


def _named(section: str, name: str, value: Any) -> str:
    if section == "added_before":
        return "Every key" + (f" of {name}" if name != EVERY else "") + f" that was added before {value}"
    return f"{_NAMES[section]} {name}"
