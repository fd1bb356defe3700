"""Whatever call fails, of all that a request runs through, nothing leaks and nothing passes (SPEC §10, 2).

The calls are found by tracing, and each is made to raise in a request of its own; a sample of the lines, too.
By itself this takes a sample, spread evenly; ALL_FAULTS=1 takes every call and every line, in half an hour:

    ALL_FAULTS=1 .venv/bin/pytest tests/attacks/test_faults_traced.py -s
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.gateways import MakeGateway
from support.lab import REAL_SECRET
from support.leaks import Traces
from support.recorder import Recorder
from support.tracing import (
    FAILING,
    GRANTED,
    PASSED,
    SHAPES,
    UNSIGNED,
    Baseline,
    Lab,
    Point,
    start,
    strike,
    trace,
)

pytestmark = pytest.mark.slow

ALL = bool(os.environ.get("ALL_FAULTS"))
SAMPLE = 12
"""Of the calls of each kind of request; a quarter of it of its lines, and in each other way to fail."""
POINTS = 200
"""At least as many different calls are there between a hook and its commit."""

GetLab = Callable[[str], Lab]


@pytest.fixture(scope="module")
def get_lab(
    module_gateway: MakeGateway, tls_upstream: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> GetLab:
    """The gateway that a kind of request is sent to."""
    labs: dict[str, Lab] = {}

    def get(shape: str) -> Lab:
        unsigned = "deny" if shape in UNSIGNED else "pass"
        if unsigned not in labs:
            directory = Path(tmp_path_factory.mktemp(unsigned))
            labs[unsigned] = start(module_gateway, tls_upstream, unsigned, directory)
        return labs[unsigned]

    return get


@pytest.fixture(scope="module")
def get_baseline(get_lab: GetLab) -> Callable[[str], Baseline]:
    known: dict[str, Baseline] = {}

    def get(shape: str) -> Baseline:
        if shape not in known:
            known[shape] = trace(get_lab(shape), SHAPES[shape])
        return known[shape]

    return get


def spread(found: Sequence[Any], count: int) -> list[Any]:
    """`count` of them at even distances; all, where all are asked for."""
    if ALL or len(found) <= count:
        return list(found)
    return [found[index * len(found) // count] for index in range(count)]


def calls(baseline: Baseline) -> list[Point]:
    """What a request calls where it is decided on, and one of each kind from what surrounds that."""
    found: dict[str, Point] = {}
    for point in baseline.points:
        if point.is_call:
            found.setdefault(point.name if point.decisive else point.place, point)
    return list(found.values())


def lines(baseline: Baseline) -> list[Point]:
    found: dict[str, Point] = {}
    for point in baseline.points:
        if not point.is_call:
            found.setdefault(point.place, point)
    return list(found.values())


def check(lab: Lab, shape: str, baseline: Baseline, points: Sequence[Point], error: str, **how: Any) -> int:
    """Strike at each point; returns how often that was possible."""
    logged = len(lab.gateway.log())
    struck, wrong = 0, []
    for point in points:
        try:
            found = strike(lab, SHAPES[shape], baseline, point, error, **how)
        except LookupError:
            continue  # what runs when is not quite the same each time
        struck += 1
        if found:
            wrong.append(f"{error} at {point}: {found}")
    if ALL:
        print(f"\n{shape}: {error} at {struck} of {len(points)}, {len(wrong)} wrong", flush=True)
    assert not wrong, "\n".join([f"{len(wrong)} of {struck}", *wrong])
    assert not Traces([REAL_SECRET]).found_in(lab.gateway.log()[logged:].encode())
    return struck


def test_there_are_calls_to_fail_and_requests_of_every_kind(
    get_baseline: Callable[[str], Baseline],
) -> None:
    decisive = {
        point.place
        for shape in SHAPES
        for point in get_baseline(shape).points
        if point.is_call and point.decisive
    }
    assert len(decisive) > POINTS
    reached = {shape for shape in SHAPES if get_baseline(shape).seen}
    assert reached == {*GRANTED, *FAILING, *PASSED, "query, deny"}
    print(f"{len(decisive)} calls in the product's code between a hook and its commit")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_call_that_fails_lets_nothing_pass(
    shape: str, get_lab: GetLab, get_baseline: Callable[[str], Baseline]
) -> None:
    baseline = get_baseline(shape)
    points = spread(calls(baseline), SAMPLE)
    assert check(get_lab(shape), shape, baseline, points, "RuntimeError") > 0.9 * len(points)


@pytest.mark.parametrize("error", ["MemoryError", "RecursionError"])
@pytest.mark.parametrize(
    "shape", ["query", "header", "source", "h2", "expired", "not ours", "unsigned tunnel"]
)
def test_running_out_of_memory_or_stack_lets_nothing_pass(
    error: str, shape: str, get_lab: GetLab, get_baseline: Callable[[str], Baseline]
) -> None:
    baseline = get_baseline(shape)
    check(get_lab(shape), shape, baseline, spread(calls(baseline), SAMPLE // 4), error)


@pytest.mark.parametrize("shape", SHAPES if ALL else ["query", "header", "tunnel", "source", "unsigned"])
def test_a_line_that_fails_lets_nothing_pass(
    shape: str, get_lab: GetLab, get_baseline: Callable[[str], Baseline]
) -> None:
    baseline = get_baseline(shape)
    check(get_lab(shape), shape, baseline, spread(lines(baseline), SAMPLE // 4), "RuntimeError")
