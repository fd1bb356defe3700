"""What is told of the limits of a request that is granted: what they are, not how much of them is left."""

from __future__ import annotations

from ..core.decision import Forward
from ..limits.counter import Counter
from .case import Case
from .explanation import Step


def limits(case: Case) -> Step:
    """The counters it would be held against. They are in the gateway's store, which is not asked."""
    counters = case.decision.counters if isinstance(case.decision, Forward) else ()
    return Step(
        "limits",
        "note",
        "Held against these; how much of them is used is not known here.",
        tuple([_told(counter) for counter in counters]),
    )


def _told(counter: Counter) -> str:
    if counter.kind == "rate":
        text = f"{counter.quota} in {counter.window} s, {counter.limit} at once"
    elif counter.kind == "slots":
        text = f"{counter.limit} at a time"
    elif counter.window:
        text = f"{counter.limit}, until the period ends"
    else:
        text = f"{counter.limit} of this URL, ever"
    return f"{counter.name}: {text}"
