"""One response as it comes in: heads, then a body, as its framing says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from ...http.response_head import HeadSearch, ResponseHead
from ..response_chunks import ResponseChunks

TURN_HEADS: Final = 64
"""Interim heads that are read before others have their turn."""


class _Body(Protocol):
    """What comes behind a head."""

    done: bool
    regular: bool
    rest: bytes
    """What came behind its end."""

    @property
    def lags(self) -> bool:
        """True if more is here than was read: feed again, if only with nothing, once others had a turn."""

    def feed(self, data: bytes) -> bytes:
        """Return what belongs to the body. Raises Unreadable."""


class _Sized:
    """A body whose length was announced."""

    __slots__ = ("_left", "done", "regular", "rest")
    lags = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = not length
        self.regular, self.rest = True, b""

    def feed(self, data: bytes) -> bytes:
        mine = data if len(data) <= self._left else data[: self._left]
        self._left -= len(mine)
        self.done, self.rest = not self._left, data[len(mine) :]
        return mine


class _Endless:
    """A body that ends with its connection."""

    __slots__ = ("done", "regular", "rest")
    lags = False

    def __init__(self) -> None:
        self.done, self.regular, self.rest = False, False, b""

    def feed(self, data: bytes) -> bytes:
        return data


class Incoming:
    """One response while it is read. It knows where it ends."""

    __slots__ = ("_body", "_buffer", "_heads", "_heads_lag", "begun", "early", "ended", "is_between_heads")

    def __init__(self) -> None:
        self._buffer = b""
        """The beginning of a head."""
        self.is_between_heads = True
        """True if nothing of the next head has come, nor of a body."""
        self._heads = HeadSearch()
        self._heads_lag = False
        """True if a whole head may wait for its turn."""
        self._body: _Body | None = None
        self.begun = False
        """True if anything has come, even if only of an interim head."""
        self.early = False
        """True if the head that is being read began before all of the request was sent."""
        self.ended = False
        """True if the upstream has ended the connection itself: no reset, and over TLS a closure alert.

        Without the alert, anybody on the way could have ended it (RFC 9112, 9.8).
        """

    @property
    def done(self) -> bool:
        """True if the response is whole."""
        return self._body is not None and self._body.done

    @property
    def keeps(self) -> bool:
        """True if nothing came behind a response that is whole, and all of it was as it should be."""
        body = self._body
        return body is not None and body.regular and not body.rest

    @property
    def ends_with_connection(self) -> bool:
        """True if the response is whole if its connection ends now."""
        return self.ended and isinstance(self._body, _Endless)

    @property
    def lags(self) -> bool:
        """True if more is here than was read: feed again, if only with nothing, once others had a turn."""
        return self._heads_lag if self._body is None else self._body.lags

    def feed(self, data: bytes, take_head: Callable[[ResponseHead], bool]) -> bytes:
        """Return what is in the body, as much as fits into a turn. Raises Unreadable.

        Args:
            take_head: takes the final head; returns whether it has a body.
        """
        if self._body is None:
            data = self._pass_heads(self._buffer + data if self._buffer else data, take_head)
        return self._body.feed(data) if self._body is not None else b""

    def _pass_heads(self, data: bytes, take_head: Callable[[ResponseHead], bool]) -> bytes:
        """Return what is behind the final head, if that is there."""
        at = 0
        for _ in range(TURN_HEADS):
            if at >= len(data) or (found := self._heads.find(data, at)) is None:
                self._heads_lag = False
                break
            head, at = found
            if not head.is_interim:
                self._buffer, self.is_between_heads = b"", False
                self._body = _body_of(head) if take_head(head) else _Sized(0)
                return data[at:]
        else:
            self._heads_lag = at < len(data)
        self._buffer = data[at:]
        self.is_between_heads = not self._buffer
        return b""


def _body_of(head: ResponseHead) -> _Body:
    if head.chunked:
        return ResponseChunks()
    return _Endless() if head.length is None else _Sized(head.length)
