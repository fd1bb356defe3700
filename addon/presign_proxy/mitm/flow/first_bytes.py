"""The first bytes of a connection, or of a tunnel, which decide whether it is HTTP or not let through."""

from __future__ import annotations

import re
from typing import Final

from mitmproxy.proxy import commands, events, layer, layers
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode

from ...http.message import MAX_HEAD, TOKEN
from .coalesce import Commands
from .layer_stack import descendants

MAX_EMPTY_LINES: Final = 4
"""Empty lines that are passed over before a request line; some clients send one behind a body (RFC 9112,
2.2).
"""
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n){0,%d}" % MAX_EMPTY_LINES)


def size_of_empty_lines(data: bytes) -> int:
    """Return how many bytes of empty lines are passed over."""
    found = _EMPTY_LINES.match(data)
    return found.end() if found else 0


def is_raw(chosen: layer.Layer | None) -> bool:
    """Return whether a layer would carry anything but HTTP, or TLS with HTTP in it."""
    allowed = (
        HttpLayer,
        layer.NextLayer,
        layers.ClientTLSLayer,
        layers.ServerTLSLayer,
        layers.modes.HttpProxy,
    )
    return chosen is not None and any(not isinstance(one, allowed) for one in descendants(chosen))


_MAX_METHOD: Final = 32
"""Characters of a method; the longest one that is registered has 16."""
_BEGUN: Final = re.compile(rb"[A-Z][A-Z0-9_-]*")
"""What a method looks like whose end has not come. Those that are registered are in capitals."""
_TARGET: Final = re.compile(rb"(?:[/*].*|h(?:t(?:t(?:p.*)?)?)?)?", re.IGNORECASE | re.DOTALL)


def _begins_like_http(data: bytes) -> bool:
    """Return whether a request line begins here, or may: with any method, as a grant may be for any."""
    method, space, target = data.partition(b" ")
    if not method or len(method) > _MAX_METHOD:
        return False
    if not space:
        return _BEGUN.fullmatch(method) is not None
    return not method.translate(None, TOKEN) and _TARGET.fullmatch(target) is not None


def may_become_http(asked: layer.NextLayer) -> bool:
    """Return whether raw TCP was chosen for what may be a request line whose end has not come yet.

    mitmproxy takes a first segment without a line break for something else, and a presign is longer than
    many a segment: it would be relayed as it is, signature included.
    """
    chosen = asked.layer
    if type(chosen) is not layers.TCPLayer or chosen.flow is None or asked.data_server():
        return False
    data = asked.data_client()
    begun = data[size_of_empty_lines(data) :]
    if len(data) > MAX_HEAD or b"\n" in begun:
        return False
    return _begins_like_http(begun) if begun else bool(data)


def chosen_by(asked: layer.NextLayer) -> layer.Layer | None:
    """Return the layer that mitmproxy has chosen, but HTTP if what has come is a request line.

    mitmproxy takes one behind empty lines, or with a method like `M-SEARCH`, for something else. It would
    relay the request with its signature.
    """
    chosen = asked.layer
    if type(chosen) is not layers.TCPLayer or chosen.flow is None or asked.data_server():
        return chosen
    data = asked.data_client()
    begun = data[size_of_empty_lines(data) :]
    if b"\n" in begun and _begins_like_http(begun):
        asked.context.layers.remove(chosen)
        asked.layer = HttpLayer(asked.context, HTTPMode.transparent)
    return asked.layer


def is_undecided(asked: layer.NextLayer) -> bool:
    """Return whether more has to come first. Close a connection of which too much has come undecided."""
    chosen = asked.layer
    if chosen is None and len(asked.data_client()) > MAX_HEAD:
        asked.layer = Refuse(asked.context)
        return True
    if chosen is not None and may_become_http(asked):
        asked.context.layers.remove(chosen)
        asked.layer = None  # asked again when more has come, or cut at the deadline
        return True
    return False


class Refuse(layer.Layer):
    """A layer that closes the connection, where only presigned requests are let through."""

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start | events.DataReceived):
            yield commands.CloseConnection(self.context.client)
