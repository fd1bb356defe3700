"""What was granted a moment ago is granted again without being judged anew: to nobody else, and not later.

Wherever these send a request again, its bytes are the same.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import pytest

from presign_proxy.core.decision import Facts, Forward
from presign_proxy.mitm.lane import grant_cache
from presign_proxy.mitm.lane.grant_cache import GrantCache, Granted, Key
from presign_proxy.mitm.lane.granted_request import granted_request
from presign_proxy.mitm.lane.request_head import parse
from support.audit_log import audit_lines
from support.deciding import NOW, ask, registry, request, signed
from support.gateways import MakeGateway
from support.lanes import CONNECTIONS, GATEWAY, SIGNING, config
from support.leaks import FOREVER, Issuer
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Response, connect, exchange, parse_response, send_raw
from support.recorder import Recorder

ISSUER = Issuer({f"conn_{number}": SIGNING for number in range(CONNECTIONS)})
MIB = 1024 * 1024
PLACE: tuple[Any, ...] = (None, ("127.0.0.1", 8080), (), "203.0.113.9", False, False)


def granted(target: str = "") -> Granted:
    asked = request(target or signed())
    forward, head = ask(asked), parse(b"GET / HTTP/1.1\r\nHost: presign.local\r\n\r\n")
    assert isinstance(forward, Forward)
    assert head is not None
    return Granted(granted_request(head, asked, forward), b"wire")


def filled(key: Key) -> tuple[GrantCache, Any]:
    known, found = registry(), GrantCache()
    assert found.find(key, known, NOW) is None
    twice(found, key)
    assert found.find(key, known, NOW) is not None
    return found, known


def twice(found: GrantCache, key: Key) -> None:
    for _ in range(2):
        found.keep(key, granted())


KEY = Key(b"GET /api/proxy/conn/x HTTP/1.1\r\nHost: presign.local\r\n\r\n", PLACE)


def test_a_grant_is_forgotten_with_its_second() -> None:
    found, known = filled(KEY)
    assert found.find(KEY, known, NOW + 1) is None
    assert found.find(KEY, known, NOW) is None, "also where the clock is set back"


def test_a_grant_is_forgotten_with_its_registry() -> None:
    found, known = filled(KEY)
    assert found.find(KEY, registry(), NOW) is None, "an equal one is another one"
    assert found.find(KEY, known, NOW) is None
    assert found.find(KEY, None, NOW) is None


@pytest.mark.parametrize("part", range(len(PLACE)))
def test_the_same_bytes_from_elsewhere_are_judged_anew(part: int) -> None:
    found, known = filled(KEY)
    place = tuple("other" if number == part else one for number, one in enumerate(PLACE))
    assert found.find(KEY._replace(place=place), known, NOW) is None


@pytest.mark.parametrize("at", range(0, len(KEY.raw), 7))
def test_a_head_that_differs_in_one_byte_is_judged_anew(at: int) -> None:
    found, known = filled(KEY)
    other = bytes(octet ^ (number == at) for number, octet in enumerate(KEY.raw))
    assert found.find(KEY._replace(raw=other), known, NOW) is None


def test_nobody_fills_the_memory_with_heads() -> None:
    assert (grant_cache.MAX * grant_cache.MAX_SIZE, grant_cache.MAX_SIZE, grant_cache.MAX_SEEN) == (
        MIB,
        4096,
        4096,
    )
    found, known = filled(KEY)
    for number in range(2 * grant_cache.MAX):
        twice(found, KEY._replace(raw=b"%d" % number))
    kept = [n for n in range(2 * grant_cache.MAX) if found.find(KEY._replace(raw=b"%d" % n), known, NOW)]
    assert len(kept) == grant_cache.MAX - 1
    found, known = filled(KEY)
    long = KEY._replace(raw=bytes(grant_cache.MAX_SIZE + 1))
    twice(found, long)
    assert found.find(long, known, NOW) is None
    twice(found, KEY._replace(raw=bytes(grant_cache.MAX_SIZE)))
    assert found.find(KEY._replace(raw=bytes(grant_cache.MAX_SIZE)), known, NOW) is not None
    for number in range(2 * grant_cache.MAX_SEEN):
        found.keep(KEY._replace(raw=b"%d" % number), granted())
    assert len(found._seen) == grant_cache.MAX_SEEN
    assert found.find(KEY, known, NOW + 1) is None
    assert not found._seen


def test_what_was_asked_for_once_is_not_kept() -> None:
    known, found = registry(), GrantCache()
    assert found.find(KEY, known, NOW) is None
    found.keep(KEY, granted())
    assert found.find(KEY, known, NOW) is None
    assert KEY.raw not in repr(found._seen).encode()


def test_a_grant_given_again_differs_in_its_id_alone() -> None:
    first = granted().request.forward
    again = first.again("req_again")
    assert again.request_id == "req_again"
    assert first.request_id == "req_test"
    assert again.again("req_test") == first
    assert again.facts is not first.facts


@pytest.mark.parametrize("kind", [Facts, Forward])
def test_a_copy_loses_no_field_of_a_grant_given_again(kind: type[Facts] | type[Forward]) -> None:
    """Fields are copied by place, for speed: one that is added with a default would be lost in silence."""
    names = list(Forward._fields) if kind is Forward else [one.name for one in fields(Facts)]
    each: dict[str, Any] = {name: object() for name in names if name != "facts"}
    each |= {"facts": Facts("req_first")} if "facts" in names else {}
    again = kind(**each).again("req_again")
    differing = {name for name in names if getattr(again, name) is not each[name]}
    assert differing == {"facts" if kind is Forward else "request_id"}
    assert again.request_id == "req_again"


@pytest.fixture(scope="module")
def gateway(module_gateway: MakeGateway, upstream: Recorder) -> Mitm:
    return module_gateway(config(upstream.url), "--set", "presign_lane=on")


def asked(gateway: Mitm, head: bytes, go_on: Callable[[], bool]) -> Iterator[tuple[float, Response, float]]:
    """The answers to the same bytes, sent again and again without a pause, each between two times."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(connect(gateway.port))
        while go_on():
            begun = time.time()
            response = parse_response(exchange(sock, head))
            yield begun, response, time.time()
            if response.status != 200:
                sock = stack.enter_context(connect(gateway.port))


