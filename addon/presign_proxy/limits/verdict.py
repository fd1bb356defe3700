"""What a store says of one request, and what its client is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from ..http.message import Fields
from .counter import SECOND, Tally, Weighed

FOREVER: Final = 86_400
"""Seconds after which to ask again where no time helps; the client would ask at once without any."""
_FITS: Final = attrgetter("fits")


class Verdict(NamedTuple):
    """Of all counters of a request, in their order; it is admitted where it fits into every one."""

    weighed: tuple[Weighed, ...]

    @property
    def admitted(self) -> bool:
        return all(map(_FITS, self.weighed))


def reached(tallies: Sequence[Tally], verdict: Verdict) -> Tally:
    """The limit that a refused request ran into: where there are several, the one that lasts longest."""
    full = [pair for pair in zip(tallies, verdict.weighed, strict=True) if not pair[1].fits]
    return max(full, key=lambda pair: _wait(*pair))[0]


def fields(tallies: Sequence[Tally], verdict: Verdict) -> Fields:
    """`Retry-After`, and draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy`, `RateLimit`."""
    pairs = list(zip(tallies, verdict.weighed, strict=True))
    wait = max(_wait(*pair) for pair in pairs if not pair[1].fits)
    found: Fields = (
        (b"Retry-After", str(wait).encode()),
        (b"RateLimit-Policy", ", ".join(_policy(tally) for tally in tallies).encode()),
        (b"RateLimit", ", ".join(_state(*pair) for pair in pairs).encode()),
    )
    if any(tally.name == "uses" and not one.fits for tally, one in pairs):
        # The SDKs of OpenAI and Anthropic try a 429 again by themselves unless told not to.
        found += ((b"X-Should-Retry", b"false"),)
    return found


def _wait(tally: Tally, weighed: Weighed) -> int:
    """Whole seconds, rounded up: never so early that it is refused again for the same reason."""
    return max(1, -(-weighed.wait // SECOND)) if weighed.wait or tally.until else FOREVER


def _policy(tally: Tally) -> str:
    unit = ';qu="concurrent-requests"' if tally.kind == "slots" else ""
    window = f";w={tally.window}" if tally.window else ""
    return f'"{tally.name}";q={tally.quota}{unit}{window}'


def _state(tally: Tally, weighed: Weighed) -> str:
    reset = f";t={-(-weighed.wait // SECOND)}" if weighed.wait and tally.window else ""
    # Nothing was counted: what would have been left after this request is one less than what is left.
    return f'"{tally.name}";r={weighed.remaining + weighed.fits}{reset}'
