"""How far one exchange has come, and why it came no further."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Literal

from mitmproxy.connection import Server

from ...core.links import Led
from ...core.response_body import Body
from ...errors import Denied
from ...observe.audit_record import Outcome
from .upload_progress import Upload

Stage = Literal["deciding", "preparing", "reading", "connecting", "sending", "waiting", "receiving", "done"]


class UpstreamResponse:
    """The upstream's response to a granted request, as far as it has come."""

    __slots__ = ("body", "duration", "is_complete", "links", "status", "until")

    def __init__(self) -> None:
        self.status: int | None = None
        self.duration: float | None = None
        """Seconds from the request to the head of the response."""
        self.body: Body | None = None
        self.links: tuple[Led, ...] = ()
        """Values of the head that the flow does not show as the client gets them."""
        self.is_complete = False
        """True if it has come in full."""
        self.until = 0.0
        """When the WebSocket that it began ends, on the monotonic clock; 0 where it is none."""

    def set_until(self, until: float) -> None:
        """Set when the WebSocket ends."""
        self.until = until

    def begin(self, body: Body, links: tuple[Led, ...]) -> None:
        """Note what the head says: how the body is read, and which links the client gets."""
        self.body, self.links = body, links

    def take_links(self) -> tuple[Led, ...]:
        """Return the links that the client gets, and keep them no longer."""
        links, self.links = self.links, ()
        return links

    def end(self) -> None:
        """Note that the response has come in full."""
        self.is_complete = True


class Progress:
    """The part of an exchange that changes while it goes on."""

    __slots__ = (
        "_task",
        "failed",
        "left",
        "response",
        "server",
        "since",
        "stage",
        "started",
        "timed_out",
        "upload",
        "why",
        "withdrawn",
    )

    def __init__(self) -> None:
        self.started = self.since = time.monotonic()
        self.stage: Stage = "deciding"
        self.server: Server | None = None
        """The upstream connection that the request was sent on."""
        self.upload = Upload()
        self.response = UpstreamResponse()
        self.timed_out = False
        self.left = False
        """True if the client wants no answer any more: it has gone, or has reset its stream."""
        self.withdrawn: Denied | None = None
        """Why what was granted was refused after all, on its way."""
        self.failed: str | None = None
        """The code of the answer that took the place of the upstream's, once it was granted."""
        self.why: str | None = None
        """The exact reason, where there is more to say than the code does."""
        self._task: asyncio.Task[Any] | None = None
        """Waits for what it takes to decide."""

    # -- on the way -----------------------------------------------------------------------------------

    def enter(self, stage: Stage) -> None:
        """Begin the next stage, and with it its deadline.

        The deadline of connecting runs from the beginning of what the grant waited for: `timeouts.connect`
        bounds both together.
        """
        if (self.stage, stage) != ("preparing", "connecting"):
            self.since = time.monotonic()
        self.stage = stage

    def send_on(self, server: Server) -> None:
        """Begin to send the request on an upstream connection."""
        self.enter("sending")
        self.server = server

    def leave_server(self) -> None:
        """Note that nothing more is sent or awaited on the upstream connection."""
        self.server = None

    def head_came(self, status: int) -> None:
        """Note the status of the upstream's response."""
        self.response.status, self.response.duration = status, time.monotonic() - self.started

    # -- to no good end -------------------------------------------------------------------------------

    def explain(self, why: str) -> None:
        """Keep the exact reason of a failure for the audit log."""
        self.why = why

    def fail(self, code: str) -> None:
        """Note that an answer of ours with this code takes the place of the upstream's."""
        self.failed = code

    def withdraw(self, why: Denied | None) -> None:
        """Refuse what was granted before; None takes nothing back."""
        self.withdrawn = why

    def time_out(self) -> None:
        """Note that a deadline has passed, so that the answer is a 504."""
        self.timed_out = True

    def leave(self) -> None:
        """Note that the client wants no answer any more, and end what is waited for on its behalf."""
        self.left = True
        if self._task is not None:
            self._task.cancel()

    async def unless_left[Found](self, work: Coroutine[Any, Any, Found]) -> Found | None:
        """Return what comes of the work, or None if the client has gone meanwhile."""
        task = self._task = asyncio.current_task()
        try:
            if self.left:  # before the hook was run
                work.close()
                return None
            return await work
        except asyncio.CancelledError:
            if not self.left or task is None:
                raise
            task.uncancel()  # what else this task does goes on
            return None
        finally:
            self._task = None

    # -- at the end -----------------------------------------------------------------------------------

    def outcome(self, status: int | None, error: str | None, code: str | None = None) -> Outcome:
        """Return how a granted exchange has ended.

        Args:
            status: what the client got.
            error: why it did not end as it should, unless a more exact reason is known.
            code: of the failure, unless an answer of ours has one.
        """
        return Outcome(
            status=status,
            upstream_status=self.response.status,
            bytes_in=self.upload.size,
            bytes_out=self.response.body.size if self.response.body else 0,
            duration=time.monotonic() - self.started,
            code=self.failed or code,
            error=error or self.why,
            upstream_duration=self.response.duration,
        )
