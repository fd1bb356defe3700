"""A hunt: many drawn samples are tried and judged, and all that were judged wrong are reported at once."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

REQUESTS = int(os.environ.get("PRESIGN_REQUESTS", "1000"))
LONG = "PRESIGN_REQUESTS" in os.environ
SEED = int(os.environ.get("PRESIGN_SEED") or (random.randrange(10**9) if LONG else 0))
MOST = 20
"""Findings after which a run ends."""
ROUND = 2000
"""Requests of one run of hypothesis, which remembers all that it has drawn."""


def rounds(wanted: int) -> list[tuple[int, int]]:
    """(seed, requests) of each run of hypothesis."""
    sizes = [min(ROUND, wanted - at) for at in range(0, wanted, ROUND)]
    return [(SEED + number, size) for number, size in enumerate(sizes)]


def hunt(
    number: int,
    size: int,
    samples: SearchStrategy[Any],
    judge: Callable[[Any], None],
    counts: Counter[str],
) -> None:
    """Try `size` samples, and report all that were judged wrong."""
    before, started, found = counts.total(), time.monotonic(), []

    @seed(number)
    @settings(
        max_examples=size,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(samples)
    def tried(sample: Any) -> None:
        try:
            judge(sample)
        except AssertionError as error:
            found.append(f"{error}\n{sample}")
            if LONG:
                print(f"\n{found[-1]}", flush=True)
            assert len(found) < MOST, "\n\n".join(found)

    tried()
    if LONG and counts.total() > before:
        took = time.monotonic() - started
        print(f"\nseed {number}: {size} samples in {took:.0f} s; {dict(counts)}", flush=True)
    assert not found, "\n\n".join(found)
