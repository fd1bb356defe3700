"""Names are looked up here, so that one that does not answer holds up nothing but itself.

`loop.getaddrinfo` runs in the threads of the default executor (under uvloop in the four of libuv), which all
parts of a process share, and a timeout ends the wait only: the thread stays in the C library until that gives
up, often for thirty seconds. A few requests for a name whose server is silent would stop every other name.

Why threads and `getaddrinfo`, and not a resolver that speaks DNS itself (dnspython, c-ares), which needs no
thread and can be cancelled: operators expect what every other program on the machine finds. That is decided
by nsswitch.conf, comes from /etc/hosts, search domains, mDNS, LDAP, the split DNS of a container or VPN, and
is sorted by the machine's own rules (RFC 6724). A second resolver would find other addresses than curl does,
and be one more dependency that parses what strangers send. The price is a thread for each name that hangs.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from ..config.threads import Threads
from ..observe.metrics import Snapshot

RESOLVE_TIMEOUT: Final = 5.0
"""Seconds in which the name of a source has to be found."""
KEEP: Final = 2.0
"""Seconds for which an answer is used again, also that there is none. Every request judges the addresses that
it is given and dials one of those, so an answer that is kept lets no name change between the two.
"""
MAX_KEPT: Final = 1024

SOURCES: Final = 128
"""Names of sources that are looked up at a time, each in a thread."""
SOURCES_OF_CONNECTION: Final = 32
SOURCES_OF_CLIENT: Final = 16
"""Fewer than those of a connection, so that one client cannot take them all from the others."""
OTHERS: Final = 32
"""Threads for the names of the configuration, and as many for those of unsigned requests."""
MAX_WAITING: Final = 1024
"""Names that wait for one of those threads."""

Address = tuple[str, int]
Found = tuple[Address, ...]
"""Addresses as text with their port, in the order in which they should be tried; at least one."""


class TooManyLookups(OSError):
    """As many names are being looked up as may be."""


@dataclass(slots=True)
class _Flight:
    """One look-up that is under way."""

    answer: asyncio.Future[Found | OSError]
    since: float


class _Lookups:
    """Looks names up in threads of its own; a name once at a time, whoever waits for it."""

    def __init__(self, threads: int, name: str, most: int, clock: Callable[[], float]) -> None:
        """Args: most: names at a time, those that wait for a thread included."""
        self._threads = Threads(threads, name)
        self._most = most
        self._clock = clock
        self._flights: dict[Address, _Flight] = {}
        self._kept: dict[Address, tuple[float, Found | OSError]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def kept(self, name: Address) -> Found | None:
        """What was found a moment ago. Raises OSError where nothing was."""
        at, answer = self._kept.get(name, (0.0, ()))
        if not answer or self._clock() - at >= KEEP:
            return None
        return _good(answer)

    def under_way(self, name: Address) -> _Flight | None:
        return self._flights.get(name)

    def begin(self, name: Address) -> _Flight:
        """Raises OSError where that cannot be."""
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
        self._kept.pop(name, None)  # goes behind the others
        self._kept[name] = self._clock(), answer.result()

    async def find(self, name: Address) -> Found:
        """Wait for as long as it takes. Raises OSError."""
        found = self.kept(name)
        return found if found is not None else await wait_for(self.under_way(name) or self.begin(name))

    def close(self) -> None:
        for flight in self._flights.values():
            flight.answer.cancel()  # a thread would tell a loop that is closed
        self._threads.close()


async def wait_for(flight: _Flight) -> Found:
    """Raises OSError. Whoever stops waiting does not take the answer from others who wait."""
    return _good(await asyncio.shield(flight.answer))


class Resolver:
    """All look-ups of a process, in three kinds that never wait for each other: names of sources, which those
    choose who sign or ask; names of unsigned requests; and those of the configuration.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: clock: seconds, of a clock that is never set."""
        self._clock = clock
        # No more names than threads: one that waited for a thread would wait for names that hang.
        self._sources = _Lookups(SOURCES, "presign-sources", SOURCES, clock)
        self._unsigned = _Lookups(OTHERS, "presign-unsigned", MAX_WAITING, clock)
        self._configured = _Lookups(OTHERS, "presign-names", MAX_WAITING, clock)
        self._shares: Counter[tuple[str, str]] = Counter()
        self._refused = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def figures(self) -> Snapshot:
        """Of names of sources."""
        return {
            "presign_source_lookups": [[[], len(self._sources)]],
            "presign_source_lookups_refused_total": [[[], self._refused]],
        }

    async def source(self, host: str, port: int, connection: str, client: str) -> Found:
        """The addresses of a source, within RESOLVE_TIMEOUT.

        A look-up counts for the connection and the client that began it, until its thread has ended, also
        where they do not wait for it any more: a client that hung up and came again would otherwise have as
        many threads as it likes. Who waits for a name that is being looked up takes no thread.

        Raises OSError: TimeoutError, or TooManyLookups, which nothing was waited for.
        """
        if _is_address(host):
            return ((host, port),)
        name = host, port
        if (found := self._sources.kept(name)) is not None:
            return found
        flight = self._sources.under_way(name) or self._begin(name, connection, client)
        left = flight.since + RESOLVE_TIMEOUT - self._clock()
        if left <= 0:  # its thread hangs, and nobody waits for it again
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
        """The addresses of a name from the configuration. Raises OSError."""
        return await self._configured.find((host, port))

    async def unsigned(self, host: str, port: int) -> Found:
        """The addresses of a name that an unsigned request leads to. Raises OSError."""
        return await self._unsigned.find((host, port))

    def close(self) -> None:
        """End all waiting; a thread that hangs ends with the process."""
        for lookups in (self._sources, self._unsigned, self._configured):
            lookups.close()

    # -- dialling -------------------------------------------------------------------------------------

    def take_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look up here what any code on this loop connects to: the lane, mitmproxy, the client of Redis.

        They all end in `loop.create_connection`; under uvloop there is no other place, because it hands names
        to libuv itself. SNI and the check of certificates stay with the name.
        """
        if self._loop is loop:
            return
        self._loop, connect = loop, loop.create_connection

        async def look_up_and_connect(factory: Any, host: Any, port: Any, more: dict[str, Any]) -> Any:
            if not isinstance(host, str) or not isinstance(port, int) or _is_address(host):
                return await connect(factory, host, port, **more)
            if more.get("ssl") and more.get("server_hostname") is None:
                more["server_hostname"] = host
            lookups = self.unsigned if _UNSIGNED.get() == (host, port) else self.configured
            return await _first(await lookups(host, port), lambda address: connect(factory, *address, **more))

        async def create_connection(factory: Any, host: Any = None, port: Any = None, **more: Any) -> Any:
            try:
                return await look_up_and_connect(factory, host, port, more)
            except OSError:
                raise
            except Exception as error:  # of nothing but an OSError does mitmproxy hear
                raise OSError(f"failed to connect ({type(error).__name__})") from None

        loop.create_connection = create_connection  # type: ignore[method-assign,assignment]


