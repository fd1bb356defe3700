"""Credentials printed by programs, fetched when a granted request first needs them."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..config.secret_commands import end_all
from ..config.secret_sources import SecretError, name_of, resolve
from ..config.values import SecretSource
from ..core.decision import Forward
from ..errors import Denied
from ..signing.secret import LateSecret, Secret

logger = logging.getLogger(__name__)

MAX_BACKOFF: Final = 60.0
"""The most seconds between attempts; the first wait is one second."""
_AT_ONCE: Final = 8
"""Most programs in their first `_PROMPT` seconds: many starts at once would slow down the machine."""
_PROMPT: Final = 0.5
_THREADS: Final = 128
"""Most programs that run at a time. Those that hang must not keep the others from being started."""

Argv = tuple[str, ...]


@dataclass(slots=True)
class _Kept:
    """The state of one program: its last secret, or how often it has failed, and when last."""

    secret: Secret | None = None
    at: float = 0.0
    failures: int = 0

    def wait_left(self, now: float) -> float:
        # The exponent is bounded first: 2.0**1024 overflows, after a night of failures.
        return self.at + min(2.0 ** min(self.failures - 1, 16), MAX_BACKOFF) - now if self.failures else 0.0


class Fetcher:
    """Runs each program once at a time for all requests that wait, and keeps its output for its `ttl`.

    Programs run in threads of their own: one that hangs must not delay name look-ups and reloads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Argv, _Kept] = {}
        self._flights: dict[Argv, asyncio.Future[Secret]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="presign-exec")
        self._starts = asyncio.Semaphore(_AT_ONCE)
        self._base = Path()

    def forget(self, base: Path) -> None:
        """Forget all secrets after a reload: the reason for it may be a changed secret.

        Args:
            base: the directory that programs run in.
        """
        # Programs that are still running were started before; they fill only the dictionaries dropped here.
        self._kept, self._flights = {}, {}
        self._base = base

    def close(self) -> None:
        """Kill the running programs: the process is about to end, and would wait for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        end_all()

    async def fill(self, forward: Forward) -> Forward:
        """Return the same grant with its credential. Raises Denied("upstream")."""
        found: dict[Argv, Secret] = {}
        for late in forward.connection.late:
            if late.argv not in found:
                found[late.argv] = await self._get(late)
        return forward.filled(lambda secret: found[secret.argv] if isinstance(secret, LateSecret) else secret)

    async def _get(self, late: LateSecret) -> Secret:
        now = self._clock()
        kept = self._kept.get(late.argv)
        if kept is not None:
            if kept.secret is not None and now - kept.at < late.ttl:
                return kept.secret
            if kept.wait_left(now) > 0:
                raise Denied("upstream", f"{_name(late)} failed and is not run again yet")
        flight = self._flights.get(late.argv)
        if flight is None:
            flight = asyncio.ensure_future(self._fly(late))
            flights = self._flights
            flights[late.argv] = flight
            flight.add_done_callback(lambda _: flights.pop(late.argv, None))
            # All waiting clients may have left. Then no code takes the exception, which `_fly` has logged.
            flight.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        # A client that leaves must not cancel what others wait for.
        return await asyncio.shield(flight)

    async def _fly(self, late: LateSecret) -> Secret:
        source, kept = SecretSource(exec=late.argv), self._kept
        before = kept.get(late.argv)
        failures = before.failures if before else 0
        try:
            secret = await self._run(source)
        except Exception as error:
            why = (
                str(error) if isinstance(error, SecretError) else f"{name_of(source)}: {type(error).__name__}"
            )
            kept[late.argv] = _Kept(at=self._clock(), failures=failures + 1)
            if not failures:
                logger.error("presign: requests of its connections are answered 502: %s", why)
            raise Denied("upstream", why) from None
        if failures:
            logger.warning("presign: %s works again", name_of(source))
        kept[late.argv] = _Kept(secret, self._clock())
        return secret

    async def _run(self, source: SecretSource) -> Secret:
        """Run a program. While it takes its time, others are started. Raises SecretError."""
        async with self._starts:
            work = asyncio.get_running_loop().run_in_executor(
                self._threads, resolve, source, self._base, os.environ
            )
            await asyncio.wait({work}, timeout=_PROMPT)
        return await work


def _name(late: LateSecret) -> str:
    return name_of(SecretSource(exec=late.argv))
