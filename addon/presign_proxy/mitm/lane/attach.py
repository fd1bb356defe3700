"""The place of the lane among the layers of a client connection."""

from __future__ import annotations

from mitmproxy.proxy import layer, mode_specs
from mitmproxy.proxy.layers import ClientTLSLayer
from mitmproxy.proxy.layers.http import HTTPMode

from ..flow.http_layer import GuardedHttpLayer
from ..sockets import speaks_h1
from .layer import Lane
from .shared import LaneShared


def with_lane(chosen: layer.Layer | None, shared: LaneShared) -> layer.Layer | None:
    """Return the layer that mitmproxy chose, or a lane in the place of its HTTP layer if one can stand there.

    Where a client speaks TLS to the gateway itself, the HTTP layer stands behind the layer for TLS.
    """
    if isinstance(chosen, ClientTLSLayer):
        chosen.child_layer = with_lane(chosen.child_layer, shared) or chosen.child_layer
    elif isinstance(chosen, GuardedHttpLayer) and _may_take(chosen):
        return Lane(chosen.context, chosen, shared)
    return chosen


def _may_take(stock: GuardedHttpLayer) -> bool:
    """Return whether a lane can stand in for an HTTP layer: HTTP/1 over TCP, of a regular proxy."""
    client = stock.context.client
    return (
        stock.mode in (HTTPMode.regular, HTTPMode.transparent)
        and isinstance(client.proxy_mode, mode_specs.RegularMode)
        and client.transport_protocol == "tcp"
        and speaks_h1(client)
    )
