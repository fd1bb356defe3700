"""The addon that looks at each layer which mitmproxy has chosen, after all other addons."""

from __future__ import annotations

from collections.abc import Callable

from mitmproxy.proxy.layer import NextLayer

from . import first_bytes


class LayerGuard:
    """The last addon in the master's chain, which guards the layer that was chosen."""

    name = "presign_layers"

    def __init__(self, guard: Callable[[NextLayer], None]) -> None:
        self._guard = guard

    def next_layer(self, nextlayer: NextLayer) -> None:
        guarded = False
        try:
            self._guard(nextlayer)
            guarded = True
        finally:
            if not guarded:
                nextlayer.layer = first_bytes.Refuse(nextlayer.context)
