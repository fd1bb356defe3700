"""Where connections may go: judged addresses are pinned, and none leads back to the gateway itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from mitmproxy import ctx
from mitmproxy.connection import Address
from mitmproxy.proxy.mode_specs import UpstreamMode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from ..core.decision import Forward
from ..core.registry import Registry
from ..errors import Denied
from ..gateway.pinned_addresses import PinnedAddresses
from ..gateway.resolver import RESOLVE_TIMEOUT, Found, Resolver, TooManyLookups, mark_unsigned
from ..http import networks
from ..http.client_address import bucket
from ..http.hosts import parse_address
from ..http.networks import Network
from ..observe.metrics import Snapshot
from . import last_bytes
from .sockets import proxyserver, transport_of


class Dialler:
    """Decides on each upstream connection just before it is dialled."""

    def __init__(self, store: Callable[[], Address | None], admin: Callable[[], int | None]) -> None:
        """
        Args:
            store: the address of the limit store, if it has one.
            admin: the port of the admin listener, in whichever process it is.
        """
        self.pins = PinnedAddresses()
        self._store = store
        self._resolver = Resolver()
        self._judged: frozenset[int] = frozenset()
        self._admin = admin
        self._named: WeakKeyDictionary[Any, Address] = WeakKeyDictionary()

    def start(self) -> None:
        """Look up the names that this event loop connects to, from now on."""
        self._resolver.take_over(asyncio.get_running_loop())

    def close(self) -> None:
        self._resolver.close()

    def figures(self) -> Snapshot:
        return self._resolver.figures()

    def forget(self, client: Any) -> None:
        """Drop what is known of a client that has gone."""
        self.pins.forget(client)

    async def pin(self, client: Any, forward: Forward) -> None:
        """Resolve and judge a source's host, and pin this client to the address. Raises Denied.

        The name is not resolved a second time: it could answer differently (DNS rebinding).
        """
        if forward.resolve is None:
            return
        host, port = forward.origin.host, forward.origin.port
        client_address = bucket(parse_address(forward.facts.client))
        found = self._resolver.source(host, port, forward.connection.id, client_address)
        address = networks.judge(await _resolved(found), forward.resolve)
        if await self._is_forbidden([address], port):
            raise Denied("invalid", "the source is the gateway itself, or its store")
        self.pins.pin(client, host, port, address)

    def must_judge(self, port: int) -> bool:
        """Return whether something of ours listens on such a port: then a name is resolved to be judged."""
        return port in self._listened()

    def _listened(self) -> set[int]:
        store = self._store()
        return self._own_ports() | ({store[1]} if store is not None else set())

    def refresh(self) -> None:
        """Look again at what listens; twice a second, because asking the sockets costs more than judging."""
        self._judged = frozenset(self._listened())

    def may_be_ours(self, port: int) -> bool:
        """Return `must_judge` as of half a second ago. A gateway never begins to listen where it forwards."""
        return port in self._judged

    async def address(self, client: Any, forward: Forward) -> str:
        """Return what to dial for a grant. Raises Denied("upstream") for what may not be dialled."""
        host, port = forward.origin.host, forward.origin.port
        pinned = self.pins.find(client, host, port) if forward.resolve is not None else None
        if pinned is not None or not self.must_judge(port):
            return pinned or host
        addresses = await _resolved(self._resolver.configured(host, port))
        if await self._is_forbidden(addresses, port):
            raise Denied("upstream", "this is an address of the gateway itself, or of its store")
        return addresses[0]

    async def connect(self, data: ServerConnectionHookData, registry: Registry | None) -> None:
        """Refuse, pin or allow a connection that is about to be dialled."""
        if data.server.address is None:
            return
        host, port = data.server.address[:2]
        pinned = self.pins.find(data.client, host, port)
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
        if self.must_judge(port):
            lookup = self._resolver.configured if known else self._resolver.unsigned
            await self._keep_away(data, host, port, lookup(host, port))

    async def _judge_second_host(
        self, data: ServerConnectionHookData, host: str, port: int, allowed: tuple[Network, ...] | None
    ) -> None:
        """Dial the address of a host of `also` that was judged as that of a source; refuse any other."""
        if allowed is None:
            data.server.error = "this destination belongs to no connection"
            return
        try:
            address = networks.judge(await _resolved(self._resolver.unsigned(host, port)), allowed)
        except Denied:
            data.server.error = "this host does not resolve, or not to public addresses only"
            return
        if await self._is_forbidden([address], port):
            data.server.error = "this is an address of the gateway itself, or of its store"
            return
        self._named[data.server] = (host, port)
        data.server.address = (address, port)

    def connected(self, data: ServerConnectionHookData) -> None:
        if (transport := transport_of(data.client, data.server)) is not None:
            last_bytes.keep(transport)
        named = self._named.pop(data.server, None)
        if named is not None:
            # The setter refuses once the connection is open, because that looks like a redirection. Here the
            # name comes back under which the connection was asked for, and is found for reuse.
            vars(data.server)["address"] = named

    async def _keep_away(
        self, data: ServerConnectionHookData, host: str, port: int, found: Awaitable[Found]
    ) -> None:
        """Refuse what resolves to ourselves; dial the address that was judged, in case the name rebinds."""
        try:
            addresses = await _resolved(found)
        except Denied:
            # mitmproxy must not dial it: the name may resolve by then, and lead to us.
            data.server.error = "this host does not resolve, or not in time"
            return
        if await self._is_forbidden(addresses, port):
            data.server.error = "this is an address of the gateway itself, or of its store"
        else:
            self._named[data.server] = (host, port)
            data.server.address = (addresses[0], port)

    async def _is_forbidden(self, addresses: list[str], port: int) -> bool:
        """Return whether one of them is this gateway's own, or its limit store's, under whatever name."""
        if port in self._own_ports() and any(map(_is_local, addresses)):
            return True
        store = self._store()
        if store is None or store[1] != port:
            return False
        theirs = await _resolved(self._resolver.configured(*store[:2]))
        return bool(set(theirs) & set(addresses)) or (
            any(map(_is_local, theirs)) and any(map(_is_local, addresses))
        )

    def _own_ports(self) -> set[int]:
        """Return the ports of the proxy, of mitmweb and of the admin listener."""
        server = proxyserver()
        ports = {address[1] for address in server.listen_addrs()} if server else set()
        if "web_port" in ctx.options:
            ports.add(ctx.options.web_port)
        admin = self._admin()
        if admin is not None:
            ports.add(admin)
        return ports


async def _resolved(found: Awaitable[Found]) -> list[str]:
    """Return all addresses of a name. Raises Denied("upstream").

    That is also the code where too many names are being looked up: the upstream cannot be reached now.
    `limited` would mean a limit that the operator has set and the client may read about, `unavailable` a
    gateway that is out of order as a whole, which balancers and alerts act on.
    """
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT):
            return [address for address, _ in await found]
    except TimeoutError:
        raise Denied("upstream", "the host did not resolve in time", status=504) from None
    except TooManyLookups:
        raise Denied("upstream", "too many names are being looked up") from None
    except OSError:
        raise Denied("upstream", "the host does not resolve") from None


def _is_local(address: str) -> bool:
    """Return whether an address is one of this machine: only those can be bound."""
    parsed = parse_address(address)
    if parsed is None:
        return False
    if parsed.is_loopback or parsed.is_unspecified:
        return True
    family = socket.AF_INET6 if parsed.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((str(parsed), 0))
    except OSError:
        return False
    return True
