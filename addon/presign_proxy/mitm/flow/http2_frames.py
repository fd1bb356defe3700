"""What a peer over HTTP/2 may send: whole frames, so many in one turn, so many beside its messages.

The protocol lets nine bytes of a client cost a server a hundred microseconds (SETTINGS, PING, RST_STREAM:
CVE-2019-9511 to 9518, CVE-2023-44487), and one byte of a head stand for four thousand of an earlier one
(RFC 7541, 6.1). So frames are counted before anything is made of them. A frame that costs more than it weighs
takes tokens. A client gets some each second, and more for what it is answered; when it has none left, its
connection is closed. An upstream is held to the same, the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ...http.message import MAX_HEAD

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
MAX_BLOCK_FIELDS: Final = 256
"""Fields of a head that is decoded at all, so that it can be answered; more end the connection."""
BURST: Final = 1000
"""Tokens of a client that has not used any."""
RATE: Final = 200
"""Tokens a client gets each second."""
PER_ANSWER: Final = 5
"""Tokens for each answer: browsers send a PRIORITY or two for a request."""
MAX_RESETS: Final = 200
"""Requests that a client may reset before it has had an answer to others: twice as many as it can have under
way. Each answer allows one more, and each second.
"""
BYTES_PER_TOKEN: Final = 1024
"""Bytes sent to a client for which it gets one: Go opens two windows for each four KiB."""
TINY: Final = 16
"""Bytes of a frame of a body below which it is a tiny one. There would be no end to those of one byte, or of
padding alone: so many are let through in a second, and what is behind waits.
"""
MAX_TINY: Final = 1000
"""Tiny frames that are let through at once."""
TINY_RATE: Final = 500
"""Tiny frames in each second."""
TINY_DELAY: Final = 0.02
"""Seconds until it is looked again whether a tiny frame may go on."""
PER_DATA: Final = 3
"""Tokens for each frame of a body that is sent to a client: for two windows, and a PING that measures."""
LEAST_DATA: Final = 16
"""Bytes of such a frame; a client that opens its window byte by byte gets nothing for that."""

ENHANCE_YOUR_CALM: Final = 0xB
FRAME_SIZE_ERROR: Final = 0x6

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x9
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x4, 0x8, 0x20
_HEAD: Final = 9
PREFACE: Final = 24
"""Bytes that a client says before its first frame."""
_COST: Final = {_SETTINGS: 5}
_MAX_SETTINGS: Final = 6 * 64
"""Bytes of a SETTINGS frame; there are a dozen settings of six bytes, and each unknown one is kept."""
_MAX_INTEGER: Final = 5
"""Bytes of an integer in HPACK: 28 bits, more than any head has bytes."""


class Excess(Exception):
    """The connection has to end.

    Args:
        why: in words of ours.
        code: of the GOAWAY.
    """

    def __init__(self, why: str, code: int = ENHANCE_YOUR_CALM) -> None:
        super().__init__(why)
        self.why = why
        self.code = code


class FrameGate:
    """Lets whole frames through, turn by turn."""

    __slots__ = (
        "_begins",
        "_begun",
        "_block",
        "_heads",
        "_held",
        "_is_live",
        "_max_frame",
        "_paced",
        "_pieces",
        "_preface",
        "_resets",
        "_since",
        "_tiny",
        "_tokens",
        "barred",
        "delay",
        "sizes",
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
        """Whether the last turn has ended before a stream that was not to be begun with in it."""
        self._held = bytearray()
        self._preface = preface
        self._max_frame = max_frame
        self._paced = paced
        self._tokens = float(BURST)
        self._tiny = float(MAX_TINY)
        self.delay = 0.0
        """Seconds until the next turn."""
        self._resets = 0.0
        self._since: float | None = None
        self._block = bytearray()
        self._begun = False
        self._heads = self._pieces = 0
        self.sizes: dict[int, list[int]] = {}
        """Bytes on the wire of the heads of the last turn, by stream: the request's, then its trailers'."""

    def add(self, data: bytes) -> None:
        """Keep what has come."""
        self._held += data

    def forget(self) -> None:
        """Let go of what has come: its connection has ended."""
        self._held.clear()
        self._block.clear()

    @property
    def waiting(self) -> int:
        """Bytes that have come and were not let through yet."""
        return len(self._held)

    @property
    def is_ready(self) -> bool:
        """Whether a whole frame waits for its turn."""
        return len(self._held) >= _HEAD and len(self._held) >= _HEAD + self._length(0)

    def earn(self, tokens: float) -> None:
        """For what the client is sent."""
        self._tokens = min(self._tokens + tokens, BURST)

    def sent(self, data: bytes) -> None:
        """Whole frames were sent to the client."""
        self.earn(len(data) / BYTES_PER_TOKEN + PER_DATA * _frames_of_bodies(data))

    def answered(self) -> None:
        """A request has its answer."""
        self.earn(PER_ANSWER)
        self._resets = max(self._resets - 1, 0)

    def take(self, now: float) -> bytes:
        """What goes through in this turn: whole frames, the first time behind the preface.

        Args:
            now: of a monotonic clock, in seconds.

        Raises Excess.
        """
        if self._since is not None:
            self.earn((now - self._since) * RATE)
            self._resets = max(self._resets - (now - self._since), 0)
            self._tiny = min(self._tiny + (now - self._since) * TINY_RATE, MAX_TINY)
        self._since = now
        self.sizes.clear()
        self._heads = self._pieces = 0
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
        """Whether the next frame is for the next turn. A reset never is: the request that it takes back, in
        the same segment, is not to go anywhere meanwhile. There are `MAX_RESETS` of them.
        """
        if kind == _RST_STREAM:
            return False
        too_many = frames >= TURN_FRAMES or self._pieces >= TURN_PIECES
        return too_many or (kind == _HEADERS and self._heads >= TURN_HEADS)

    def _is_barred(self, at: int) -> bool:
        """Whether a frame would begin a stream out of turn. Trailers begin none."""
        if self._held[at + 3] == _HEADERS:
            stream = self._stream(at)
            self.barred = not (stream in self.sizes or self._is_live(stream) or self._begins())
        return self.barred

    def _stream(self, at: int) -> int:
        return int.from_bytes(self._held[at + 5 : at + 9], "big") & 0x7FFFFFFF

    def _is_of_body(self, at: int, length: int) -> bool:
        """Whether a frame is a piece, or the end, of a body that somebody takes."""
        if self._held[at + 3] != _DATA or not (length or self._held[at + 4] & _END_STREAM):
            return False
        stream = self._stream(at)
        return stream in self.sizes or self._is_live(stream)

    def _is_early(self, at: int, length: int) -> bool:
        """Whether a frame of a body is so short that it has to wait, in front of all that comes behind it."""
        if length >= SHORT:
            return False
        self._pieces += 1
        flags = self._held[at + 4]
        padding = self._held[at + _HEAD] + 1 if flags & _PADDED and length else 0
        if not self._paced or length - padding >= TINY or flags & _END_STREAM:
            return False
        if self._tiny < 1:
            self.delay = TINY_DELAY
            return True
        self._tiny -= 1
        return False

    def _length(self, at: int) -> int:
        return int.from_bytes(self._held[at : at + 3], "big")

    def _look(self, at: int, length: int) -> None:
        """Count one frame that is not of a body."""
        kind, flags = self._held[at + 3], self._held[at + 4]
        # A request pays too: for each that is answered there is more than it took.
        self._pay(_COST.get(kind, 1))
        if kind == _RST_STREAM:
            self._resets += 1
            if self._resets > MAX_RESETS:
                raise Excess("too many requests are reset")
        if kind == _SETTINGS and length > _MAX_SETTINGS:
            raise Excess("a SETTINGS frame holds too many settings")
        if kind == _HEADERS:
            self._block, self._begun = bytearray(), True
            start, end = _fragment(self._held, at + _HEAD, length, flags)
            self._collect(self._stream(at), start, end, flags)
        elif kind == _CONTINUATION and self._begun:
            self._collect(self._stream(at), at + _HEAD, at + _HEAD + length, flags)

    def _pay(self, tokens: int) -> None:
        self._tokens -= tokens
        if self._tokens < 0:
            raise Excess("too many frames that are no requests")

    def _collect(self, stream: int, start: int, end: int, flags: int) -> None:
        """Put a head together from its frames, and look at it once it is whole."""
        self._block += self._held[start:end]
        if len(self._block) > MAX_HEAD:
            raise Excess("a head is too large")
        if flags & _END_HEADERS:
            self._begun = False
            count_fields(bytes(self._block))
            self._heads += 1
            self.sizes.setdefault(stream, []).append(len(self._block))


def _frames_of_bodies(data: bytes) -> int:
    found = at = 0
    while at + _HEAD <= len(data):
        length = int.from_bytes(data[at : at + 3], "big")
        found += data[at + 3] == _DATA and length >= LEAST_DATA
        at += _HEAD + length
    return found


def _fragment(held: bytearray, at: int, length: int, flags: int) -> tuple[int, int]:
    """Where the fragment of a head begins and ends in a HEADERS frame (RFC 9113, 6.2)."""
    start, end = at, at + length
    if flags & _PADDED and length:
        end -= held[at]
        start += 1
    if flags & _PRIORITY:
        start += 5
    return start, max(start, end)


def count_fields(block: bytes) -> int:
    """The fields of a head as HPACK has it, counted without decoding any (RFC 7541, 6).

    A head that ends in the middle of a field is counted as far as it goes: the decoder refuses it.

    Raises Excess over `MAX_BLOCK_FIELDS`, and for what a decoder could spend its time on without making a
    field of it.
    """
    at = fields = updates = 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0xE0 == 0x20:  # another size for the table: two at most (RFC 7541, 4.2)
                updates += 1
                _, at = _integer(block, at, 0x1F)
                if updates > 2:
                    raise Excess("a head changes the size of its table again and again")
                continue
            fields += 1
            if fields > MAX_BLOCK_FIELDS:
                raise Excess("a head has too many fields")
            if first & 0x80:
                _, at = _integer(block, at, 0x7F)
                continue
            index, at = _integer(block, at, 0x3F if first & 0x40 else 0x0F)
            for _ in range(1 if index else 2):
                length, at = _integer(block, at, 0x7F)
                at += length
    except IndexError:
        return fields
    return fields


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """An integer and where it ends (RFC 7541, 5.1). Raises Excess, IndexError."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 7 * _MAX_INTEGER, 7):
        octet = block[at]
        at += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
    raise Excess("a head holds a number that is too large")