_UNSIGNED: ContextVar[Address | None] = ContextVar("unsigned", default=None)


def mark_unsigned(host: str, port: int) -> None:
    """Say that an unsigned request has chosen the name to which this task is about to connect."""
    _UNSIGNED.set((host, port))


async def _first(found: Found, connect: Callable[[Address], Awaitable[Any]]) -> Any:
    """As asyncio does it: one after the other, until one can be connected to. Raises OSError."""
    *others, last = found
    for address in others:
        try:
            return await connect(address)
        except ssl.SSLError:
            raise  # it was reached, and is not who it should be
        except OSError:
            continue
    return await connect(last)


def _look_up(host: str, port: int) -> Found | OSError:
    """Runs in a thread. Errors are returned: nobody may be waiting any more."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return socket.gaierror(error.errno, error.strerror)
    except Exception as error:  # of what is no name at all
        return socket.gaierror(socket.EAI_FAIL, f"the name cannot be looked up ({type(error).__name__})")
    found = tuple([(str(answer[4][0]), int(answer[4][1])) for answer in answers])
    return found or socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def _good(answer: Found | OSError) -> Found:
    """Raises a new error each time: one that is raised again and again would keep the frames of all."""
    if isinstance(answer, OSError):
        raise socket.gaierror(*answer.args)
    return answer


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host  # a scope is the system's to read
