"""A fetcher of credentials whose time is the test's, in an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from presign_proxy.core.decision import Forward
from presign_proxy.gateway.credential_fetch import Fetcher
from presign_proxy.gateway.outward import Outward
from presign_proxy.gateway.token_endpoint import HttpEndpoint
from presign_proxy.http.message import Origin


class FetchLab:
    """A fetcher with a clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.fetcher = Fetcher(lambda: self.now, HttpEndpoint(self._judge, lambda: None))  # type: ignore[arg-type, return-value]

    async def _judge(self, origin: Origin, *, direct: bool) -> Outward:
        return Outward(origin.host, origin.port)

    async def token_of(self, forward: Forward) -> str:
        """The token that a granted request is sent with."""
        found = await self.fetcher.fill(forward, lambda _: True)
        return dict(found.sent.fields)[b"Authorization"].decode().removeprefix("Bearer ")  # type: ignore[union-attr]

    async def settled(self) -> None:
        """Wait for what was begun, whatever comes of it."""
        await asyncio.gather(*[one.secret for one in self.fetcher._flights.values()], return_exceptions=True)


def at_work[L: FetchLab](make: Callable[[], L], work: Callable[[L], Awaitable[None]]) -> None:
    """Do some work with a new lab."""

    async def all_of_it() -> None:
        lab = make()
        try:
            await work(lab)
        finally:
            lab.fetcher.close()

    asyncio.run(all_of_it())
