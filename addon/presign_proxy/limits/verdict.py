"""The decision of a store on one request, and the header fields that tell the client about it."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from ..http.message import Fields
from ..units import in_words, instant
from .counter import SECOND, Counter, Weighed

FOREVER: Final = 86_400
"""`Retry-After`, in seconds, for a limit that never ends. Without a value, clients would retry at once."""
_FITS: Final = attrgetter("fits")


class Verdict(NamedTuple):
    """The decisions of all counters of a request, in order. It is admitted if it fits into every one."""

    weighed: tuple[Weighed, ...]

    @property
    def admitted(self) -> bool:
        return all(map(_FITS, self.weighed))


def reached(counters: Sequence[Counter], verdict: Verdict) -> Counter:
    """Return the counter that refused a request; if there are several, the one with the longest wait."""
    return _reached(counters, verdict)[0]


def _reached(counters: Sequence[Counter], verdict: Verdict) -> tuple[Counter, Weighed]:
    full = [pair for pair in zip(counters, verdict.weighed, strict=True) if not pair[1].fits]
    return max(full, key=lambda pair: _wait(*pair))


def sentence(counters: Sequence[Counter], verdict: Verdict) -> str:
    """Return the sentence for the client: what is used up, and when to come again."""
    counter, weighed = _reached(counters, verdict)
    most, again = counter.quota, f"try again in {in_words(_wait(counter, weighed))}."
    if counter.name == "uses":
        spent = f"{most} of {most} uses" if most > 1 else "The only use"
        return f"{spent} of this presigned request {'are' if most > 1 else 'is'} spent."
    requests = f"{most} request{'s' if most > 1 else ''}"
    if counter.kind == "slots":
        return f"The limit is {requests} at a time: {again}"
    if counter.kind == "count":
        return f"The limit is {requests} until {instant(counter.until)}: {again}"
    return f"The limit is {requests} in {in_words(counter.window)}: {again}"


def granted_fields(counters: Sequence[Counter], verdict: Verdict) -> Fields:
    """Return the fields of the answer to a request that was counted: what is left after it."""
    left = [weighed.remaining for weighed in verdict.weighed]
    return _fields(counters, left, [counter.window if counter.until else 0 for counter in counters])


def refused_fields(counters: Sequence[Counter], verdict: Verdict) -> Fields:
    """Return the fields of the answer to a request that was not counted, with `Retry-After`."""
    pairs = list(zip(counters, verdict.weighed, strict=True))
    wait = max(_wait(*pair) for pair in pairs if not pair[1].fits)
    # `remaining` of a counter with room is what would be left after this request, so one more is left now.
    left = [one.remaining + one.fits for one in verdict.weighed]
    resets = [-(-one.wait // SECOND) if counter.window else 0 for counter, one in pairs]
    found: Fields = ((b"Retry-After", str(wait).encode()), *_fields(counters, left, resets))
    if any(counter.name == "uses" and not one.fits for counter, one in pairs):
        # The SDKs of OpenAI and Anthropic retry after a 429, unless this field forbids it.
        found += ((b"X-Should-Retry", b"false"),)
    return found


def _wait(counter: Counter, weighed: Weighed) -> int:
    """Return the wait in whole seconds, rounded up, so that a retry is not refused for the same reason."""
    return max(1, -(-weighed.wait // SECOND)) if weighed.wait or counter.until else FOREVER


def _fields(counters: Sequence[Counter], left: Sequence[int], resets: Sequence[int]) -> Fields:
    """Return `RateLimit-Policy` and `RateLimit`, those of draft-ietf-httpapi-ratelimit-headers-10.

    Args:
        left: how many more requests fit, for each counter.
        resets: seconds until more fit, for each counter; 0 where nothing is said about that.
    """
    states = map(_state, counters, left, resets)
    return (
        (b"RateLimit-Policy", ", ".join(map(_policy, counters)).encode()),
        (b"RateLimit", ", ".join(states).encode()),
    )


def _policy(counter: Counter) -> str:
    unit = ';qu="concurrent-requests"' if counter.kind == "slots" else ""
    window = f";w={counter.window}" if counter.window else ""
    return f'"{counter.name}";q={counter.quota}{unit}{window}'


def _state(counter: Counter, left: int, reset: int) -> str:
    return f'"{counter.name}";r={left}{f";t={reset}" if reset else ""}'
