"""Admission of a request: the decision, and everything that a grant has to wait for.

All adapters use it, so that the flow path and the lane treat a request in the same way.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import Any, Final

from ..config.live import LiveConfig
from ..core import decide
from ..core.decision import Decision, Deny, Facts, Forward, PassThrough, Preflight, denial
from ..core.registry import Registry
from ..errors import Denied
from ..http.message import Request
from ..limits.limiter import Limiter
from ..limits.slots import LimitHold
from ..observe.audit_log import AuditLog
from ..signing.secret import LateSecret
from .credential_fetch import Fetcher
from .destination import DestinationJudge
from .held_bodies import HeldBodies
from .lifecycle import Lifecycle
from .request_id import new_request_id
from .token_endpoint import Unwanted

ROUNDS: Final = 4
"""How often a request is decided again because the registry has changed while it waited."""


class Admission:
    """Decides with the registry in force, and refuses everything while the gateway is not in order."""

    def __init__(
        self,
        live_config: LiveConfig,
        destinations: DestinationJudge,
        limiter: Limiter,
        fetcher: Fetcher,
        audit_log: AuditLog,
        lifecycle: Lifecycle,
    ) -> None:
        self._live_config = live_config
        self._audit_log = audit_log
        self._destinations = destinations
        self._limiter = limiter
        self._fetcher = fetcher
        self._lifecycle = lifecycle
        self.held_bodies = HeldBodies()
        self.armed = False
        """True while the presign script is loaded and mitmproxy has passed the self-test."""
        self.unsafe = False
        """True while an option of mitmproxy breaks a promise of the gateway."""

    @property
    def registry(self) -> Registry | None:
        return self._live_config.registry

    def decide(self, request: Request, now: int | None = None) -> Decision:
        """Decide a request, without anything that it has to wait for.

        Args:
            now: Unix time, whole seconds; None for the current time.
        """
        now = int(time.time()) if now is None else now
        decision = decide.decide(self.registry, request, now, new_request_id())
        if isinstance(decision, Deny | Forward):
            return self._unless_hindered(decision)
        if (isinstance(decision, Preflight) or decision.second) and (why := self.obstacle):
            return Deny("unavailable", why, "json", Facts(new_request_id(), client=request.client))
        return decision

    def decide_again(self, forward: Forward) -> Decision:
        """Decide a request with the same bytes as one granted in the same second under the same registry."""
        return self._unless_hindered(forward.again(new_request_id()))

    def _unless_hindered(self, decision: Deny | Forward) -> Deny | Forward:
        why = "draining" if self._lifecycle.draining else self.obstacle
        if not why and isinstance(decision, Forward):
            why = self._audit_log.obstacle  # a refusal does no harm if it is not recorded
        return Deny("unavailable", why, decision.style, decision.facts) if why else decision

    @property
    def obstacle(self) -> str:
        """The reason why every presigned request is refused; empty while requests are decided."""
        if not self.armed:
            return "the presign script is not loaded, or mitmproxy has failed the self-test"
        return "an option is unsafe" if self.unsafe else ""

    def confirm(self, forward: Forward, request: Request) -> Forward | Deny:
        """Decide again if the registry or the second has changed since the grant.

        Call this at the moment when the credential is sent, and after every wait. Return the same object if
        the grant still holds, and a new grant under a new registry. A request that was admitted before a
        drain may go on.
        """
        now, registry = int(time.time()), self.registry
        mark, second = forward.judged
        same = registry is not None and registry.mark is mark
        if same and second == now:
            return forward
        again = decide.decide(registry, request, now, forward.request_id)
        if isinstance(again, PassThrough | Preflight):
            return Deny("invalid", "its connection is gone", forward.style, forward.facts)
        if isinstance(again, Deny):  # the record keeps what was verified before
            return replace(again, style=forward.style, facts=forward.facts)
        if why := self.obstacle or self._audit_log.obstacle:
            return Deny("unavailable", why, forward.style, forward.facts)
        return forward if same else again

    async def complete(
        self, forward: Forward, request: Request, client: Any, limit_hold: LimitHold, until: float
    ) -> Forward | Deny:
        """Do what a grant waits for: check its address, count it, fetch its credential.

        Args:
            client: whose connections go to the judged address.
            limit_hold: of the exchange; it is counted once, however often it is decided on.
            until: when the wait ends, of `time.monotonic`.
        """
        try:
            async with asyncio.timeout(until - time.monotonic()):
                return await self._complete(forward, request, client, limit_hold)
        except TimeoutError:
            why = "its address, limits or credential were not available in time"
            return Deny("upstream", why, forward.style, forward.facts, status=504)

    async def _complete(
        self, forward: Forward, request: Request, client: Any, limit_hold: LimitHold
    ) -> Forward | Deny:
        for _ in range(ROUNDS):
            try:
                await self._destinations.pin(client, forward)
                if not limit_hold.counted:
                    limit_hold.hold(await self._limiter.admit(forward))
                if forward.sent is None:
                    forward = await self._fetcher.fill(forward, partial(self._needs, forward, request))
            except Unwanted:
                pass  # it is decided again
            except Denied as denied:
                return denial(denied, forward.style, forward.facts)
            confirmed = self.confirm(forward, request)
            if isinstance(confirmed, Deny) or (confirmed is forward and forward.sent is not None):
                return confirmed
            forward = confirmed
        return restless(forward)

    def _needs(self, forward: Forward, request: Request, late: LateSecret) -> bool:
        """Return whether a request is still granted in this moment, with a credential that needs this."""
        confirmed = self.confirm(forward, request)
        return isinstance(confirmed, Forward) and any(
            one.key == late.key for one in confirmed.connection.late
        )

    def answered(self, forward: Forward, status: int) -> None:
        """Note the status of an upstream's answer: 401 says that a token has ended before its time."""
        if status == 401 and forward.connection.late:
            self._fetcher.rejected(forward)


def restless(forward: Forward) -> Deny:
    """Refuse a request that would have to be decided again and again."""
    return Deny("unavailable", "the configuration changes all the time", forward.style, forward.facts)
