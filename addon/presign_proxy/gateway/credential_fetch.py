"""Credentials that programs print or token endpoints issue, fetched when a granted request needs them."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ..config.secret_commands import end_all
from ..config.secret_sources import SecretError, name_of, resolve
from ..config.values import SecretSource
from ..core.credentials import filling
from ..core.decision import Forward
from ..core.oauth2 import EARLY, MintedSecret
from ..errors import Denied
from ..signing.secret import LateSecret, Secret
from .token_endpoint import Endpoint, Unwanted
from .token_mint import Mint

logger = logging.getLogger(__name__)

MAX_BACKOFF: Final = 60.0
"""The most seconds between attempts; the first wait is one second."""
_AT_ONCE: Final = 8
"""Most programs in their first `_PROMPT` seconds: many starts at once would slow down the machine."""
_PROMPT: Final = 0.5
_THREADS: Final = 128
"""Most programs that run at a time. Those that hang must not keep the others from being started."""

_AFTER_401: Final = 30.0
"""Seconds for which further answers 401 do not make a token be fetched again: a client may cause them."""

Key = tuple[str, ...]
Needs = Callable[[LateSecret], bool]
"""Returns whether a request needs a secret: it is granted in this very moment, with that secret."""


@dataclass(slots=True)
class _Kept:
    """The state of one secret: its last value, or how often it could not be fetched, and when last.

    `until`: when it ends. `due`: from when on it is fetched again, and used until that has succeeded.
    `rejected`: when an upstream has last answered 401 to it. All of a monotonic clock.
    """

    secret: Secret | None = None
    until: float = 0.0
    due: float = 0.0
    at: float = 0.0
    failures: int = 0
    rejected: float = -math.inf

    def wait_left(self, now: float) -> float:
        # The exponent is bounded first: 2.0**1024 overflows, after a night of failures.
        return self.at + min(2.0 ** min(self.failures - 1, 16), MAX_BACKOFF) - now if self.failures else 0.0


@dataclass(slots=True)
class _Flight:
    """A fetch that is under way, and the requests for which it is made, by their presign."""

    secret: asyncio.Future[Secret]
    needed: dict[str, Needs]


class Fetcher:
    """Fetches each secret once at a time for all requests that wait, and keeps it for as long as it is valid.

    Programs run in threads of their own: one that hangs must not delay name look-ups and reloads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, endpoint: Endpoint | None = None) -> None:
        """Args: endpoint: sends requests to token endpoints; None if there are none."""
        self._clock = clock
        self._kept: dict[Key, _Kept] = {}
        self._flights: dict[Key, _Flight] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="presign-exec")
        self._starts = asyncio.Semaphore(_AT_ONCE)
        self._base = Path()
        self._mint = Mint(endpoint, self._threads) if endpoint is not None else None

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

    async def fill(self, forward: Forward, needs: Needs) -> Forward:
        """Return the same grant with its credential.

        Args:
            needs: is asked when the secrets of an OAuth client are about to leave.

        Raises Denied("upstream"), and Unwanted where those were not sent: no request that waited for the
        token is granted any more.
        """
        found: dict[Key, Secret] = {}
        needed = {forward.facts.signature or forward.request_id: needs}
        for late in forward.connection.late:
            if late.key not in found:
                found[late.key] = await self._get(late, needed)
        return forward.filled(filling(found))

    def rejected(self, forward: Forward) -> None:
        """Note that an upstream has answered 401: a token that was revoked is fetched anew next time.

        The request itself is not sent again, because its body is gone.
        """
        now, sent = self._clock(), forward.connection.injector.secrets()
        for late in forward.connection.late:
            kept = self._kept.get(late.key)
            if kept is None or kept.secret not in sent or not isinstance(late, MintedSecret):
                continue
            if now - kept.rejected >= _AFTER_401:
                kept.secret, kept.rejected = None, now

    async def _get(self, late: LateSecret, needed: dict[str, Needs]) -> Secret:
        now = self._clock()
        kept = self._kept.get(late.key)
        if kept is not None:
            waits = kept.wait_left(now) > 0
            if kept.secret is not None and now < kept.until:
                if now >= kept.due and not waits:
                    self._flight(late, needed)  # what is still valid serves meanwhile, also if this fails
                return kept.secret
            if waits:
                raise Denied("upstream", f"{_name(late)} failed and is not asked again yet")
        # A client that leaves must not cancel what others wait for.
        return await asyncio.shield(self._flight(late, needed))

    def _flight(self, late: LateSecret, needed: dict[str, Needs]) -> asyncio.Future[Secret]:
        """Return the fetch that is under way, now also for this request; begin one if there is none."""
        flight = self._flights.get(late.key)
        if flight is not None:
            flight.needed.update(needed)
            return flight.secret
        all_needed = dict(needed)
        secret = asyncio.ensure_future(self._fly(late, all_needed))
        flights = self._flights
        flights[late.key] = _Flight(secret, all_needed)
        secret.add_done_callback(lambda _: flights.pop(late.key, None))
        # All waiting clients may have left. Then no code takes the exception, which `_fly` has logged.
        secret.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return secret

    async def _fly(self, late: LateSecret, needed: dict[str, Needs]) -> Secret:
        kept, began = self._kept.setdefault(late.key, _Kept()), self._clock()
        try:
            secret, lifetime, early = await self._fetch(late, needed)
        except Unwanted:
            raise  # nothing was sent, so nothing has failed
        except Exception as error:
            why, status = _why(late, error)
            if not kept.failures:
                logger.error("presign: requests of its connections are answered 502: %s", why)
            kept.failures += 1
            kept.at = self._clock()
            raise Denied("upstream", why, status=status) from None
        if kept.failures:
            logger.warning("presign: %s works again", _name(late))
        # A token ends after its time from when it was issued. That was not before it was asked for.
        at = began if isinstance(late, MintedSecret) else self._clock()
        kept.secret, kept.failures = secret, 0
        kept.until, kept.due = at + lifetime, at + lifetime - early
        return secret

    async def _fetch(self, late: LateSecret, needed: dict[str, Needs]) -> tuple[Secret, float, float]:
        """Return a secret, for how many seconds it is valid, and how long before its end it is renewed."""
        if not isinstance(late, MintedSecret):
            return await self._run(late), late.ttl, 0.0
        if self._mint is None:
            raise Denied("upstream", "there are no token endpoints")
        issued = await self._mint.token(
            late,
            lambda program: self._get(program, needed),
            lambda: any(needs(late) for needs in list(needed.values())),
        )
        return issued.token, issued.lifetime, min(EARLY, issued.lifetime / 2)

    async def _run(self, late: LateSecret) -> Secret:
        """Run a program. While it takes its time, others are started. Raises SecretError."""
        work_of = partial(resolve, SecretSource(exec=late.argv), self._base, os.environ, lines=late.lines)
        async with self._starts:
            work = asyncio.get_running_loop().run_in_executor(self._threads, work_of)
            await asyncio.wait({work}, timeout=_PROMPT)
        return await work


def _name(late: LateSecret) -> str:
    if isinstance(late, MintedSecret):
        return f"the token endpoint at {late.request.origin}"
    return name_of(SecretSource(exec=late.argv))


def _why(late: LateSecret, error: Exception) -> tuple[str, int | None]:
    """Return why a secret could not be fetched, without any text of others, and the status to answer with."""
    if isinstance(error, Denied):
        return f"{_name(late)}: {error.detail}", error.status
    if isinstance(error, SecretError):
        return str(error), None
    return f"{_name(late)}: {type(error).__name__}", None
