"""The request lines in the terminal, for people who watch mitmproxy's output."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from ..core.decision import Deny, Forward
from .audit_record import Outcome, Throttle
from .request_line import Peer, line_of_grant, line_of_refusal

logger = logging.getLogger(__name__)


class Terminal:
    """Prints a line for each request, if it is watched. If not, a granted request costs two comparisons.

    Refusals before a good signature are throttled as in the audit log.
    """

    def __init__(self) -> None:
        self._throttle = Throttle()
        self.echo: Callable[[str], None] | None = None
        """The function that prints a line. None: granted requests get no line, and refusals go to the log."""
        self.flows = False
        """True if requests that came as flows get a line too. Otherwise mitmproxy prints them at length."""

    def tell(
        self, decision: Forward | Deny, outcome: Outcome, peer: Peer, now: float, *, lane: bool = False
    ) -> None:
        """Print the line of a request that has ended. Args: lane: whether it was served without a flow."""
        if self.echo is None and isinstance(decision, Forward):
            return
        # A line that cannot be printed is lost: a request must not fail because of its line.
        with contextlib.suppress(Exception):
            if isinstance(decision, Deny):
                self._refused(decision, outcome, peer, now)
            elif self.echo is not None and (lane or self.flows):
                self.echo(line_of_grant(decision, outcome, peer, int(now)))

    def _refused(self, deny: Deny, outcome: Outcome, peer: Peer, now: float) -> None:
        if self.echo is None and not logger.isEnabledFor(logging.INFO):
            return
        suppressed = self._throttle.admit(verified=deny.facts.verified, now=now)
        if suppressed is None:
            return
        line = line_of_refusal(deny, outcome, peer, int(now), suppressed)
        if self.echo is not None:
            self.echo(line)
        else:
            logger.info("presign: %s", line)
