"""What a peer over HTTP/2 may send: whole frames, so many in one turn, so many beside its messages.

The protocol lets nine bytes of a client cost a server a hundred microseconds (SETTINGS, PING, RST_STREAM:
CVE-2019-9511 to 9518, CVE-2023-44487), and one byte of a head stand for four thousand of an earlier one
(RFC 7541, 6.1). So frames are counted before anything is made of them. An upstream is held to the same, the
other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .http2_budget import BYTES_PER_TOKEN, FrameBudget
from .http2_excess import FRAME_SIZE_ERROR, Excess
from .http2_heads import HeadBlocks, fragment_of

MAX_FRAME: Final = 16 * 1024
"""Bytes of a frame, as RFC 9113, 4.2 has it for those who ask for nothing else."""
TURN_FRAMES: Final = 64
"""Frames that are handled before others have their turn."""
TURN_HEADS: Final = 8
"""Heads of these: each may become a request."""
TURN_PIECES: Final = 8
"""Short frames of bodies among these: each is passed on by itself, and costs as much as a long one."""
SHORT: Final = 1024
"""Bytes of a frame below which it is a short one."""
TINY: Final = 16
"""Bytes of a frame of a body below which it is a tiny one. There would be no end to those of one byte, or of
padding alone: so many are let through in a second, and what is behind waits.
"""
TINY_DELAY: Final = 0.02
"""Seconds until it is looked again whether a tiny frame may go on."""
PER_DATA: Final = 3
"""Tokens for each frame of a body that is sent to a client: for two windows, and a PING that measures."""
LEAST_DATA: Final = 16
"""Bytes of such a frame; a client that opens its window byte by byte gets nothing for that."""

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x9
_END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x4, 0x8
_HEAD: Final = 9
PREFACE: Final = 24
"""Bytes that a client sends before its first frame."""
_COST: Final = {_SETTINGS: 5}
_MAX_SETTINGS: Final = 6 * 64
"""Bytes of a SETTINGS frame; there are a dozen settings of six bytes, and each unknown one is kept."""


class FrameGate:
    """Lets whole frames through, turn by turn."""

    __slots__ = (
        "_begins",
        "_budget",
        "_held",
        "_is_live",
        "_max_frame",
        "_paced",
        "_pieces",
        "_preface",
        "barred",
        "delay",
        "heads",
    )

    def __init__(
        self,
        is_live: Callable[[int], bool],
        *,
        preface: int = PREFACE,
        max_frame: int = MAX_FRAME,
        paced: bool = True,
        begins: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Args:
            is_live: whether a stream has a message that is under way, and may have a body.
            preface: bytes in front of the first frame.
            max_frame: bytes of the longest frame that the peer was allowed.
            paced: whether tiny frames wait for the clock. Those of an upstream do not: it may stream many
                answers word by word.
            begins: asked before each head that begins a stream; where it says no, that head waits, and all
                that is behind it.
        """
        self._is_live = is_live
        self._begins = begins
        self.barred = False
        """True if the last turn has ended before a stream that was not to begin in it."""
        self._held = bytearray()
        self._preface = preface
        self._max_frame = max_frame
        self._paced = paced
        self.delay = 0.0
        """Seconds until the next turn."""
        self._pieces = 0
        self._budget = FrameBudget()
        self.heads = HeadBlocks()
        """The heads of the last turn."""

    def add(self, data: bytes) -> None:
        """Keep what has come."""
        self._held += data

    def forget(self) -> None:
        """Drop what has come: its connection has ended."""
        self._held.clear()
        self.heads.forget()

    @property
    def waiting(self) -> int:
        """Bytes that have come and were not let through yet."""
        return len(self._held)

    @property
    def is_ready(self) -> bool:
        """True if a whole frame waits for its turn."""
        return len(self._held) >= _HEAD and len(self._held) >= _HEAD + self._length(0)

    def sent(self, data: bytes) -> None:
        """Credit the peer with whole frames that it was sent."""
        self._budget.earn(len(data) / BYTES_PER_TOKEN + PER_DATA * _frames_of_bodies(data))

    def answered(self) -> None:
        """Credit the peer with the answer to a request."""
        self._budget.answered()

    def take(self, now: float) -> bytes:
        """Return what goes through in this turn: whole frames, the first time behind the preface.

        Args:
            now: of a monotonic clock, in seconds.

        Raises Excess.
        """
        self._budget.pass_time(now)
        self.heads.begin_turn()
        self._pieces = 0
        self.delay, self.barred = 0.0, False
        end = min(self._preface, len(self._held))
        self._preface -= end
        frames = 0
        while len(self._held) >= end + _HEAD and not self._ends_turn(frames, self._held[end + 3]):
            length = self._length(end)
            if length > self._max_frame:
                raise Excess("a frame is too large", FRAME_SIZE_ERROR)
            if len(self._held) < end + _HEAD + length or self._is_barred(end):
                break
            if not self._is_of_body(end, length):
                self._look(end, length)
            elif self._is_early(end, length):
                break
            end, frames = end + _HEAD + length, frames + 1
        taken = bytes(self._held[:end])
        del self._held[:end]
        return taken

    def _ends_turn(self, frames: int, kind: int) -> bool:
        """Return whether the next frame is for the next turn. A reset never is: the request that it takes
        back, in the same segment, is not to go anywhere meanwhile. There are `MAX_RESETS` of them.
        """
        if kind == _RST_STREAM:
            return False
        too_many = frames >= TURN_FRAMES or self._pieces >= TURN_PIECES
        return too_many or (kind == _HEADERS and self.heads.count >= TURN_HEADS)

    def _is_barred(self, at: int) -> bool:
        """Return whether a frame would begin a stream out of turn. Trailers begin none."""
        if self._held[at + 3] == _HEADERS:
            stream = self._stream(at)
            self.barred = not (stream in self.heads.sizes or self._is_live(stream) or self._begins())
        return self.barred

    def _stream(self, at: int) -> int:
        return int.from_bytes(self._held[at + 5 : at + 9], "big") & 0x7FFFFFFF

    def _is_of_body(self, at: int, length: int) -> bool:
        """Return whether a frame is a piece, or the end, of a body of a message that is under way."""
        if self._held[at + 3] != _DATA or not (length or self._held[at + 4] & _END_STREAM):
            return False
        stream = self._stream(at)
        return stream in self.heads.sizes or self._is_live(stream)

    def _is_early(self, at: int, length: int) -> bool:
        """Return whether a frame of a body is so short that it has to wait, before all that is behind it."""
        if length >= SHORT:
            return False
        self._pieces += 1
        flags = self._held[at + 4]
        padding = self._held[at + _HEAD] + 1 if flags & _PADDED and length else 0
        if not self._paced or length - padding >= TINY or flags & _END_STREAM:
            return False
        if not self._budget.take_tiny():
            self.delay = TINY_DELAY
            return True
        return False

    def _length(self, at: int) -> int:
        return int.from_bytes(self._held[at : at + 3], "big")

    def _look(self, at: int, length: int) -> None:
        """Count one frame that is not of a body. Raises Excess."""
        kind, flags = self._held[at + 3], self._held[at + 4]
        # A request pays too: for each that is answered there is more than it took.
        self._budget.pay(_COST.get(kind, 1))
        if kind == _RST_STREAM:
            self._budget.count_reset()
        if kind == _SETTINGS and length > _MAX_SETTINGS:
            raise Excess("a SETTINGS frame holds too many settings")
        ends = bool(flags & _END_HEADERS)
        if kind == _HEADERS:
            fragment = fragment_of(self._held, at + _HEAD, length, flags)
            self.heads.begin(self._stream(at), fragment, ends=ends)
        elif kind == _CONTINUATION:
            fragment = self._held[at + _HEAD : at + _HEAD + length]
            self.heads.go_on(self._stream(at), fragment, ends=ends)


def _frames_of_bodies(data: bytes) -> int:
    """Count the frames of bodies that are long enough to be credited."""
    found = at = 0
    while at + _HEAD <= len(data):
        length = int.from_bytes(data[at : at + 3], "big")
        found += data[at + 3] == _DATA and length >= LEAST_DATA
        at += _HEAD + length
    return found
