"""The addresses that upstream connections of flows are dialled at."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from mitmproxy.connection import Address
from mitmproxy.proxy.mode_specs import UpstreamMode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from ..core.registry import Registry
from ..errors import Denied
from ..gateway import unreachable
from ..gateway.destination import DestinationJudge, resolved
from ..gateway.outward import announce
from ..gateway.resolver import Found
from ..http import networks
from ..http.message import Origin
from ..http.networks import Network
from . import last_bytes
from .flow.routes import route_to
from .sockets import transport_of


class Named(NamedTuple):
    """The name under which a connection was asked for, while it is dialled at an address.

    `behind`: that address, if a proxy connects to it; empty without one.
    """

    address: Address
    behind: str


class Dialler:
    """Decides on each upstream connection of a flow just before it is dialled."""

    def __init__(self, judge: DestinationJudge) -> None:
        self._judge = judge
        self._named: WeakKeyDictionary[Any, Named] = WeakKeyDictionary()

    async def connect(self, data: ServerConnectionHookData, registry: Registry | None) -> None:
        """Refuse a connection that is about to be dialled, or choose the address it is dialled at."""
        if data.server.address is None:
            return
        host, port = data.server.address[:2]
        pinned = self._judge.pinned(data.client, host, port)
        if pinned is not None:
            await self._lead(data, pinned)
            return
        mode = data.client.proxy_mode
        is_proxy = isinstance(mode, UpstreamMode) and mode.address == (host, port)
        known = is_proxy or (registry is not None and registry.leads_to(host, port))
        if registry is not None and registry.deny_unsigned and not known:
            await self._judge_second_host(data, host, port, registry.second_host(host, port))
            return
        addresses: tuple[str, ...] | None = ()
        if self._judge.must_judge(port):
            lookup = self._judge.resolver.configured if known else self._judge.resolver.unsigned
            addresses = await self._not_ours(data, port, lookup(host, port))
        if addresses is not None:
            await self._lead(data, addresses, direct=is_proxy, unsigned=not known)

    async def _judge_second_host(
        self, data: ServerConnectionHookData, host: str, port: int, allowed: tuple[Network, ...] | None
    ) -> None:
        """Dial a host of `also` at an address that was judged as that of a source; refuse any other host."""
        if allowed is None:
            data.server.error = unreachable.NOT_LISTED
            return
        try:
            addresses = networks.judge(await resolved(self._judge.resolver.unsigned(host, port)), allowed)
        except Denied:
            data.server.error = unreachable.NOT_PUBLIC
            return
        if await self._judge.is_forbidden(addresses, port):
            data.server.error = unreachable.OUR_OWN
            return
        await self._lead(data, addresses, unsigned=True)

    async def _not_ours(
        self, data: ServerConnectionHookData, port: int, found: Awaitable[Found]
    ) -> tuple[str, ...] | None:
        """Refuse a name of the gateway itself. Return the addresses that were judged: it could rebind."""
        try:
            addresses = await resolved(found)
        except Denied:
            # Not left to mitmproxy: by then, the name may resolve, and to this gateway.
            data.server.error = unreachable.NOT_IN_TIME
            return None
        if await self._judge.is_forbidden(addresses, port):
            data.server.error = unreachable.OUR_OWN
            return None
        return tuple(addresses)

    async def _lead(
        self,
        data: ServerConnectionHookData,
        addresses: tuple[str, ...],
        *,
        direct: bool = False,
        unsigned: bool = False,
    ) -> None:
        """Announce how the connection is opened.

        Args:
            addresses: those that were judged; empty where the name is looked up.
            direct: it leads to a proxy already.
        """
        server = data.server
        host, port = server.address[:2]  # type: ignore[index]  # it has one, or nothing would be dialled
        origin = Origin("https" if server.tls else "http", host, port)
        direct = direct or route_to(server).direct or server.transport_protocol != "tcp"
        try:
            outward = await self._judge.towards(origin, addresses, direct=direct, unsigned=unsigned)
        except Denied as denied:
            server.error = denied.detail
            return
        if addresses:
            # SNI and certificate check stay on the name; `connected` restores it for reuse.
            self._named[server] = Named((host, port), addresses[0] if outward.proxy is not None else "")
            server.address = (addresses[0], port)
        announce(outward._replace(host=server.address[0]))  # type: ignore[index]

    def connected(self, data: ServerConnectionHookData) -> None:
        if (transport := transport_of(data.client, data.server)) is not None:
            last_bytes.keep(transport)
        named = self._named.pop(data.server, None)
        if named is not None:
            # mitmproxy's setter refuses to change the address of an open connection, so that it is not taken
            # for a redirection. Here the name comes back under which the connection was asked for: mitmproxy
            # finds it by that name to use it again.
            vars(data.server)["address"] = named.address
            if named.behind:
                data.server.peername = (named.behind, named.address[1])
