"""The store over Redis: a real one, and one by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.limits.counter import LEASE, SECOND, Counter
from presign_proxy.limits.stores import redis
from presign_proxy.limits.stores.redis import RedisStore
from presign_proxy.limits.stores.store import StoreError
from presign_proxy.signing.secret import Secret
from support.deciding import NOW
from support.redis import RedisServer
from support.redis_by_hand import asking, by_hand, run

needs_redis = pytest.mark.needs("redis-server")


# -- the store ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    found = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield found
    found.stop()


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    found = server.client()
    found.flushall()
    found.script_flush()
    yield found
    found.close()


USES = Counter("uses", "count", "uses", 2)
QUOTA = Counter("quota", "count", "quota", 3, until=NOW + 100)
RATE = Counter("rate", "rate", "rate", 2, 10 * SECOND)
SLOTS = Counter("slots", "slots", "slots", 2)


@needs_redis
def test_what_is_admitted_is_counted_in_all_and_what_is_refused_in_none(
    server: RedisServer, client: Any
) -> None:
    async def work() -> None:
        store = RedisStore(server.url, now=NOW * SECOND)
        both = [SLOTS, RATE, QUOTA, USES]
        said = [await store.admit(both, holder) for holder in "abc"]
        assert [one.admitted for one in said] == [True, True, False]
        assert [one.remaining for one in said[0].weighed] == [1, 1, 2, 1]
        assert [(one.fits, one.wait) for one in said[2].weighed] == [
            (False, SECOND),
            (False, 10 * SECOND),
            (True, 0),
            (False, 0),
        ]
        assert {one.after for verdict in said for one in verdict.weighed} == {0}
        await store.close()

    run(work)
    assert (client.get("uses"), client.get("quota")) == ("2", "2")
    assert client.get("rate") == str((NOW + 20) * SECOND)
    assert client.zrange("slots", 0, -1, withscores=True) == [
        ("a", NOW * SECOND + LEASE),
        ("b", NOW * SECOND + LEASE),
    ]


@needs_redis
def test_the_script_is_sent_once_and_again_where_the_server_has_lost_it(
    server: RedisServer, client: Any
) -> None:
    async def work() -> list[bool]:
        store = RedisStore(server.url)
        found = [(await store.admit([USES._replace(limit=9)], "h")).admitted for _ in range(2)]
        client.script_flush()
        found += [(await store.admit([USES._replace(limit=9)], "h")).admitted for _ in range(2)]
        await store.close()
        return found

    before = client.info("commandstats")
    assert run(work) == [True] * 4
    after = client.info("commandstats")

    def more(name: str) -> int:
        found = [one.get(f"cmdstat_{name}", {"calls": 0})["calls"] for one in (before, after)]
        return int(found[1] - found[0])

    assert (more("eval"), more("evalsha"), more("script|load")) == (2, 3, 2)
    assert client.get("uses") == "4"


@needs_redis
@pytest.mark.parametrize("now", [0, NOW * SECOND])
def test_a_slot_is_renewed_by_the_clock_that_counts_and_ends_by_itself(
    now: int, server: RedisServer, client: Any
) -> None:
    async def work() -> None:
        store = RedisStore(server.url, now=now, lease=90_000_500)
        await store.renew([("slots", "a"), ("slots", "b")])
        await store.renew([])
        await store.close()

    run(work)
    ends = dict(client.zrange("slots", 0, -1, withscores=True))
    assert set(ends) == {"a", "b"}
    assert len(set(ends.values())) == 1
    assert abs(ends["a"] - (now or time.time() * 1e6) - 90_000_500) < (1 if now else 30e6)
    assert 60_000 < client.pttl("slots") <= 90_001


def test_the_lease_of_slots_is_rounded_up_to_milliseconds() -> None:
    async def work() -> list[list[bytes]]:
        async with by_hand() as (hand, port):
            hand.says = lambda command: b":1\r\n"
            store = RedisStore(f"redis://127.0.0.1:{port}", now=1000, lease=1001)
            await store.renew([("k", "h")])
            await store.close()
            return [command for command in hand.asked if command[0] in (b"ZADD", b"PEXPIRE")]

    assert run(work) == [[b"ZADD", b"k", b"2001", b"h"], [b"PEXPIRE", b"k", b"2"]]


def test_the_clock_is_the_servers_in_microseconds() -> None:
    async def work() -> list[list[bytes]]:
        async with by_hand() as (hand, port):
            hand.says = lambda command: (
                b"*2\r\n$2\r\n17\r\n$1\r\n5\r\n" if command == [b"TIME"] else b":1\r\n"
            )
            store = RedisStore(f"redis://127.0.0.1:{port}", lease=1000)
            await store.renew([("k", "h")])
            await store.close()
            return [command for command in hand.asked if command[0] in (b"ZADD", b"TIME")]

    assert run(work) == [[b"TIME"], [b"ZADD", b"k", b"17001005", b"h"]]


@needs_redis
def test_a_slot_is_released_by_its_holder(server: RedisServer, client: Any) -> None:
    async def work() -> None:
        store = RedisStore(server.url)
        await store.renew([("slots", "a"), ("slots", "b"), ("others", "a")])
        await store.release([("slots", "a"), ("slots", "nobody"), ("others", "a")])
        await store.release([])
        await store.close()

    run(work)
    assert client.zrange("slots", 0, -1) == ["b"]
    assert client.exists("others") == 0


WRONG = b"-ERR it is not to be\r\n"


@pytest.mark.parametrize("what", ["admit", "renew", "release", "warnings"])
@pytest.mark.parametrize("says", [WRONG, b":1\r\n", b"*1\r\n$1\r\nx\r\n", b"$-1\r\n"])
def test_an_error_or_nonsense_admits_nobody_and_is_told_without_its_text(what: str, says: bytes) -> None:
    async def work() -> None:
        async with by_hand() as (hand, port):
            hand.says = lambda command: says
            store = RedisStore(f"redis://127.0.0.1:{port}", now=5)
            attempts = {
                "admit": lambda: store.admit([USES], "h"),
                "renew": lambda: store.renew([("k", "h")]),
                "release": lambda: store.release([("k", "h")]),
                "warnings": store.warnings,
            }
            if what in ("renew", "release") and says != WRONG:
                await attempts[what]()
            else:
                with pytest.raises(StoreError) as error:
                    await attempts[what]()
                assert "not to be" not in str(error.value)
            await store.close()

    run(work)


@pytest.mark.parametrize("count", [0, 2, 4, 6])
def test_an_answer_for_another_number_of_counters_admits_nobody(count: int) -> None:
    async def work() -> None:
        async with by_hand() as (hand, port):
            hand.says = lambda command: (
                b"$3\r\nsha\r\n" if command[0] == b"SCRIPT" else b"*%d\r\n" % count + b":1\r\n" * count
            )
            store = RedisStore(f"redis://127.0.0.1:{port}")
            with pytest.raises(StoreError, match="answers something else than was asked"):
                await store.admit([USES], "h")
            await store.close()

    run(work)


@pytest.mark.parametrize(
    "value", [b"$1\r\n1\r\n", b"$-1\r\n", b"*1\r\n:1\r\n"], ids=["text", "nothing", "a list"]
)
@pytest.mark.parametrize("fits", [b":0\r\n", b":1\r\n"], ids=["refused", "admitted"])
def test_an_answer_of_something_else_than_numbers_counts_as_a_store_that_fails(
    fits: bytes, value: bytes
) -> None:
    async def work() -> None:
        async with by_hand() as (hand, port):
            hand.says = lambda command: (
                b"$3\r\nsha\r\n" if command[0] == b"SCRIPT" else b"*3\r\n" + fits + 2 * value
            )
            store = RedisStore(f"redis://127.0.0.1:{port}")
            with pytest.raises(StoreError, match="answers something else than was asked"):
                await store.admit([USES], "h")
            await store.close()

    run(work)


def test_what_is_asked_of_the_script() -> None:
    async def work() -> list[list[bytes]]:
        async with by_hand() as (hand, port):
            hand.says = lambda command: (
                b"$3\r\nsha\r\n" if command[0] == b"SCRIPT" else b"*9\r\n" + b":1\r\n" * 9
            )
            store = RedisStore(f"redis://127.0.0.1:{port}", lease=60)
            for _ in range(2):
                await store.admit([SLOTS, RATE, QUOTA], "me")
            await store.close()
            return hand.asked[-3:]

    load, first, second = run(work)
    rest = [b"3", b"slots", b"rate", b"quota", b"me", b"60", b"86400", b"0", b"slots", b"2", b"0"]
    rest += [b"rate", b"2", b"10000000", b"count", b"3", b"%d" % (NOW + 100)]
    assert load[:2] == [b"SCRIPT", b"LOAD"]
    assert first[0] == b"EVAL"
    assert load[2] == first[1]
    assert second == [b"EVALSHA", b"sha", *rest]
    assert first[2:] == rest


# -- the connection -----------------------------------------------------------------------------------


def test_one_connection_is_dialled_for_all_who_wait_and_kept() -> None:
    async def work() -> int:
        async with by_hand() as (hand, port):
            hand.says = lambda command: b":1\r\n"
            store = RedisStore(f"redis://127.0.0.1:{port}")
            await asyncio.gather(*[store.release([("k", "h")]) for _ in range(20)])
            await store.release([("k", "h")])
            count = len(hand.writers)
            await store.close()
            return count

    assert run(work) == 1


def test_who_stops_waiting_does_not_stop_the_dialling() -> None:
    async def work() -> None:
        async with by_hand() as (hand, port):
            hand.says = lambda command: b":1\r\n"
            store = RedisStore(f"redis://127.0.0.1:{port}")
            lost, other = asking(store.release([("k", "a")])), asking(store.release([("k", "b")]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            lost.cancel()
            await other
            assert len(hand.writers) == 1
            await store.close()

    run(work)


def test_a_connection_that_ended_is_dialled_again() -> None:
    async def work() -> None:
        async with by_hand() as (hand, port):
            hand.says = lambda command: b":1\r\n"
            store = RedisStore(f"redis://127.0.0.1:{port}")
            await store.release([("k", "h")])
            hand.writers[0].close()
            await asyncio.wait_for(hand.ended.wait(), 5)
            while store._line is not None and store._line.is_open:  # noqa: ASYNC110 - it comes over a socket
                await asyncio.sleep(0.001)
            await store.release([("k", "h")])
            assert len(hand.writers) == 2
            await store.close()

    run(work)


def test_a_port_at_which_nothing_listens_is_a_failure_and_is_tried_again_next_time() -> None:
    async def work() -> None:
        async with by_hand() as (_, port):
            pass
        store = RedisStore(f"redis://127.0.0.1:{port}")
        for _ in range(2):
            with pytest.raises(StoreError, match=r"^the store failed \(ConnectionError\)$"):
                await store.release([("k", "h")])
        await store.close()

    run(work)


def test_something_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert redis.DIALLING == 1.0
    monkeypatch.setattr(redis, "DIALLING", 0.05)
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        ended.set()
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        store = RedisStore(f"redis://127.0.0.1:{port}/1")
        with pytest.raises(StoreError, match=r"^the store failed \(Time"):
            await store.release([("k", "h")])
        await asyncio.wait_for(ended.wait(), 5)
        await store.close()
        server.close()

    run(work)


def test_closing_ends_the_dialling_and_the_connection() -> None:
    async def work() -> None:
        async with by_hand() as (hand, port):
            hand.says = lambda command: b":1\r\n"
            store = RedisStore(f"redis://127.0.0.1:{port}")
            await store.close()
            await store.release([("k", "h")])
            await store.close()
            await asyncio.wait_for(hand.ended.wait(), 5)
            other = RedisStore(f"redis://127.0.0.1:{port}")
            asked = asking(other.release([("k", "h")]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await other.close()
            with pytest.raises(asyncio.CancelledError):
                await asked

    run(work)


@needs_redis
def test_a_password_opens_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", requirepass="hunter2hunter2").start()

    async def work() -> None:
        for password, is_good in (("hunter2hunter2", True), ("wrong", False), (None, False)):
            store = RedisStore(server.url, Secret(password) if password else None)
            if is_good:
                await store.release([("k", "h")])
            else:
                with pytest.raises(StoreError) as error:
                    await store.release([("k", "h")])
                assert "hunter2" not in str(error.value)
            await store.close()

    try:
        run(work)
    finally:
        server.stop()


def test_what_is_no_url_is_refused() -> None:
    for url in ("http://127.0.0.1", "redis://127.0.0.1:port"):
        with pytest.raises(StoreError, match="is not a URL as in redis"):
            RedisStore(url)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "ConnectionPool", None)
    with pytest.raises(StoreError, match=r"pip install 'presign-proxy\[redis\]'"):
        RedisStore("redis://127.0.0.1")


def test_the_authority_of_the_store_is_handed_on(tmp_path: Path) -> None:
    store = RedisStore("rediss://127.0.0.1", ca=tmp_path / "ca.pem")
    assert store._pool.connection_kwargs["ssl_ca_certs"] == str(tmp_path / "ca.pem")
    assert "ssl_ca_certs" not in RedisStore("rediss://127.0.0.1")._pool.connection_kwargs


def test_what_may_have_been_counted_is_never_sent_twice() -> None:
    retry = RedisStore("redis://127.0.0.1")._pool.connection_kwargs["retry"]
    assert retry._retries == 0
    assert RedisStore("redis://127.0.0.1")._pool.connection_kwargs["socket_timeout"] is None


# -- what may lose counts -----------------------------------------------------------------------------

DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


def bulk(*words: str) -> bytes:
    return b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)


def warned(info: str, config: dict[str, str] | None) -> list[str]:
    pairs = [word for pair in (config or {}).items() for word in pair]
    said = b"*%d\r\n" % len(pairs) + bulk(*pairs) if config is not None else b"-NOPERM no\r\n"

    async def work() -> list[str]:
        async with by_hand() as (hand, port):
            hand.says = lambda command: bulk(info) if command[0] == b"INFO" else said
            store = RedisStore(f"redis://127.0.0.1:{port}")
            found = await store.warnings()
            assert hand.asked[-2:] == [
                [b"INFO", b"server"],
                [b"CONFIG", b"GET", *(name.encode() for name in DURABLE)],
            ]
            await store.close()
            return found

    return run(work)


@pytest.mark.parametrize(("version", "is_old"), [("6.2.1", True), ("7.0.0", False), ("10.1.0", False)])
def test_a_server_that_is_too_old_is_warned_of(version: str, is_old: bool) -> None:
    found = warned(f"# Server\r\nredis_version:{version}\r\nredis_mode:standalone", DURABLE)
    wanted = [f"the store is version {version[0]}; it has to be 7 or later"] if is_old else []
    assert found == wanted


def test_a_server_without_a_version_is_too_old() -> None:
    assert warned("# Server", DURABLE) == ["the store is version 0; it has to be 7 or later"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("appendonly", "no"), ("appendfsync", "everysec"), ("maxmemory-policy", "allkeys-lru")],
)
def test_a_server_that_may_lose_counts_is_warned_of(name: str, value: str) -> None:
    found = warned("redis_version:7.2", DURABLE | {name: value})
    assert found == [f"the store has {name} {value}; only with {DURABLE[name]} is no count ever lost"]


def test_a_server_that_does_not_tell_may_lose_counts() -> None:
    why = "the store does not tell its configuration: it may lose counts"
    assert warned("redis_version:7.2", None) == [why]
    assert warned("redis_version:6.2", None) == ["the store is version 6; it has to be 7 or later", why]
    missing = warned("redis_version:7.2", {})
    assert len(missing) == 3
    assert "the store has appendonly ; only with yes is no count ever lost" in missing


def test_a_configuration_is_read_as_a_map_and_as_a_list() -> None:
    assert redis._pairs({b"a": "b", "c": b"d"}) == {"a": "b", "c": "d"}
    assert redis._pairs([b"a", "b", "c", b"d"]) == {"a": "b", "c": "d"}
    with pytest.raises(ValueError, match="zip"):
        redis._pairs([b"a", "b", "c"])