def head_of(path: str, cid: str, expires: int = FOREVER) -> bytes:
    url = ISSUER.url(cid, path, expires=expires)
    return f"GET {url} HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n".encode()


def test_each_of_several_equal_requests_has_an_id_and_a_line_of_its_own(
    gateway: Mitm, upstream: Recorder
) -> None:
    turns = iter(range(50))
    found = asked(gateway, head_of("x", "conn_1"), lambda: next(turns, None) is not None)
    ids = {response.header("x-presign-request-id") for _, response, _ in found}
    assert len(ids) == 50
    assert len(upstream.requests) == 50

    def told() -> set[str]:
        lines = audit_lines(gateway.directory / "audit.jsonl")
        return {line["request_id"] for line in lines if line["decision"] == "forward"}

    assert eventually(lambda: told() == ids, 3)


def test_a_url_that_is_asked_for_without_a_pause_is_refused_once_its_last_second_is_over(
    gateway: Mitm,
) -> None:
    expires = int(time.time()) + 1
    seen = list(asked(gateway, head_of("x", "conn_2", expires), lambda: time.time() < expires + 1.5))
    in_time = [response.status for _, response, end in seen if end < expires + 1]
    late = [response.status for begun, response, _ in seen if begun >= expires + 1]
    assert set(in_time) == {200}
    assert len(in_time) > 20
    assert set(late) == {403}


def test_each_of_several_equal_requests_counts_against_its_limit(
    module_gateway: MakeGateway, upstream: Recorder
) -> None:
    limited = config(upstream.url, limits=[{"rate": "6/day"}])
    gateway = module_gateway(limited, "--set", "presign_lane=on")
    turns = iter(range(10))
    found = asked(gateway, head_of("x", "conn_3"), lambda: next(turns, None) is not None)
    assert [response.status for _, response, _ in found] == [200] * 6 + [429] * 4
    assert len(upstream.requests) == 6


def test_a_url_that_is_good_for_one_use_is_good_for_one_however_many_ask_at_once(
    module_gateway: MakeGateway, upstream: Recorder
) -> None:
    gateway = module_gateway(config(upstream.url, max_uses=1), "--set", "presign_lane=on")
    head = head_of("x", "conn_4")
    with ThreadPoolExecutor(8) as many:
        answers = list(many.map(lambda _: parse_response(send_raw(gateway.port, head)).status, range(16)))
    assert sorted(answers)[:2] == [200, 429]
    assert len(upstream.requests) == 1
