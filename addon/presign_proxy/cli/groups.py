"""The verbs by job, in the order of `presign --help`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

GROUPS: Final = {
    "Setting up": ("init", "example", "connections", "presets", "schema", "check"),
    "Signing": ("sign", "convert", "run"),
    "Understanding": ("explain", "verify", "audit", "status", "usage"),
    "Changing and revoking": ("revoke", "rekey", "encrypt", "decrypt"),
    "Running": ("serve", "demo", "ca", "script-path", "completion"),
    # The verbs of `presign connections`.
    "Showing": ("list", "show"),
    "Adding": ("add", "import"),
    "Changing": ("set", "edit", "rotate", "disable", "enable", "remove"),
}
"""A verb that is named here need not exist."""


def grouped(verbs: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each group with those of its verbs that exist. Verbs without a group come last."""
    left = list(verbs)
    for name, members in GROUPS.items():
        if found := [verb for verb in members if verb in left]:
            left = [verb for verb in left if verb not in found]
            yield name, found
    if left:
        yield "More", left
