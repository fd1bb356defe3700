"""One response on its way in: heads, then a body, as its framing says."""

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
        """Whether more is here than was read: feed it again, be it with nothing, once others had a turn."""

    def feed(self, data: bytes) -> bytes:
        """What of it is the body's. Raises Unreadable."""


class _Sized:
    """A body whose length was told."""

    __slots__ = ("_left", "done", "regular", "rest")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = not length
        self.regular, self.rest = True, b""

    @property
    def lags(self) -> bool:
        return False

    def feed(self, data: bytes) -> bytes:
        mine = data if len(data) <= self._left else data[: self._left]
        self._left -= len(mine)
        self.done, self.rest = not self._left, data[len(mine) :]
        return mine


class _Endless:
    """A body that ends with its connection."""

    __slots__ = ("done", "regular", "rest")

    def __init__(self) -> None:
        self.done, self.regular, self.rest = False, False, b""

    @property
    def lags(self) -> bool:
        return False

    def feed(self, data: bytes) -> bytes:
        return data


class Incoming:
    """Reads one response, and says where it ends."""

    __slots__ = ("_body", "_buffer", "_heads", "_heads_lag", "ended")

    def __init__(self) -> None:
        self._buffer = b""
        self._heads = HeadSearch()
        self._heads_lag = False
        """Whether a whole head may wait for its turn."""
        self._body: _Body | None = None
        self.ended = False
        """Whether its upstream has ended the connection: not by a reset, and over TLS with a closure alert.
        Without one, anybody on the way could have ended it (RFC 9112, 9.8).
        """

    @property
    def is_between_heads(self) -> bool:
        """Whether nothing of the next head has come, nor of a body."""
        return self._body is None and not self._buffer

    @property
    def done(self) -> bool:
        """Whether the response is whole."""
        return self._body is not None and self._body.done

    @property
    def keeps(self) -> bool:
        """Whether nothing came behind a response that is whole, and all of it was as it should be."""
        body = self._body
        return body is not None and body.regular and not body.rest

    @property
    def ends_with_connection(self) -> bool:
        """Whether the response is whole if its connection ends now."""
        return self.ended and isinstance(self._body, _Endless)

    @property
    def lags(self) -> bool:
        """Whether more is here than was read: feed it again, be it with nothing, once others had a turn."""
        return self._heads_lag if self._body is None else self._body.lags

    def feed(self, data: bytes, heard: Callable[[ResponseHead], bool]) -> bytes:
        """What is in the body, as much as fits into a turn. Raises Unreadable.

        Args:
            heard: is told of the final head; returns whether it has a body.
        """
        if self._body is None:
            data = self._pass_heads(self._buffer + data if self._buffer else data, heard)
        return self._body.feed(data) if self._body is not None else b""

    def _pass_heads(self, data: bytes, heard: Callable[[ResponseHead], bool]) -> bytes:
        """What is behind the final head, if that is there."""
        at = 0
        for _ in range(TURN_HEADS):
            if at >= len(data) or (found := self._heads.find(data, at)) is None:
                self._heads_lag = False
                break
            head, at = found
            if not head.is_interim:
                self._buffer = b""
                self._body = _body_of(head) if heard(head) else _Sized(0)
                return data[at:]
        else:
            self._heads_lag = at < len(data)
        self._buffer = data[at:]
        return b""


def _body_of(head: ResponseHead) -> _Body:
    if head.chunked:
        return ResponseChunks()
    return _Endless() if head.length is None else _Sized(head.length)
