"""The layers that mitmproxy has put below one another."""

from __future__ import annotations

from mitmproxy.proxy.layer import Layer


def descendants(top: Layer | None) -> list[Layer]:
    """Return a layer and all layers below it, from the top."""
    found: list[Layer] = []
    while isinstance(top, Layer):
        found.append(top)
        top = getattr(top, "child_layer", None)
    return found
