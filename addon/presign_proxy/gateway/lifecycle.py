"""Whether a gateway should be sent requests: what a balancer asks, and what a drain changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

Stage = Literal["starting", "serving", "draining"]


SERVING: Final = "serving"


class Lifecycle:
    """Starting, serving, draining: in this order, and never back."""

    def __init__(self, fault: Callable[[], str], note: Callable[[], str]) -> None:
        """
        Args:
            fault: why nothing of ours is served at the moment; empty where it is.
            note: what the operator should mend though requests are served; empty where nothing.
        """
        self._fault = fault
        self._note = note
        self._stage: Stage = "starting"

    @property
    def stage(self) -> Stage:
        return self._stage

    @property
    def draining(self) -> bool:
        return self._stage == "draining"

    def serve(self) -> None:
        """All that is needed was read."""
        if self._stage == "starting":
            self._stage = "serving"

    def drain(self) -> None:
        """Take nothing new on: what comes now is refused, and what is under way goes on."""
        self._stage = "draining"

    def ready(self) -> tuple[bool, str]:
        """Whether requests should be sent here, and why, in words that hold no secret."""
        if self._stage != "serving":
            return False, self._stage
        if fault := self._fault():
            return False, fault
        return True, self._note() or SERVING


def line_of(ready: tuple[bool, str]) -> tuple[bool, str]:
    """What `Lifecycle.ready` says, as the line that a balancer, or a person, reads."""
    is_ready, why = ready
    if not is_ready:
        return False, f"not ready: {why}"
    return True, "ready" if why == SERVING else f"ready: {why}"
