"""Name look-ups, arranged so that a name whose server does not answer delays only itself.

`loop.getaddrinfo` runs in the threads of the default executor (under uvloop in the four of libuv), which all
parts of a process share. A timeout ends only the wait: the thread stays in the C library until that gives up,
often for thirty seconds. A few requests for a name whose server is silent would stop every other look-up.

Why threads and `getaddrinfo`? A resolver that speaks DNS itself (dnspython, c-ares) needs no thread and can
be cancelled. But operators expect the addresses that every other program on the machine finds. Those are
decided by nsswitch.conf, come from /etc/hosts, search domains, mDNS, LDAP, the split DNS of a container or
VPN, and are sorted by the machine's own rules (RFC 6724). A second resolver would find other addresses than
curl does, and would be one more dependency that parses data from strangers. The price is a thread for each
name that hangs.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from ..config.threads import Threads
from ..observe.metrics import Snapshot
from .address_race import Address, connected
from .outward import Outward, announced, through

RESOLVE_TIMEOUT: Final = 5.0
"""Seconds within which the name of a source must be found."""
KEEP: Final = 2.0
"""Seconds for which an answer is reused, also the answer that the name does not exist. This is safe: every
request checks the addresses that it gets and dials one of those, so no name can change between the two.
"""
MAX_KEPT: Final = 1024

SOURCES: Final = 128
"""The most names of sources that are looked up at a time, each in a thread."""
SOURCES_OF_CONNECTION: Final = 32
SOURCES_OF_CLIENT: Final = 16
"""Fewer than for a connection, so that one client cannot take all of its look-ups from the others."""
OTHERS: Final = 32
"""Threads for the names of the configuration, and as many again for the names of unsigned requests."""
MAX_WAITING: Final = 1024
"""The most names that wait for one of those threads."""

Found = tuple[Address, ...]
"""Addresses as text, each with its port, in the order in which to try them; at least one."""


class TooManyLookups(OSError):
    """Raised if the most allowed names are being looked up already."""


@dataclass(slots=True)
class _Flight:
    """One look-up that is under way."""

    answer: asyncio.Future[Found | OSError]
    since: float


class _Lookups:
    """Looks names up in threads of its own. All requests for the same name share one look-up."""

    def __init__(self, threads: int, name: str, most: int, clock: Callable[[], float]) -> None:
        """Args: most: the most names at a time, including those that wait for a thread."""
        self._threads = Threads(threads, name)
        self._most = most
        self._clock = clock
        self._flights: dict[Address, _Flight] = {}
        self._kept: dict[Address, tuple[float, Found | OSError]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def kept(self, name: Address) -> Found | None:
        """Return a recent answer; None if there is none. Raises OSError if the answer was an error."""
        at, answer = self._kept.get(name, (0.0, ()))
        if not answer or self._clock() - at >= KEEP:
            return None
        return _good(answer)

    def under_way(self, name: Address) -> _Flight | None:
        return self._flights.get(name)

    def begin(self, name: Address) -> _Flight:
        """Start a look-up. Raises OSError if there are too many, or no thread can be started."""
        if len(self._flights) >= self._most:
            raise TooManyLookups("too many names are being looked up")
        try:
            answer = asyncio.wrap_future(self._threads.run(_look_up, *name))
        except RuntimeError:
            raise OSError("no thread can be started to look the name up") from None
        flight = self._flights[name] = _Flight(answer, self._clock())
        answer.add_done_callback(lambda _: self._end(name, answer))
        return flight

    def _end(self, name: Address, answer: asyncio.Future[Found | OSError]) -> None:
        self._flights.pop(name, None)
        if answer.cancelled():
            return
        if len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept.pop(name, None)  # so that the new entry is the last, and is dropped last
        self._kept[name] = self._clock(), answer.result()

    async def find(self, name: Address) -> Found:
        """Look a name up, for as long as it takes. Raises OSError."""
        found = self.kept(name)
        return found if found is not None else await wait_for(self.under_way(name) or self.begin(name))

    def close(self) -> None:
        for flight in self._flights.values():
            flight.answer.cancel()  # or its thread would call a loop that is closed
        self._threads.close()


async def wait_for(flight: _Flight) -> Found:
    """Wait for a look-up. Raises OSError. Cancelling this does not cancel the look-up for other waiters."""
    return _good(await asyncio.shield(flight.answer))


class Resolver:
    """All look-ups of a process.

    There are three kinds, which never wait for each other: names of sources, which signers or clients choose,
    names of unsigned requests, and names of the configuration.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: clock: returns seconds of a monotonic clock."""
        self._clock = clock
        # No more names than threads: a name that waits for a thread would wait for names that hang.
        self._sources = _Lookups(SOURCES, "presign-sources", SOURCES, clock)
        self._unsigned = _Lookups(OTHERS, "presign-unsigned", MAX_WAITING, clock)
        self._configured = _Lookups(OTHERS, "presign-names", MAX_WAITING, clock)
        self._shares: Counter[tuple[str, str]] = Counter()
        self._refused = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def figures(self) -> Snapshot:
        """Return the figures of the look-ups of sources."""
        return {
            "presign_source_lookups": [[[], len(self._sources)]],
            "presign_source_lookups_refused_total": [[[], self._refused]],
        }

    async def source(self, host: str, port: int, connection: str, client: str) -> Found:
        """Return the addresses of a source, within RESOLVE_TIMEOUT.

        A look-up counts for the connection and the client that began it until its thread has ended, even if
        they stop waiting. Otherwise a client that hangs up and comes again could take any number of threads.
        A request that joins a running look-up takes no thread.

        Raises OSError, among them TimeoutError, and TooManyLookups, which is raised at once.
        """
        if _is_address(host):
            return ((host, port),)
        name = host, port
        if (found := self._sources.kept(name)) is not None:
            return found
        flight = self._sources.under_way(name) or self._begin(name, connection, client)
        left = flight.since + RESOLVE_TIMEOUT - self._clock()
        if left <= 0:  # its thread hangs, so no further request waits for it
            raise TimeoutError("the name was not found in time")
        async with asyncio.timeout(left):
            return await wait_for(flight)

    def _begin(self, name: Address, connection: str, client: str) -> _Flight:
        shares = {("connection", connection): SOURCES_OF_CONNECTION, ("client", client): SOURCES_OF_CLIENT}
        try:
            if any(self._shares[owner] >= most for owner, most in shares.items()):
                raise TooManyLookups("too many names are being looked up for this connection or client")
            flight = self._sources.begin(name)
        except TooManyLookups:
            self._refused += 1
            raise
        self._shares.update(list(shares))
        flight.answer.add_done_callback(lambda _: self._give_back(list(shares)))
        return flight

    def _give_back(self, owners: list[tuple[str, str]]) -> None:
        for owner in owners:
            self._shares[owner] -= 1
            if not self._shares[owner]:
                del self._shares[owner]

    async def configured(self, host: str, port: int) -> Found:
        """Return the addresses of a name from the configuration. Raises OSError."""
        if _is_address(host):
            return ((host, port),)
        return await self._configured.find((host, port))

    async def unsigned(self, host: str, port: int) -> Found:
        """Return the addresses of a name that an unsigned request has chosen. Raises OSError."""
        return await self._unsigned.find((host, port))

    def close(self) -> None:
        """Cancel all waiting. A thread that hangs ends with the process."""
        for lookups in (self._sources, self._unsigned, self._configured):
            lookups.close()

    # -- dialling -------------------------------------------------------------------------------------

    def take_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make all code on this loop look names up here: the lane, mitmproxy, the Redis client.

        They all call `loop.create_connection`. Under uvloop there is no other place, because it gives names
        to libuv itself. SNI and certificate checks still use the name.
        """
        if self._loop is loop:
            return
        self._loop, connect = loop, loop.create_connection

        async def look_up_and_connect(factory: Any, host: Any, port: Any, more: dict[str, Any]) -> Any:
            if not isinstance(host, str) or not isinstance(port, int):
                return await connect(factory, host, port, **more)
            outward = announced(host, port)
            if outward.proxy is None and not outward.addresses and _is_address(host):
                return await connect(factory, host, port, **more)
            if more.get("ssl") and more.get("server_hostname") is None:
                more["server_hostname"] = host
            return await self._open(outward, connect, factory, more)

        async def create_connection(factory: Any, host: Any = None, port: Any = None, **more: Any) -> Any:
            try:
                return await look_up_and_connect(factory, host, port, more)
            except OSError:
                raise
            except Exception as error:  # mitmproxy handles no error but OSError
                raise OSError(f"failed to connect ({type(error).__name__})") from None

        loop.create_connection = create_connection  # type: ignore[method-assign,assignment]

    async def _open(self, outward: Outward, connect: Any, factory: Any, more: dict[str, Any]) -> Any:
        """Connect as was announced. TLS begins on the first address that answers, and on no other."""
        host, port = outward[:2]
        if outward.proxy is not None:
            link = await through(outward.proxy, outward, self.configured)
        else:
            lookups = self.unsigned if outward.unsigned else self.configured
            found = tuple([(one, port) for one in outward.addresses]) or await lookups(host, port)
            if len(found) == 1:
                return await connect(factory, *found[0], **more)
            link = await connected(found, more.get("local_addr"))
        more.pop("local_addr", None)
        try:
            return await connect(factory, sock=link, **more)
        except BaseException:
            link.close()
            raise


def _look_up(host: str, port: int) -> Found | OSError:
    """Look a name up, in a thread. Return errors instead of raising: perhaps no caller waits any more."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return socket.gaierror(error.errno, error.strerror)
    except Exception as error:  # for text that is not a name at all
        return socket.gaierror(socket.EAI_FAIL, f"the name cannot be looked up ({type(error).__name__})")
    found = tuple([(str(answer[4][0]), int(answer[4][1])) for answer in answers])
    return found or socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def _good(answer: Found | OSError) -> Found:
    """Return the answer, or raise a copy of its error: one raised again and again keeps all its frames."""
    if isinstance(answer, OSError):
        raise socket.gaierror(*answer.args)
    return answer


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host  # the system has to interpret a scope
