"""The routes of upstream connections on the flow path: past the proxy or not, and with which TLS settings.

mitmproxy uses any connection of a client again that leads to the same host and port, and over HTTP/2 for
several requests at a time. A client certificate is a credential of one connection of the registry, so a
request takes only connections of its own route.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from mitmproxy.connection import Connection
from mitmproxy.proxy.layers.http import GetHttpConnection

from ...core.connection import Connection as Registered
from ...core.way_out import UpstreamTls


class Route(NamedTuple):
    """What upstream connections have in common that may serve the same requests."""

    direct: bool = False
    tls: UpstreamTls | None = None


PLAIN: Final = Route()
"""The route of unsigned requests, and of most others."""
_routes: Final[WeakKeyDictionary[Connection, Route]] = WeakKeyDictionary()


def route_to(server: Connection) -> Route:
    """Return the route of an upstream connection."""
    return _routes.get(server, PLAIN)


class RoutedConnection(GetHttpConnection):
    """A question for an upstream connection, which only one of the same route answers."""

    route: Route

    def connection_spec_matches(self, connection: Connection) -> bool:
        return super().connection_spec_matches(connection) and route_to(connection) == self.route


def lead(command: GetHttpConnection, registered: Registered | None) -> None:
    """Give a question the route of a connection of the registry; None for an unsigned request."""
    command.__class__ = RoutedConnection
    route = PLAIN if registered is None else Route(registered.direct, registered.tls)
    vars(command)["route"] = route


def note(server: Connection, asked: list[GetHttpConnection]) -> None:
    """Note the route of a connection that is about to be opened.

    Args:
        asked: the questions that it answers, which are all of the same route.
    """
    for command in asked:
        if isinstance(command, RoutedConnection):
            _routes[server] = command.route
