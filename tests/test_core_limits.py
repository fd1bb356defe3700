"""Limits without any store: which counters a request has, how one is judged, what a client is told."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import limits
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presign_proxy.core.decision import Deny, Forward
from presign_proxy.limits.circuit_breaker import PAUSE, THRESHOLD, Breaker
from presign_proxy.limits.counter import GRACE, SECOND, Tally, Weighed, forgettable_at, weigh
from presign_proxy.limits.rules import Concurrency, Quota, Rate, Requester, tallies_of
from presign_proxy.limits.verdict import FOREVER, Verdict, fields, reached
from support.deciding import NOW, SECRET, ask, connection, project, registry, request, signed
from support.signing import presign_headers, presign_params, source_url, token

WHO = Requester("conn", "0" * 32, "192.0.2.1", NOW + 60)


# -- the calendar -------------------------------------------------------------------------------------


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("calendar", "now", "name", "ends"),
    [
        ("day", "2026-02-28T23:59:59", "2026-02-28", "2026-03-01"),
        ("day", "2028-02-28T23:59:59", "2028-02-28", "2028-02-29"),
        ("day", "2026-12-31T00:00:00", "2026-12-31", "2027-01-01"),
        ("month", "2026-01-31T23:59:59", "2026-01", "2026-02-01"),
        ("month", "2028-02-29T12:00:00", "2028-02", "2028-03-01"),
        ("month", "2100-02-28T23:59:59", "2100-02", "2100-03-01"),
        ("month", "2026-12-31T23:59:59", "2026-12", "2027-01-01"),
        ("month", "2027-01-01T00:00:00", "2027-01", "2027-02-01"),
    ],
)
def test_a_quota_ends_where_its_day_or_month_does(calendar: Any, now: str, name: str, ends: str) -> None:
    tally = Quota(5, calendar).tally(WHO, seconds(now))
    assert f":quota:{name}:" in tally.key
    assert tally.until == seconds(ends)
    assert tally.window == seconds(ends) - seconds(now)


@given(st.integers(0, seconds("2399-12-31T23:59:59")))
def test_every_second_lies_in_one_day_and_one_month(now: int) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=now)
    day, month = Quota(1, "day").tally(WHO, now), Quota(1, "month").tally(WHO, now)
    assert day.until == now - now % 86_400 + 86_400
    assert month.until == seconds(f"{at:%Y-%m}-01") + monthrange(at.year, at.month)[1] * 86_400
    for tally, quota in ((day, Quota(1, "day")), (month, Quota(1, "month"))):
        assert quota.tally(WHO, tally.until - 1).key == tally.key
        assert quota.tally(WHO, tally.until).key != tally.key


# -- which counter ------------------------------------------------------------------------------------

ALL = (
    Rate(60, 60, 10),
    Rate(5, 1, 5, "client"),
    Quota(1000, "month"),
    Quota(9, "day", "url"),
    Concurrency(3),
    Concurrency(1, "url"),
)


def tallies(target: str, *fields_: tuple[bytes, bytes], **more: Any) -> tuple[Tally, ...]:
    known = registry(connection(limits=ALL, max_uses=10), replace(project(), limits=ALL, max_uses=10))
    decision = ask(request(target, *fields_, **more), known)
    assert isinstance(decision, Forward), decision
    return decision.tallies


def keys(target: str, *fields_: tuple[bytes, bytes], **more: Any) -> list[str]:
    return [tally.key for tally in tallies(target, *fields_, **more)]


def test_one_presign_is_counted_as_one_whichever_carrier_it_comes_in() -> None:
    """Four carriers are not four times the uses."""
    grant = ("conn", NOW + 60, "GET", "v1/*")
    headers = [(name.encode(), value.encode()) for name, value in presign_headers(SECRET, *grant).items()]
    lower = [(name.lower(), value) for name, value in headers]
    word = token(SECRET, *grant)
    first = keys(signed())
    assert keys("/api/proxy/conn/v1/models", *headers) == first
    assert keys("/api/proxy/conn/v1/models", *lower) == first
    assert keys(f"/p/{word}/v1/models") == first
    assert keys("/api/proxy/conn/v1/models", (b"Authorization", f"Bearer {word}".encode())) == first
    direct = {"host": "api.example.com", "scheme": "https"}
    assert keys("/v1/models", (b"authorization", f"token {word}".encode()), **direct) == first
    assert keys("/v1/models", *headers[1:], **direct) == first
    # Neither is the rest of the request part of what is counted.
    other = signed("v1/embeddings") + "&x=1&y=%41"
    assert keys(other, (b"X-Anything", b"1")) == first


def test_a_signature_in_another_spelling_is_no_other_url() -> None:
    params = presign_params(SECRET, "conn", NOW + 60, "GET", "v1/*")
    query = "&".join(f"{name}={value}" for name, value in params.items())
    shuffled = "&".join(f"{name}={value}" for name, value in reversed(params.items()))
    escaped = query.replace("v1/*", "v1%2F%2A")
    assert keys(f"/api/proxy/conn/v1/models?{query}") == keys(f"/api/proxy/conn/v1/models?{shuffled}")
    assert keys(f"/api/proxy/conn/v1/models?{escaped}") == keys(f"/api/proxy/conn/v1/models?{query}")
    upper = query.replace(params["X-Presign-Signature"], params["X-Presign-Signature"].upper())
    assert isinstance(ask(request(f"/api/proxy/conn/v1/models?{upper}")), Deny)


def test_a_source_url_is_counted_as_one_in_every_format_and_with_any_further_parameter() -> None:
    url = source_url(SECRET, "pk", "https://cdn.acme.com/a.png", NOW + 60, "png")
    assert keys(url) == keys(url.replace(".png?", ".jpg?")) == keys(f"{url}&v=2")


def test_sources_of_an_allowlist_are_counted_by_their_url() -> None:
    known = registry(replace(project("open", signed=False), limits=ALL))
    found = {}
    for path in ("a.png", "a.jpg", "b.png"):
        decision = ask(request(f"/v1/open/cdn.acme.com/{path}"), known)
        assert isinstance(decision, Forward), decision
        found[path] = [tally.key for tally in decision.tallies if ":url:" in tally.key]
    assert found["a.png"] == found["a.jpg"] != found["b.png"]
    assert not any("acme" in key for one in found.values() for key in one)


def test_no_key_holds_a_url_a_signature_or_a_path() -> None:
    target = signed("v1/private/name")
    signature = target.rpartition("=")[2]
    for key in keys(target):
        assert "private" not in key
        assert signature[:12] not in key
        assert re.fullmatch(r"presign:\{conn\}:[a-z0-9:.-]+", key), key


identifiers = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
requesters = st.builds(
    Requester,
    identifiers,
    st.from_regex(r"[0-9a-f]{32}", fullmatch=True) | st.text(max_size=30),
    st.sampled_from(["192.0.2.1", "192.0.2.11", "2001:db8::/64", "2001:db8:0:1::/64", ""]),
    st.just(0),
)


@given(requesters, requesters)
def test_whoever_differs_has_counters_that_differ(one: Requester, other: Requester) -> None:
    mine = tallies_of(ALL, 10, one, NOW)
    theirs = tallies_of(ALL, 10, other, NOW)
    assert len({tally.key for tally in mine}) == len(mine)
    for index, mine_ in enumerate(mine):
        for at, theirs_ in enumerate(theirs):
            same = index == at and one.connection == other.connection
            same &= "url" not in mine_.key.split(":")[3:] or one.url == other.url
            same &= not mine_.name.endswith("-client") or one.client == other.client
            if mine_.name == "uses" or mine_.name.endswith("-url"):
                same &= one.url == other.url
            assert (mine_.key == theirs_.key) == same
    # A Redis cluster finds the place by what stands in the first pair of braces.
    assert {re.search(r"\{(.*?)\}", tally.key)[1] for tally in mine} == {one.connection}  # type: ignore[index]


def test_raising_a_limit_forgets_nothing() -> None:
    for less, more in (
        (Rate(1, 60, 1), Rate(9, 60, 5)),
        (Quota(1, "day"), Quota(9, "day")),
        (Concurrency(1), Concurrency(9)),
    ):
        assert less.tally(WHO, NOW).key == more.tally(WHO, NOW).key
    assert tallies_of((), 1, WHO, NOW)[0].key == tallies_of((), 9, WHO, NOW)[0].key


def test_uses_are_never_let_pass_uncounted() -> None:
    assert not tallies_of((), 5, WHO, NOW)[0].fail_open


# -- judging ------------------------------------------------------------------------------------------


def play(tally: Tally, steps: list[int], start: int = NOW * SECOND) -> tuple[list[int], list[Weighed]]:
    """The instants of those admitted, and everything that was said. A step is microseconds, forth or back."""
    now, state, admitted, said = start, 0, [], []
    for step in steps:
        now += step
        weighed = weigh(tally, state, now)
        said.append(weighed)
        state = weighed.after
        if weighed.fits:
            admitted.append(now)
    return admitted, said


rates = st.tuples(st.integers(1, 50), st.integers(1, 3_000_000)).map(
    lambda it: Tally("r", "rate", "k", it[0], it[1])
)
forth = st.lists(st.integers(0, 4_000_000), max_size=60)
both = st.lists(st.integers(-9_000_000, 4_000_000), max_size=60)


@given(rates, forth)
def test_a_rate_is_a_bucket_that_fills(tally: Tally, steps: list[int]) -> None:
    """The other way to say it: a level that rises with the clock, but never above a whole bucket."""
    _, said = play(tally, steps)
    full = tally.limit * tally.interval
    level = full
    for step, weighed in zip(steps, said, strict=True):
        level = min(full, level + step)
        fits = level >= tally.interval
        assert weighed.fits == fits
        if fits:
            level -= tally.interval
            assert weighed.remaining == level // tally.interval
        else:
            assert weighed.wait == tally.interval - level
            assert weighed.remaining == 0


@given(rates, forth)
def test_no_stretch_of_time_holds_more_than_the_burst_and_what_has_fallen_due(
    tally: Tally, steps: list[int]
) -> None:
    admitted, _ = play(tally, steps)
    for first, begun in enumerate(admitted):
        for last in range(first, len(admitted)):
            assert last - first + 1 <= tally.limit + (admitted[last] - begun) // tally.interval


@given(rates, both)
def test_a_clock_that_is_set_grants_no_more_than_a_burst_each_time(tally: Tally, steps: list[int]) -> None:
    admitted, _ = play(tally, steps)
    set_back, passed = sum(step < 0 for step in steps), sum(step for step in steps if step > 0)
    assert len(admitted) <= tally.limit * (1 + set_back) + passed // tally.interval


@given(rates, both)
def test_who_waits_as_long_as_he_was_told_is_admitted(tally: Tally, steps: list[int]) -> None:
    now, state = NOW * SECOND, 0
    for step in steps:
        now += step
        weighed = weigh(tally, state, now)
        if not weighed.fits:
            assert not weigh(tally, weighed.after, now + weighed.wait - 1).fits
            now += weighed.wait
            weighed = weigh(tally, weighed.after, now)
            assert weighed.fits
        state = weighed.after


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.lists(st.integers(0, 20_000_000), max_size=60))
def test_the_limits_library_finds_no_window_that_is_too_full(
    count: int, burst: int, steps: list[int]
) -> None:
    """Its moving window of burst + count in a period is what a rate stays below, in whatever window."""
    tally = Rate(count, 60, burst).tally(WHO, NOW)
    admitted, said = play(tally, steps)
    storage = limits.storage.MemoryStorage()
    oracle = limits.strategies.MovingWindowRateLimiter(storage)
    item = limits.RateLimitItemPerMinute(burst + count)
    clock = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limits.storage.memory.time.time", lambda: clock)
        for instant in admitted:
            clock = instant / SECOND
            assert oracle.hit(item, "k")
    assert all(one.fits for one in said[:burst])


@pytest.mark.parametrize("back", [1, 60, 3600, 86_400 * 400])
def test_a_clock_that_is_set_back_locks_nobody_out_for_the_time_that_was_undone(back: int) -> None:
    """Refused until one falls due in an empty bucket, and so on: not for an hour."""
    tally = Rate(1, 1, 5).tally(WHO, NOW)
    admitted, _ = play(tally, [0] * 6 + [-back * SECOND] + [SECOND // 2] * 20)
    after = [instant for instant in admitted if instant < NOW * SECOND - back * SECOND + 11 * SECOND]
    assert len(admitted) <= 5 + 11 + 5
    assert len(after) >= 9


def test_a_clock_that_jumps_ahead_fills_the_bucket_once() -> None:
    tally = Rate(1, 60, 5).tally(WHO, NOW)
    admitted, _ = play(tally, [0] * 6 + [86_400 * 400 * SECOND] + [0] * 9)
    assert len(admitted) == 10


@given(st.integers(1, 30), st.integers(0, 60))
def test_a_count_is_a_count(limit: int, asked: int) -> None:
    tally = Tally("q", "count", "k", limit, until=NOW + 10)
    admitted, said = play(tally, [0] * asked)
    assert len(admitted) == min(limit, asked)
    assert [one.remaining for one in said] == [max(0, limit - 1 - number) for number in range(asked)]
    assert all(one.fits or one.wait == 10 * SECOND for one in said)


@pytest.mark.parametrize("text", ["1/day", "7/hour", "59/minute", "10000/second", "3/second"])
def test_a_rate_is_never_rounded_up(text: str) -> None:
    count, _, unit = text.partition("/")
    period = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}[unit]
    tally = Rate(int(count), period, int(count)).tally(WHO, NOW)
    assert tally.interval * int(count) >= period * SECOND


def test_nothing_is_forgotten_while_it_counts() -> None:
    rate = Tally("r", "rate", "k", 5, SECOND)
    admitted = weigh(rate, 0, NOW * SECOND)
    # The next instant at which it says the same as a counter that is not there.
    at = forgettable_at(rate, admitted.after)
    assert weigh(rate, admitted.after, at) == weigh(rate, 0, at)
    assert weigh(rate, admitted.after, at - 1) != weigh(rate, 0, at - 1)
    assert forgettable_at(Tally("q", "count", "k", 5, until=NOW), 3) == (NOW + GRACE) * SECOND
    assert forgettable_at(Tally("q", "count", "k", 5), 3) == 0
    with pytest.raises(ValueError, match="one by one"):
        forgettable_at(Tally("s", "slots", "k", 5), 3)


# -- what the client is told --------------------------------------------------------------------------

_ITEM = re.compile(r'"([ !#-\[\]-~]*)"((?:;[a-z*][a-z0-9_.*-]*=(?:-?[0-9]{1,15}|"[ !#-\[\]-~]*"))*)')
_PARAMETER = re.compile(r';([a-z*][a-z0-9_.*-]*)=(-?[0-9]{1,15}|"[ !#-\[\]-~]*")')


def parsed(text: str) -> dict[str, dict[str, int | str]]:
    """RFC 9651: a list of strings with parameters that are integers or strings. Raises ValueError."""
    found: dict[str, dict[str, int | str]] = {}
    for member in text.split(", "):
        match = _ITEM.fullmatch(member)
        if match is None or match[1] in found:
            raise ValueError(member)
        found[match[1]] = {
            name: value[1:-1] if value.startswith('"') else int(value)
            for name, value in _PARAMETER.findall(match[2])
        }
    return found


def told(*pairs: tuple[Tally, Weighed]) -> dict[str, str]:
    verdict = Verdict(tuple(one for _, one in pairs))
    return {name.decode(): value.decode() for name, value in fields([one for one, _ in pairs], verdict)}


RATE = Rate(60, 60, 10).tally(WHO, NOW)
DAY = Quota(1000, "day").tally(WHO, NOW)
SLOTS = Concurrency(20, "url").tally(WHO, NOW)
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


@pytest.mark.parametrize(("tally", "after"), [(USES, 60), (ETERNAL, FOREVER)])
def test_where_uses_are_spent_nobody_is_asked_to_try_again(tally: Tally, after: int) -> None:
    answer = told((tally, weigh(tally, 5, NOW * SECOND)))
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


@given(st.integers(1, 10**12))
def test_a_wait_is_never_told_too_short(wait: int) -> None:
    answer = told((RATE, Weighed(False, 0, 0, wait)))
    assert int(answer["Retry-After"]) * SECOND >= wait
    assert int(answer["Retry-After"]) >= 1


# -- the breaker --------------------------------------------------------------------------------------


def opened() -> Breaker:
    breaker = Breaker()
    for number in range(THRESHOLD):
        assert breaker.allows(10.0)
        assert breaker.failed(10.0) == (number == THRESHOLD - 1)
    return breaker


def test_a_store_that_fails_again_and_again_is_left_alone_and_one_request_tries() -> None:
    breaker = opened()
    assert not breaker.allows(10.0 + PAUSE - 0.01)
    assert breaker.allows(10.0 + PAUSE)
    assert not breaker.allows(10.0 + PAUSE)  # the others do not wait for what is down
    assert not breaker.failed(11.5)  # told once
    assert not breaker.allows(11.5 + PAUSE - 0.01)
    assert breaker.allows(11.5 + PAUSE)
    assert breaker.succeeded()
    assert not breaker.succeeded()
    assert all(breaker.allows(20.0) for _ in range(5))


def test_failures_with_a_success_between_them_open_nothing() -> None:
    breaker = Breaker()
    for _ in range(3 * THRESHOLD):
        for _ in range(THRESHOLD - 1):
            assert not breaker.failed(1.0)
        assert not breaker.succeeded()
    assert breaker.allows(1.0)


def test_clients_that_go_away_open_nothing_and_do_not_keep_it_open() -> None:
    breaker = Breaker()
    for _ in range(100):
        assert breaker.allows(1.0)
        breaker.abandoned()
    assert breaker.allows(1.0)
    breaker = opened()
    assert breaker.allows(10.0 + PAUSE)
    breaker.abandoned()
    assert breaker.allows(10.0 + PAUSE)
