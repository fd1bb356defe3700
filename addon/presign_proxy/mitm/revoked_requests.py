"""Requests under way that are ended, because what they rest on was revoked with `now`.

All kinds of exchange are found in the two tables of what is under way, that of the flow path and that of the
lane. Each is asked only when the registry has changed: a request costs nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from weakref import WeakSet

from ..config.live import LiveConfig
from ..core.under_way import CODE, WHY, Basis, is_ended
from ..observe.audit_record import Outcome
from .flow.state import FlowState, FlowStates
from .flow.stream_events import Revoked
from .lane.shared import LaneShared
from .sockets import reset, tell


class RevokedRequests:
    """Looks for revocations twice a second, and ends what they end.

    A request that leaves later than a change is decided on again, so one look after each change is enough.
    """

    def __init__(
        self,
        live_config: LiveConfig,
        states: FlowStates,
        shared: LaneShared,
        end: Callable[[FlowState, Outcome], object],
    ) -> None:
        """Args: end: writes down how a granted exchange has ended."""
        self._live_config = live_config
        self._states = states
        self._shared = shared
        self._end = end
        self._mark: object = None
        """Of the registry that was looked at last."""
        self._ending: WeakSet[FlowState] = WeakSet()
        """Those that were ended at the last look."""

    async def tick(self, _: float) -> None:
        """Look whether there is anything to end."""
        self._end_waiting()
        registry = self._live_config.registry
        if registry is None or registry.mark is self._mark:
            return
        self._mark, now = registry.mark, self._live_config.revoked_now
        if not now:
            return
        ends = partial(is_ended, registry, now)
        self._shared.end_revoked(ends)
        await self._end_flows(ends)

    async def _end_flows(self, ends: Callable[[Basis], bool]) -> None:
        states = self._states.under_way()
        found = [one for one in states if one.granted is not None and ends(one.granted.basis)]
        self._ending.update(found)
        for flow_state in found:
            if (stream := flow_state.stream) is not None:
                await tell(flow_state.client, Revoked(stream))

    def _end_waiting(self) -> None:
        """End what has not ended by itself: its stream waits for a hook of another addon."""
        for flow_state in [one for one in self._states.live() if one in self._ending]:
            self._end(flow_state, flow_state.progress.outcome(None, WHY, CODE))
            if flow_state.client.alpn != b"h2":
                reset(flow_state.client)
        self._ending.clear()
