"""What a client is told of its limits, and how long to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.limits.counter import SECOND, Counter, Weighed, weigh
from presign_proxy.limits.rules import Concurrency, Quota, Rate, Requester, tallies_of
from presign_proxy.limits.verdict import FOREVER, Verdict, granted_fields, reached, refused_fields, sentence
from support.deciding import NOW
from support.structured_fields import parsed

WHO = Requester("conn", "0" * 32, "192.0.2.1", NOW + 60)


def told(*pairs: tuple[Counter, Weighed]) -> dict[str, str]:
    verdict = Verdict(tuple(one for _, one in pairs))
    found = refused_fields([one for one, _ in pairs], verdict)
    return {name.decode(): value.decode() for name, value in found}


RATE = Rate(60, 60, 10).counter(WHO, NOW)
DAY = Quota(1000, "day").counter(WHO, NOW)
SLOTS = Concurrency(20, "url").counter(WHO, NOW)
USES = tallies_of((), 5, WHO, NOW)[0]
ETERNAL = tallies_of((), 5, WHO._replace(expires=0), NOW)[0]


def test_fields_of_a_refusal_are_structured_and_name_every_limit() -> None:
    answer = told(
        (RATE, weigh(RATE, NOW * SECOND + 10 * SECOND, NOW * SECOND)),
        (DAY, weigh(DAY, 3, NOW * SECOND)),
        (SLOTS, weigh(SLOTS, 20, NOW * SECOND)),
    )
    assert answer["Retry-After"] == "1"
    assert parsed(answer["RateLimit-Policy"]) == {
        "rate-60s-connection": {"q": 60, "w": 60},
        "quota-day-connection": {"q": 1000, "w": DAY.until - NOW},
        "concurrency-url": {"q": 20, "qu": "concurrent-requests"},
    }
    assert parsed(answer["RateLimit"]) == {
        "rate-60s-connection": {"r": 0, "t": 1},
        "quota-day-connection": {"r": 997},
        "concurrency-url": {"r": 0},
    }
    assert "X-Should-Retry" not in answer


def test_a_refused_request_is_told_what_is_left_without_it() -> None:
    answer = told((RATE, weigh(RATE, 0, NOW * SECOND)), (SLOTS, weigh(SLOTS, 20, NOW * SECOND)))
    assert parsed(answer["RateLimit"])["rate-60s-connection"] == {"r": 10}


def test_a_granted_request_is_told_what_is_left_after_it() -> None:
    counters = [RATE, DAY, SLOTS, USES, ETERNAL]
    verdict = Verdict(
        tuple(weigh(one, state, NOW * SECOND) for one, state in zip(counters, (0, 3, 19, 4, 0), strict=True))
    )
    answer = {name.decode(): value.decode() for name, value in granted_fields(counters, verdict)}
    assert list(answer) == ["RateLimit-Policy", "RateLimit"]
    state = answer["RateLimit"].split(", ")
    assert [parsed(one) for one in state[:4]] == [
        {"rate-60s-connection": {"r": 9}},
        {"quota-day-connection": {"r": 996, "t": DAY.until - NOW}},
        {"concurrency-url": {"r": 0}},
        {"uses": {"r": 0}},
    ]
    assert parsed(state[4]) == {"uses": {"r": 4}}
    assert parsed(answer["RateLimit-Policy"].rpartition(", ")[0])["uses"] == {"q": 5}


@pytest.mark.parametrize(("counter", "after"), [(USES, 60), (ETERNAL, FOREVER)])
def test_where_uses_are_spent_nobody_is_asked_to_try_again(counter: Counter, after: int) -> None:
    answer = told((counter, weigh(counter, 5, NOW * SECOND)))
    assert answer["Retry-After"] == str(after)
    assert answer["X-Should-Retry"] == "false"
    assert parsed(answer["RateLimit-Policy"]) == {"uses": {"q": 5}}


def test_the_longest_wait_counts_and_its_limit_is_named() -> None:
    pairs = [
        (RATE, weigh(RATE, NOW * SECOND + 10 * SECOND, NOW * SECOND)),
        (DAY, weigh(DAY, 1000, NOW * SECOND)),
        (SLOTS, weigh(SLOTS, 3, NOW * SECOND)),
    ]
    assert told(*pairs)["Retry-After"] == str(DAY.until - NOW)
    assert reached([one for one, _ in pairs], Verdict(tuple(one for _, one in pairs))) == DAY


def test_a_person_reads_what_is_used_up_and_when_to_come_again() -> None:
    def said(counter: Counter, wait: int) -> str:
        return sentence([counter], Verdict((Weighed(False, 0, 0, wait * SECOND),)))

    uses = Counter("uses", "count", "k", 10, until=NOW + 60, quota=10)
    assert said(uses, 60) == "10 of 10 uses of this presigned request are spent."
    assert said(uses._replace(quota=1), 60) == "The only use of this presigned request is spent."
    rate = Counter("rate-60s-url", "rate", "k", 10, SECOND, 0, 60, 60)
    assert said(rate, 3) == "The limit is 60 requests in 1 min: try again in 3 seconds."
    quota = Counter("quota-day-url", "count", "k", 9, until=86_400, window=86_400, quota=9)
    assert said(quota, 7200) == "The limit is 9 requests until 1970-01-02T00:00:00Z: try again in 2 hours."
    slots = Counter("concurrency-url", "slots", "k", 1, quota=1)
    assert said(slots, 1) == "The limit is 1 request at a time: try again in 1 second."


@given(st.integers(1, 10**12))
def test_a_wait_is_never_told_too_short(wait: int) -> None:
    answer = told((RATE, Weighed(False, 0, 0, wait)))
    assert int(answer["Retry-After"]) * SECOND >= wait
    assert int(answer["Retry-After"]) >= 1
