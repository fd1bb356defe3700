"""The last addon in mitmproxy's chain: it sees each layer that was chosen."""

from __future__ import annotations

from typing import Protocol

from mitmproxy.proxy.layer import NextLayer

from . import first_bytes


class GuardsLayers(Protocol):
    """Guards the layer that was chosen for a connection."""

    def guard_layer(self, nextlayer: NextLayer) -> None: ...


class LayerGuard:
    """Stands last in the master's chain: sees which layer was chosen."""

    name = "presign_layers"

    def __init__(self, guard: GuardsLayers) -> None:
        self._guard = guard

    def next_layer(self, nextlayer: NextLayer) -> None:
        guarded = False
        try:
            self._guard.guard_layer(nextlayer)
            guarded = True
        finally:
            if not guarded:
                nextlayer.layer = first_bytes.Refuse(nextlayer.context)
