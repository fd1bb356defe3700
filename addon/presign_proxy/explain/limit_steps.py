"""What is told of the limits of a request that is granted: what they are, not how much of them is left."""

from __future__ import annotations

from ..core.decision import Forward
from ..limits.counter import Tally
from .case import Case
from .explanation import Step


def limits(case: Case) -> Step:
    """The counters it would be held against. They are in the gateway's store, which is not asked."""
    tallies = case.decision.tallies if isinstance(case.decision, Forward) else ()
    return Step(
        "limits",
        "note",
        "Held against these; how much of them is used is not known here.",
        tuple([_told(tally) for tally in tallies]),
    )


def _told(tally: Tally) -> str:
    if tally.kind == "rate":
        text = f"{tally.quota} in {tally.window} s, {tally.limit} at once"
    elif tally.kind == "slots":
        text = f"{tally.limit} at a time"
    elif tally.window:
        text = f"{tally.limit}, until the period ends"
    else:
        text = f"{tally.limit} of this URL, ever"
    return f"{tally.name}: {text}"
