"""Where an upstream connection may lead: judged addresses are pinned, and none is the gateway itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from ..config.live import LiveConfig
from ..core.decision import Forward
from ..errors import Denied
from ..http import networks
from ..http.client_address import bucket
from ..http.hosts import parse_address
from ..http.message import Origin
from ..limits.limiter import Limiter
from . import unreachable
from .outward import Outward
from .resolver import RESOLVE_TIMEOUT, Found, Resolver, TooManyLookups

MAX_PINS: Final = 256
"""Names that one client connection may be pinned to; past it, all of them are judged again."""


class DestinationJudge:
    """Resolves hosts, and judges the addresses that connections may be dialled at."""

    def __init__(self, live_config: LiveConfig, limiter: Limiter, own_ports: Callable[[], set[int]]) -> None:
        """Args: own_ports: the ports on which this program listens, but for the admin listener."""
        self._live_config = live_config
        self._limiter = limiter
        self._own_ports = own_ports
        self.resolver = Resolver()
        self._judged: frozenset[int] = frozenset()
        self._pins: WeakKeyDictionary[Any, dict[tuple[str, int], tuple[str, ...]]] = WeakKeyDictionary()

    def start(self) -> None:
        """Look up all names that this event loop connects to with the gateway's own resolver."""
        self.resolver.take_over(asyncio.get_running_loop())

    def close(self) -> None:
        self.resolver.close()

    # -- addresses of sources ---------------------------------------------------------------------------

    async def pin(self, client: Any, forward: Forward) -> None:
        """Resolve and judge a source's host, and pin this client to its addresses. Raises Denied.

        The name is not resolved a second time: it could answer differently (DNS rebinding).
        """
        if forward.resolve is None:
            return
        host, port = forward.origin.host, forward.origin.port
        client_address = bucket(parse_address(forward.facts.client))
        found = self.resolver.source(host, port, forward.connection.id, client_address)
        addresses = networks.judge(await resolved(found), forward.resolve)
        if await self.is_forbidden(addresses, port):
            raise Denied("invalid", "the source is the gateway itself, or its store")
        self._keep(client, host, port, *addresses)

    def _keep(self, client: Any, host: str, port: int, *addresses: str) -> None:
        pins = self._pins.setdefault(client, {})
        if len(pins) >= MAX_PINS and (host, port) not in pins:
            del pins[next(iter(pins))]
        pins[host, port] = addresses

    def pinned(self, client: Any, host: str, port: int) -> tuple[str, ...] | None:
        """Return the addresses that were judged last for this client and name, at least one."""
        return self._pins.get(client, {}).get((host, port))

    def forget(self, client: Any) -> None:
        """Drop the pins of a client that has gone."""
        self._pins.pop(client, None)

    # -- addresses of the gateway itself ----------------------------------------------------------------

    def must_judge(self, port: int) -> bool:
        """Return whether something of ours listens on a port: a name with it is resolved to be judged."""
        return port in self._listened()

    def refresh(self) -> None:
        """Look again at what listens; twice a second, because asking the sockets costs more than judging."""
        self._judged = frozenset(self._listened())

    def may_be_ours(self, port: int) -> bool:
        """`must_judge` as of half a second ago. A gateway does not begin to listen where it forwards to."""
        return port in self._judged

    def _listened(self) -> set[int]:
        store = self._limiter.address
        return self._gateways() | ({store[1]} if store is not None else set())

    def _gateways(self) -> set[int]:
        """Return the ports of the gateway itself, the admin listener's included."""
        admin = self._live_config.admin_address
        return self._own_ports() | ({admin.port} if admin is not None else set())

    async def is_forbidden(self, addresses: Sequence[str], port: int) -> bool:
        """Return whether one of them is this gateway's own, or its limit store's, under whatever name."""
        store = self._limiter.address
        if port in self._gateways() and any(map(is_local, addresses)):
            return True
        if store is None or store[1] != port:
            return False
        theirs = await resolved(self.resolver.configured(*store[:2]))
        return bool(set(theirs) & set(addresses)) or (
            any(map(is_local, theirs)) and any(map(is_local, addresses))
        )

    # -- what to dial -----------------------------------------------------------------------------------

    async def outward(self, client: Any, forward: Forward) -> Outward:
        """Return how to connect for a grant. Raises Denied("upstream") where nothing may be dialled."""
        origin = forward.origin
        addresses = self.pinned(client, origin.host, origin.port) if forward.resolve is not None else None
        if addresses is None:
            addresses = await self.configured(origin.host, origin.port)
        return await self.towards(origin, addresses, direct=forward.connection.direct)

    async def endpoint(self, origin: Origin, *, direct: bool) -> Outward:
        """Return how to connect to an origin of the configuration. Raises Denied("upstream")."""
        return await self.towards(origin, await self.configured(origin.host, origin.port), direct=direct)

    async def configured(self, host: str, port: int) -> tuple[str, ...]:
        """Return what to dial for a name of the configuration; nothing where its addresses need no check.

        Raises Denied("upstream").
        """
        if not self.must_judge(port):
            return ()
        addresses = await resolved(self.resolver.configured(host, port))
        if await self.is_forbidden(addresses, port):
            raise Denied("upstream", unreachable.OUR_OWN)
        return tuple(addresses)

    async def towards(
        self, origin: Origin, addresses: tuple[str, ...], *, direct: bool, unsigned: bool = False
    ) -> Outward:
        """Return how to connect to an origin: through the gateway's proxy, unless it is to be left out.

        Args:
            addresses: those that were judged; empty where none had to be.

        Raises Denied("upstream") if the proxy is the gateway itself.
        """
        registry = self._live_config.registry
        proxy = None
        if registry is not None and not direct:
            way_out = registry.destinations.way_out
            proxy = way_out.proxy_for(origin.scheme, origin.host, origin.port, addresses)
        if proxy is not None and self.must_judge(proxy.port):
            found = await resolved(self.resolver.configured(proxy.host, proxy.port))
            if await self.is_forbidden(found, proxy.port):
                raise Denied("upstream", "the upstream proxy is the gateway itself, or its store")
        return Outward(origin.host, origin.port, addresses, proxy, unsigned)


async def resolved(found: Awaitable[Found]) -> list[str]:
    """Return all addresses of a name. Raises Denied("upstream").

    Also where too many names are being looked up: the upstream cannot be reached now. `limited` would speak
    of a limit that the operator has set and the client may read about, `unavailable` of a gateway that is out
    of order as a whole, which balancers and alerts act on.
    """
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT):
            return [address for address, _ in await found]
    except TimeoutError:
        raise Denied("upstream", "the host did not resolve in time", status=504) from None
    except TooManyLookups:
        raise Denied("upstream", "too many names are being looked up") from None
    except OSError as error:
        said = f" ({error.strerror.lower()})" if error.strerror else ""
        raise Denied("upstream", f"the host does not resolve{said}") from None


def is_local(address: str) -> bool:
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
