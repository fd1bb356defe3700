"""Credentials that programs print or token endpoints issue, fetched when a granted request needs them."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from ..config.secret_commands import end_all
from ..config.secret_sources import SecretError, name_of, resolve
from ..config.values import SecretSource
from ..core.credentials import filling
from ..core.decision import Forward
from ..core.oauth2 import EARLY, MintedSecret
from ..core.token_answer import ScopeRefused
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

MAX_SCOPES: Final = 256
"""Most tokens of one registry that are kept: a holder may ask for any number of repositories."""
_DOUBT: Final = 8
"""How many presigns have to fail in a row until a registry's token service counts as down for all others."""
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
    refused: Denied | None = None
    """What a registry's token service has refused for this scope, since its last success."""
    blamed: dict[str, _Kept] = field(default_factory=dict)
    """Of a registry: the pauses of the presigns whose requests the token service has failed to answer.

    `failures` counts those that have joined since the last success.
    """

    def waits(self, now: float, doubt: int = 1) -> bool:
        """Return whether it has to wait: after that many failures a second, and twice as long after each."""
        # The exponent is bounded first: 2.0**1024 overflows, after a night of failures.
        pause = min(2.0 ** min(self.failures - doubt, 16), MAX_BACKOFF)
        return self.failures >= doubt and self.at + pause > now

    def fail(self, now: float) -> None:
        self.failures += 1
        self.at = now

    def blame(self, presigns: Iterable[str], now: float) -> None:
        """Note that a registry's token service has failed. A holder may cause that, by an odd name."""
        for presign in presigns:
            if presign not in self.blamed:
                self.fail(now)
                if len(self.blamed) >= MAX_SCOPES:
                    del self.blamed[next(iter(self.blamed))]
            self.blamed.setdefault(presign, _Kept()).fail(now)

    def holds_back(self, presigns: Iterable[str], now: float) -> bool:
        """Return whether requests with these presigns may not ask the token service of a registry now."""
        own = [self.blamed.get(presign) for presign in presigns]
        return self.waits(now, _DOUBT) or all(one is not None and one.waits(now) for one in own)


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
        self._scopes: dict[Key, dict[Key, None]] = {}
        """The keys in `_kept` of each registry, the one that was used last at the end."""
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
        self._kept, self._scopes, self._flights = {}, {}, {}
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
        kept, family = self._kept.get(late.key), self._kept.get(late.family)
        waits = kept is not None and kept.waits(now)
        if family is not None and family is not kept:
            waits = waits or family.holds_back(needed, now)
        if kept is not None and kept.secret is not None and now < kept.until:
            self._note_use(late)
            if now >= kept.due and not waits:
                self._flight(late, needed)  # what is still valid serves meanwhile, also if this fails
            return kept.secret
        if waits:
            why, refused = f"{_name(late)} failed and is not asked again yet", kept.refused if kept else None
            if refused is not None:
                raise Denied("upstream", why, refused.status, sentence=refused.sentence)
            raise Denied("upstream", why)
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

    def _note_use(self, late: LateSecret) -> None:
        """Note that a token of a registry is used, and forget the one that was not used for longest."""
        if late.family == late.key:
            return
        scopes = self._scopes.setdefault(late.family, {})
        scopes.pop(late.key, None)
        scopes[late.key] = None
        if len(scopes) > MAX_SCOPES:
            oldest = next(iter(scopes))
            del scopes[oldest]
            self._kept.pop(oldest, None)

    async def _fly(self, late: LateSecret, needed: dict[str, Needs]) -> Secret:
        kept, began = self._kept.setdefault(late.key, _Kept()), self._clock()
        family = self._kept.setdefault(late.family, _Kept())
        self._note_use(late)
        try:
            secret, lifetime, early = await self._fetch(late, needed)
        except Unwanted:
            raise  # nothing was sent, so nothing has failed
        except Exception as error:
            # What is refused to one request says nothing of those for other repositories.
            failed, denied = family, _denied(late, error)
            if isinstance(error, ScopeRefused):
                failed, kept.refused = kept, denied
            # An account that lacks a right is no fault of the gateway's: the audit log has it.
            if not failed.failures and denied.status != ScopeRefused.NO_ACCESS:
                logger.error("presign: requests of its connections are answered 502: %s", denied.detail)
            if failed is kept:
                failed.fail(self._clock())
            else:
                failed.blame(needed, self._clock())
            raise denied from None
        if kept.failures or family.failures:
            logger.warning("presign: %s works again", _name(late))
        # A token ends after its time from when it was issued. That was not before it was asked for.
        at = began if isinstance(late, MintedSecret) else self._clock()
        kept.secret, kept.refused, kept.failures, family.failures = secret, None, 0, 0
        for presign in needed:
            family.blamed.pop(presign, None)
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


def _denied(late: LateSecret, error: Exception) -> Denied:
    """Return the refusal if a secret could not be fetched, without any text of others."""
    if isinstance(error, Denied):
        why = f"{_name(late)}: {error.detail}"
        return Denied("upstream", why, status=error.status, sentence=error.sentence)
    if isinstance(error, SecretError):
        return Denied("upstream", str(error))
    return Denied("upstream", f"{_name(late)}: {type(error).__name__}")
