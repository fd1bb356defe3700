"""What a store says of one request, and what its client is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from ..http.message import Fields
from .counter import SECOND, Counter, Weighed

FOREVER: Final = 86_400
"""Seconds after which to ask again where no time helps; the client would ask at once without any."""
_FITS: Final = attrgetter("fits")


class Verdict(NamedTuple):
    """Of all counters of a request, in their order; it is admitted where it fits into every one."""

    weighed: tuple[Weighed, ...]

    @property
    def admitted(self) -> bool:
        return all(map(_FITS, self.weighed))


def reached(counters: Sequence[Counter], verdict: Verdict) -> Counter:
    """The limit that a refused request ran into: where there are several, the one that lasts longest."""
    full = [pair for pair in zip(counters, verdict.weighed, strict=True) if not pair[1].fits]
    return max(full, key=lambda pair: _wait(*pair))[0]


def fields(counters: Sequence[Counter], verdict: Verdict) -> Fields:
    """`Retry-After`, and draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy`, `RateLimit`."""
    pairs = list(zip(counters, verdict.weighed, strict=True))
    wait = max(_wait(*pair) for pair in pairs if not pair[1].fits)
    found: Fields = (
        (b"Retry-After", str(wait).encode()),
        (b"RateLimit-Policy", ", ".join(_policy(counter) for counter in counters).encode()),
        (b"RateLimit", ", ".join(_state(*pair) for pair in pairs).encode()),
    )
    if any(counter.name == "uses" and not one.fits for counter, one in pairs):
        # The SDKs of OpenAI and Anthropic try a 429 again by themselves unless told not to.
        found += ((b"X-Should-Retry", b"false"),)
    return found


def _wait(counter: Counter, weighed: Weighed) -> int:
    """Whole seconds, rounded up: never so early that it is refused again for the same reason."""
    return max(1, -(-weighed.wait // SECOND)) if weighed.wait or counter.until else FOREVER


def _policy(counter: Counter) -> str:
    unit = ';qu="concurrent-requests"' if counter.kind == "slots" else ""
    window = f";w={counter.window}" if counter.window else ""
    return f'"{counter.name}";q={counter.quota}{unit}{window}'


def _state(counter: Counter, weighed: Weighed) -> str:
    reset = f";t={-(-weighed.wait // SECOND)}" if weighed.wait and counter.window else ""
    # Nothing was counted: what would have been left after this request is one less than what is left.
    return f'"{counter.name}";r={weighed.remaining + weighed.fits}{reset}'
