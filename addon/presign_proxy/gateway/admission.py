"""From a request to what becomes of it: the decision, and all that a grant has to wait for.

The same for every adapter, so that a flow and a bare connection are judged alike.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, Final

from ..config.live import LiveConfig
from ..core import decide
from ..core.decision import Decision, Deny, Facts, Forward, PassThrough, denial
from ..core.registry import Registry
from ..errors import Denied
from ..http.message import Request
from ..limits.limiter import Limiter
from ..limits.slots import LimitHold
from ..observe.audit_log import AuditLog
from .credential_fetch import Fetcher
from .destination import DestinationJudge
from .lifecycle import Lifecycle
from .request_id import new_request_id

ROUNDS: Final = 4
"""How often a request is decided on again because the registry has changed while it waited."""


class Admission:
    """Decides with the registry that is in force, and refuses while the gateway is not in order."""

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
        self.armed = False
        """Whether the script is there, and mitmproxy is as expected."""
        self.unsafe = False
        """Whether an option undoes what the gateway promises."""

    @property
    def registry(self) -> Registry | None:
        return self._live_config.registry

    def decide(self, request: Request, now: int | None = None) -> Decision:
        """What becomes of a request, as far as that is known at once.

        Args:
            now: Unix time, whole seconds; None for this moment.
        """
        now = int(time.time()) if now is None else now
        decision = decide.decide(self.registry, request, now, new_request_id())
        if not isinstance(decision, PassThrough):
            return self._unless_hindered(decision)
        if decision.second and (why := self.obstacle):
            return Deny("unavailable", why, "json", Facts(new_request_id(), client=request.client))
        return decision

    def decide_again(self, forward: Forward) -> Decision:
        """What becomes of a request that differs in nothing from one that was granted in the same second,
        under the same registry.
        """
        return self._unless_hindered(forward.again(new_request_id()))

    def _unless_hindered(self, decision: Deny | Forward) -> Deny | Forward:
        why = "draining" if self._lifecycle.draining else self.obstacle
        if not why and isinstance(decision, Forward):
            why = self._audit_log.obstacle  # a refusal harms nobody who could not read of it
        return Deny("unavailable", why, decision.style, decision.facts) if why else decision

    @property
    def obstacle(self) -> str:
        """Why everything of ours is refused; empty where it is decided on."""
        if not self.armed:
            return "the script is gone or broken, or mitmproxy unknown"
        return "an option is unsafe" if self.unsafe else ""

    def confirm(self, forward: Forward, request: Request) -> Forward | Deny:
        """Decide again where the registry or the second is another one than when it was granted. To be called
        in the moment in which the credential leaves, and after every wait.

        Returns the very same grant where it still holds; another one under another registry. What was taken
        on before a drain may go on.
        """
        now, registry = int(time.time()), self.registry
        mark, second = forward.judged
        same = registry is not None and registry.mark is mark
        if same and second == now:
            return forward
        again = decide.decide(registry, request, now, forward.request_id)
        if isinstance(again, PassThrough):
            return Deny("invalid", "its connection is gone", forward.style, forward.facts)
        if isinstance(again, Deny):  # of what was verified before, and by whom, is still known
            return replace(again, style=forward.style, facts=forward.facts)
        if why := self.obstacle or self._audit_log.obstacle:
            return Deny("unavailable", why, forward.style, forward.facts)
        return forward if same else again

    async def complete(
        self, forward: Forward, request: Request, client: Any, limit_hold: LimitHold
    ) -> Forward | Deny:
        """Do what a grant waits for: judge its address, count it, fetch its credential.

        Args:
            client: whose connections go to the judged address.
            limit_hold: of the exchange; it is counted once, however often it is decided on.
        """
        try:
            async with asyncio.timeout(forward.connection.conduct.connect_timeout):
                return await self._complete(forward, request, client, limit_hold)
        except TimeoutError:
            why = "its address, limits or credential were not there in time"
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
                    forward = await self._fetcher.fill(forward)
            except Denied as denied:
                return denial(denied, forward.style, forward.facts)
            confirmed = self.confirm(forward, request)
            if confirmed is forward or isinstance(confirmed, Deny):
                return confirmed
            forward = confirmed
        return restless(forward)


def restless(forward: Forward) -> Deny:
    """The refusal of what would have to be decided on again and again."""
    return Deny("unavailable", "the configuration changes all the time", forward.style, forward.facts)
