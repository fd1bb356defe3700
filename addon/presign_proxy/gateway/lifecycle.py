"""The life cycle of a gateway: whether a balancer should send it requests, and what a drain changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

Stage = Literal["starting", "serving", "draining"]


SERVING: Final = "serving"


class Lifecycle:
    """The stages starting, serving and draining: in this order, and never back."""

    def __init__(self, fault: Callable[[], str], note: Callable[[], str]) -> None:
        """
        Args:
            fault: returns why presigned requests are not served at the moment; empty if they are.
            note: returns what the operator should repair although requests are served; empty if nothing.
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
        """Begin to serve: everything that is needed was loaded."""
        if self._stage == "starting":
            self._stage = "serving"

    def drain(self) -> None:
        """Refuse new requests from now on. Requests that are under way go on."""
        self._stage = "draining"

    def ready(self) -> tuple[bool, str]:
        """Return whether requests should be sent here, and why, in words that contain no secret."""
        if self._stage != "serving":
            return False, self._stage
        if fault := self._fault():
            return False, fault
        return True, self._note() or SERVING


def line_of(ready: tuple[bool, str]) -> tuple[bool, str]:
    """Turn a result of `Lifecycle.ready` into the line that a balancer or a person reads."""
    is_ready, why = ready
    if not is_ready:
        return False, f"not ready: {why}"
    return True, "ready" if why == SERVING else f"ready: {why}"
