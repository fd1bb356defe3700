"""The routes of upstream connections on the flow path: through which proxy, and with which TLS settings.

mitmproxy uses any connection of a client again that leads to the same host and port, and over HTTP/2 for
several requests at a time. A client certificate is a credential of one connection of the registry, so a
request takes only connections of its own route. What is kept from before a change of the proxies serves none.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from mitmproxy.connection import Connection
from mitmproxy.proxy.layers.http import GetHttpConnection

from ...core.decision import Forward
from ...core.way_out import DIRECT, UpstreamTls, WayOut


class Route(NamedTuple):
    """What upstream connections have in common that may serve the same requests."""

    direct: bool = False
    tls: UpstreamTls | None = None
    way_out: WayOut = DIRECT


PLAIN: Final = Route()
"""The route of unsigned requests, and of most others where there is no proxy."""
_routes: Final[WeakKeyDictionary[Connection, Route]] = WeakKeyDictionary()


def route_to(server: Connection) -> Route:
    """Return the route of an upstream connection."""
    return _routes.get(server, PLAIN)


class RoutedConnection(GetHttpConnection):
    """A question for an upstream connection, which only one of the same route answers."""

    route: Route

    def connection_spec_matches(self, connection: Connection) -> bool:
        return super().connection_spec_matches(connection) and route_to(connection) == self.route


def _route_of(forward: Forward) -> Route:
    connection = forward.connection
    return Route(True, connection.tls) if connection.direct else Route(False, connection.tls, forward.way_out)


def way_of(forward: Forward) -> tuple[Any, ...]:
    """Return how a granted request is sent. One that is granted anew must not go another way."""
    return forward.origin, forward.resolve, forward.hold, _route_of(forward)


def lead(command: GetHttpConnection, forward: Forward | None) -> None:
    """Give a question the route of a granted request; None for an unsigned one."""
    command.__class__ = RoutedConnection
    vars(command)["route"] = PLAIN if forward is None else _route_of(forward)


def note(server: Connection, asked: list[GetHttpConnection]) -> None:
    """Note the route of a connection that is about to be opened.

    Args:
        asked: the questions that it answers, which are all of the same route.
    """
    for command in asked:
        if isinstance(command, RoutedConnection):
            _routes[server] = command.route
