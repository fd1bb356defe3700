"""The stage of a gateway: starting, serving, draining."""

from __future__ import annotations

from typing import Final, Literal

Stage = Literal["starting", "serving", "draining"]

SERVING: Final = "serving"
"""The reason of a gateway that is ready, and has nothing to be mended."""


class Lifecycle:
    """Starting, serving, draining: in this order, and never back."""

    def __init__(self) -> None:
        self._stage: Stage = "starting"

    @property
    def stage(self) -> Stage:
        return self._stage

    @property
    def draining(self) -> bool:
        """True once `drain` was called: requests that are new are refused."""
        return self._stage == "draining"

    def serve(self) -> None:
        """Begin to serve: the script and its configuration were looked at."""
        if self._stage == "starting":
            self._stage = "serving"

    def drain(self) -> None:
        """Refuse new requests from now on; those under way go on."""
        self._stage = "draining"


def line_of(readiness: tuple[bool, str]) -> tuple[bool, str]:
    """Return what `Status.readiness` says, as the line that a balancer or a person reads."""
    is_ready, why = readiness
    if not is_ready:
        return False, f"not ready: {why}"
    return True, "ready" if why == SERVING else f"ready: {why}"
