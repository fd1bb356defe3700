"""The body of a request on its way to the upstream, as far as limits and deadlines ask about it."""

from __future__ import annotations

import time

from ...gateway.held_bodies import HeldBody


class Upload:
    """How much of one body has come, and when it moved last."""

    __slots__ = ("held", "is_open", "kept", "moved", "size")

    def __init__(self) -> None:
        self.is_open = False
        """True if the body has not come in full."""
        self.size = 0
        """Bytes that have come."""
        self.moved = 0.0
        """When a piece of the body, or of the answer, came last."""
        self.kept: HeldBody | None = None
        """The body itself, if it is read whole before anything is sent."""
        self.held = False
        """True if the upstream did not take the body when that was looked at last."""

    def end(self) -> None:
        """Note that the body has come in full."""
        self.is_open = False

    def add(self, size: int) -> None:
        """Count a piece that has come."""
        self.size += size
        self.moved = time.monotonic()

    def let_go(self) -> None:
        """Keep nothing of the body any more."""
        if self.kept is not None:
            self.kept.let_go()

    def answer_moved(self) -> None:
        """Note that a piece of the answer has come: the exchange does not stand still."""
        self.moved = time.monotonic()

    def has_stalled(self, now: float, since: float, patience: tuple[int, int], *, held: bool) -> bool:
        """Return whether the body has stood still for too long; if so, the time is counted from now again.

        Args:
            since: when the stage of the exchange began.
            patience: seconds without a piece from the client, and seconds in which the upstream takes none.
            held: whether the upstream does not take the body. When that changes, the other side gets its
                whole time.
        """
        if self.held is not held:
            self.held, self.moved = held, now
        if now - max(since, self.moved) <= patience[held]:
            return False
        self.moved = now
        return True
