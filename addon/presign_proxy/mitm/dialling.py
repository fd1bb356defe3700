"""The addresses that upstream connections of flows are dialled at."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any
from weakref import WeakKeyDictionary

from mitmproxy.connection import Address
from mitmproxy.proxy.mode_specs import UpstreamMode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from ..core.registry import Registry
from ..errors import Denied
from ..gateway import unreachable
from ..gateway.destination import DestinationJudge, resolved
from ..gateway.resolver import Found, mark_unsigned
from ..http import networks
from ..http.networks import Network
from . import last_bytes
from .sockets import transport_of


class Dialler:
    """Decides on each upstream connection of a flow just before it is dialled."""

    def __init__(self, judge: DestinationJudge) -> None:
        self._judge = judge
        self._named: WeakKeyDictionary[Any, Address] = WeakKeyDictionary()

    async def connect(self, data: ServerConnectionHookData, registry: Registry | None) -> None:
        """Refuse a connection that is about to be dialled, or choose the address it is dialled at."""
        if data.server.address is None:
            return
        host, port = data.server.address[:2]
        pinned = self._judge.pinned(data.client, host, port)
        if pinned is not None:
            # SNI and certificate check stay on the name; `connected` restores it for reuse.
            self._named[data.server] = data.server.address
            data.server.address = (pinned, port)
            return
        mode = data.client.proxy_mode
        known = (registry is not None and registry.leads_to(host, port)) or (
            isinstance(mode, UpstreamMode) and mode.address == (host, port)
        )
        if registry is not None and registry.deny_unsigned and not known:
            await self._judge_second_host(data, host, port, registry.second_host(host, port))
            return
        if not known:
            mark_unsigned(host, port)
        if self._judge.must_judge(port):
            lookup = self._judge.resolver.configured if known else self._judge.resolver.unsigned
            await self._keep_away(data, host, port, lookup(host, port))

    async def _judge_second_host(
        self, data: ServerConnectionHookData, host: str, port: int, allowed: tuple[Network, ...] | None
    ) -> None:
        """Dial a host of `also` at an address that was judged as that of a source; refuse any other host."""
        if allowed is None:
            data.server.error = unreachable.NOT_LISTED
            return
        try:
            address = networks.judge(await resolved(self._judge.resolver.unsigned(host, port)), allowed)
        except Denied:
            data.server.error = unreachable.NOT_PUBLIC
            return
        if await self._judge.is_forbidden([address], port):
            data.server.error = unreachable.OUR_OWN
            return
        self._named[data.server] = (host, port)
        data.server.address = (address, port)

    def connected(self, data: ServerConnectionHookData) -> None:
        if (transport := transport_of(data.client, data.server)) is not None:
            last_bytes.keep(transport)
        named = self._named.pop(data.server, None)
        if named is not None:
            # mitmproxy's setter refuses to change the address of an open connection, so that it is not taken
            # for a redirection. Here the name comes back under which the connection was asked for: mitmproxy
            # finds it by that name to use it again.
            vars(data.server)["address"] = named

    async def _keep_away(
        self, data: ServerConnectionHookData, host: str, port: int, found: Awaitable[Found]
    ) -> None:
        """Refuse a name of the gateway itself; dial the address that was judged: the name could rebind."""
        try:
            addresses = await resolved(found)
        except Denied:
            # Not left to mitmproxy: by then, the name may resolve, and to this gateway.
            data.server.error = unreachable.NOT_IN_TIME
            return
        if await self._judge.is_forbidden(addresses, port):
            data.server.error = unreachable.OUR_OWN
        else:
            self._named[data.server] = (host, port)
            data.server.address = (addresses[0], port)
