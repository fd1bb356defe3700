"""Bodies that are read whole before anything is sent, although their request is not granted any more.

A request is decided on again as it leaves. One whose body never ends never leaves: it would keep memory and a
slot for as long as its client pleases, also after its URL has expired.
"""

from __future__ import annotations

from ..core.decision import Deny
from ..errors import Denied
from ..gateway.admission import Admission
from .flow.state import FlowState, FlowStates
from .flow.stream_events import Lapsed
from .lane.shared import LaneShared
from .sockets import tell


class LapsedUploads:
    """Looks twice a second whether what is being read is still granted, and refuses what is not."""

    def __init__(self, admission: Admission, states: FlowStates, shared: LaneShared) -> None:
        self._admission = admission
        self._states = states
        self._shared = shared

    async def tick(self, _: float) -> None:
        """Refuse what has expired, or was revoked, while its body is read."""
        for exchange in [one for one in self._shared.exchanges if one.stage == "reading"]:
            try:
                decided = self._admission.confirm(exchange.granted.forward, exchange.granted.request)
                if isinstance(decided, Deny):
                    exchange.deny(decided)
            except Exception as error:
                exchange.collapse(error)
        for flow_state in [one for one in self._states.uploads() if one.progress.stage == "reading"]:
            await self._look_at(flow_state)

    async def _look_at(self, flow_state: FlowState) -> None:
        stream, grant, request = flow_state.stream, flow_state.grant, flow_state.request
        if stream is None or grant is None or request is None:
            return
        decided = self._admission.confirm(grant, request)
        if isinstance(decided, Deny):
            why = Denied(decided.code, decided.detail, decided.status)
            await tell(flow_state.client, Lapsed(stream, why))
