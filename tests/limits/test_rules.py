"""Which counters a request has: whose they are, and when each ends."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.core.decision import Deny, Forward
from presign_proxy.limits.counter import Counter
from presign_proxy.limits.rules import Concurrency, Quota, Rate, Requester, tallies_of
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
    counter = Quota(5, calendar).counter(WHO, seconds(now))
    assert f":quota:{name}:" in counter.key
    assert counter.until == seconds(ends)
    assert counter.window == seconds(ends) - seconds(now)


@given(st.integers(0, seconds("2399-12-31T23:59:59")))
def test_every_second_lies_in_one_day_and_one_month(now: int) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=now)
    day, month = Quota(1, "day").counter(WHO, now), Quota(1, "month").counter(WHO, now)
    assert day.until == now - now % 86_400 + 86_400
    assert month.until == seconds(f"{at:%Y-%m}-01") + monthrange(at.year, at.month)[1] * 86_400
    for counter, quota in ((day, Quota(1, "day")), (month, Quota(1, "month"))):
        assert quota.counter(WHO, counter.until - 1).key == counter.key
        assert quota.counter(WHO, counter.until).key != counter.key


# -- which counter ------------------------------------------------------------------------------------

ALL = (
    Rate(60, 60, 10),
    Rate(5, 1, 5, "client"),
    Quota(1000, "month"),
    Quota(9, "day", "url"),
    Concurrency(3),
    Concurrency(1, "url"),
)


def counters(target: str, *fields_: tuple[bytes, bytes], **more: Any) -> tuple[Counter, ...]:
    known = registry(connection(limits=ALL, max_uses=10), replace(project(), limits=ALL, max_uses=10))
    decision = ask(request(target, *fields_, **more), known)
    assert isinstance(decision, Forward), decision
    return decision.counters


def keys(target: str, *fields_: tuple[bytes, bytes], **more: Any) -> list[str]:
    return [counter.key for counter in counters(target, *fields_, **more)]


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
        found[path] = [counter.key for counter in decision.counters if ":url:" in counter.key]
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
    assert len({counter.key for counter in mine}) == len(mine)
    for index, mine_ in enumerate(mine):
        for at, theirs_ in enumerate(theirs):
            same = index == at and one.connection == other.connection
            same &= "url" not in mine_.key.split(":")[3:] or one.url == other.url
            same &= not mine_.name.endswith("-client") or one.client == other.client
            if mine_.name == "uses" or mine_.name.endswith("-url"):
                same &= one.url == other.url
            assert (mine_.key == theirs_.key) == same
    # A Redis cluster finds the place by what stands in the first pair of braces.
    assert {re.search(r"\{(.*?)\}", counter.key)[1] for counter in mine} == {one.connection}  # type: ignore[index]


def test_raising_a_limit_forgets_nothing() -> None:
    for less, more in (
        (Rate(1, 60, 1), Rate(9, 60, 5)),
        (Quota(1, "day"), Quota(9, "day")),
        (Concurrency(1), Concurrency(9)),
    ):
        assert less.counter(WHO, NOW).key == more.counter(WHO, NOW).key
    assert tallies_of((), 1, WHO, NOW)[0].key == tallies_of((), 9, WHO, NOW)[0].key


def test_uses_are_never_let_pass_uncounted() -> None:
    assert not tallies_of((), 5, WHO, NOW)[0].fail_open
