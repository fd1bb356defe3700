"""A Redis that is not what it was: promoted elsewhere, one of a cluster, or closed to its user."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from presign_proxy.config.load_beside import load_calmly
from presign_proxy.config.registry_file.memory import Memory
from presign_proxy.errors import Denied, Limited
from presign_proxy.limits.counter import Counter
from presign_proxy.limits.limiter import Limiter
from presign_proxy.limits.stores.open import Choice
from presign_proxy.signing.secret import Secret
from support.config import write_config
from support.lab import bearer_connection
from support.places import ROOT
from support.process import StartFailed
from support.puppet import eventually
from support.redis import RedisServer
from support.serving import Serve

pytestmark = pytest.mark.needs("redis-server")


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    with contextlib.ExitStack() as started:

        def make(**settings: str) -> RedisServer:
            settings = {"appendonly": "no", "repl_diskless_sync_delay": "0"} | settings
            server = RedisServer(tmp_path / f"redis{len(list(tmp_path.iterdir()))}", **settings).start()
            started.callback(server.stop)
            return server

        yield make


class Address:
    """One that stays, as a name or a virtual address does, whichever server it leads new connections to."""

    def __init__(self, server: RedisServer) -> None:
        self.leads_to = server

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        listening = await asyncio.start_server(self._relay, "127.0.0.1")
        try:
            yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        finally:
            listening.close()  # and not waited for: those that it relays go on

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self.leads_to.port)
        await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer))

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()


def request(key: str = "uses", most: int = 100, number: int = 0) -> Any:
    return SimpleNamespace(counters=(Counter(key, "count", key, most),), request_id=f"req_{key}_{number}")


def run(work: Callable[[Limiter], Coroutine[Any, Any, None]], url: str, password: str = "") -> None:
    async def main() -> None:
        limiter = Limiter()
        limiter.use(Choice(url, Path(), Secret(password) if password else None), needed=True)
        await work(limiter)
        await limiter.close()

    asyncio.run(main())


def promote(old: RedisServer, new: RedisServer) -> None:
    new.client().replicaof("NO", "ONE")
    old.client().replicaof("127.0.0.1", str(new.port))


def test_an_old_master_that_keeps_its_clients_refuses_nobody_after_a_failover(
    make_redis: Callable[..., RedisServer],
) -> None:
    """Its connections stay open, and each answers READONLY for as long as they do."""
    old, new = make_redis(), make_redis()
    new.client().replicaof("127.0.0.1", str(old.port))
    address = Address(old)

    async def work() -> None:
        limiter = Limiter()
        async with address.served() as url:
            limiter.use(Choice(url, Path()), needed=True)
            for number in range(6):
                await limiter.admit(request(most=50, number=number))
            assert await asyncio.to_thread(old.client().wait, 1, 5000) == 1
            await asyncio.to_thread(promote, old, new)
            address.leads_to = new
            together = [limiter.admit(request(most=50, number=6 + number)) for number in range(40)]
            assert [one.slot for one in await asyncio.gather(*together)] == [None] * 40
            assert limiter.counts["failed"] == limiter.counts["store_failures"] == 0
            for number in range(4):
                await limiter.admit(request(most=50, number=46 + number))
            with pytest.raises(Limited):  # what was counted before the failover counts
                await limiter.admit(request(most=50, number=50))
            await limiter.close()

    asyncio.run(work())


def test_a_replica_that_nobody_promotes_refuses_and_says_that_it_is_one(
    make_redis: Callable[..., RedisServer],
) -> None:
    master, replica = make_redis(), make_redis()
    replica.client().replicaof("127.0.0.1", str(master.port))

    async def work(limiter: Limiter) -> None:
        for _ in range(20):
            with pytest.raises(Denied):
                await limiter.admit(request())
        with pytest.raises(Denied, match="left alone"):
            await limiter.admit(request())
        before = replica.client().info("stats")["total_connections_received"]
        for _ in range(20):
            with pytest.raises(Denied):
                await limiter.admit(request())
        # Not a new connection for each request.
        assert replica.client().info("stats")["total_connections_received"] <= before + 3

    run(work, replica.url)


def test_one_node_of_a_cluster_does_not_shut_out_what_it_can_count(
    make_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """Half of all keys are elsewhere: nobody else's requests may be refused for that."""
    node = make_redis(cluster_enabled="yes")
    client = node.client()
    client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    far = client.execute_command("CLUSTER", "KEYSLOT", "far")
    other = make_redis(cluster_enabled="yes")
    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus_port)
    there = other.client().execute_command("CLUSTER", "MYID")

    assert eventually(lambda: there in str(client.execute_command("CLUSTER", "NODES")), 10)
    # It takes two seconds for a new one to dare to be written to.
    assert eventually(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok", 10)
    client.execute_command("CLUSTER", "SETSLOT", far, "NODE", there)

    async def work(limiter: Limiter) -> None:
        for number in range(20):
            with pytest.raises(Denied, match="is a Redis Cluster"):
                await limiter.admit(request("far", number=number))
            await limiter.admit(request("near", number=number))
        assert not limiter.is_down

    with caplog.at_level(logging.WARNING):
        run(work, node.url)
    assert sum("Redis Cluster" in one.getMessage() for one in caplog.records) <= 2


def test_a_gateway_in_front_of_a_cluster_does_not_start_and_says_why(
    make_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    node = make_redis(cluster_enabled="yes")
    limited = bearer_connection("http://127.0.0.1:9", "sk-REALSECRET-0123456789", limits=[{"quota": "9/day"}])
    config = {"connections": {"conn": limited}, "limits": {"store": node.url}}
    with pytest.raises(StartFailed) as failed:
        Serve(tmp_path / "serve", config).start()
    assert "limits.store: is a Redis Cluster" in failed.value.log


@pytest.mark.parametrize("forbidden", ["-info", "-config", "-script", "-script|load", "-@admin -@dangerous"])
def test_a_user_who_may_not_ask_the_store_about_itself_is_no_line_in_the_log_for_each_request(
    make_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture, forbidden: str
) -> None:
    server = make_redis()
    server.client().execute_command(*f"ACL SETUSER gate on >secret ~* &* +@all {forbidden}".split(), keys=[])

    async def work(limiter: Limiter) -> None:
        for number in range(30):
            await limiter.admit(request(most=30, number=number))
            await asyncio.sleep(0.005)
        with pytest.raises(Limited):
            await limiter.admit(request(most=30, number=30))

    with caplog.at_level(logging.WARNING):
        run(work, server.url.replace("://", "://gate@"), "secret")
    assert len([one for one in caplog.records if one.name.startswith("presign")]) <= 6


@pytest.mark.parametrize("forbidden", ["-evalsha -eval", "-get -set -incrby", "-time"])
def test_a_user_who_may_not_count_refuses_with_one_line_in_the_log(
    make_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture, forbidden: str
) -> None:
    server = make_redis()
    server.client().execute_command(*f"ACL SETUSER gate on >secret ~* &* +@all {forbidden}".split(), keys=[])

    async def work(limiter: Limiter) -> None:
        for number in range(30):
            with pytest.raises(Denied):
                await limiter.admit(request(number=number))

    with caplog.at_level(logging.WARNING):
        run(work, server.url.replace("://", "://gate@"), "secret")
    assert len([one for one in caplog.records if one.name.startswith("presign")]) <= 4


def test_a_redis_that_is_gone_is_named_at_the_first_request_and_its_client_hears_of_limits(
    make_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """The client read that the gateway cannot "verify requests", as if its signature were in doubt."""
    server = make_redis()

    async def work(limiter: Limiter) -> None:
        await limiter.admit(request())
        server.stop()
        caplog.clear()
        with pytest.raises(Denied) as refused:
            await limiter.admit(request(number=1))
        assert refused.value.code == "unavailable"
        assert "count this request against its limits" in (refused.value.sentence or "")
        assert str(server.port) not in (refused.value.sentence or "")

    with caplog.at_level(logging.WARNING):
        run(work, server.url.replace("://", "://default@"))
    said = [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]
    assert len(said) == 1
    assert (
        f"limits cannot be counted, their requests are answered 503: redis at 127.0.0.1:{server.port}: "
        in said[0]
    )
    assert "default@" not in said[0]


def test_a_user_with_the_documented_commands_counts(make_redis: Callable[..., RedisServer]) -> None:
    text = (ROOT / "docs/limits.md").read_text("utf-8")
    documented = re.search(r"`(\+eval [^`]+)`", text)
    assert documented
    server = make_redis()
    acl = f"ACL SETUSER gate on >secret ~presign:* {documented[1]}"
    server.client().execute_command(*acl.split(), keys=[])
    slots = Counter("slots", "slots", "presign:{c}:slots", 2)
    rate = Counter("rate", "rate", "presign:{c}:rate", 2, 1_000_000)
    quota = Counter("quota", "count", "presign:{c}:quota", 9, until=4_000_000_000)
    every: Any = SimpleNamespace(counters=(slots, rate, quota), request_id="req_1")

    async def work(limiter: Limiter) -> None:
        slot = (await limiter.admit(every)).slot
        assert slot
        await slot.store.renew(slot.leases)
        slot.release()
        await asyncio.sleep(0.05)
        assert limiter.counts["store_failures"] == 0

    run(work, server.url.replace("://", "://gate@"), "secret")
    assert server.client().zcard("presign:{c}:slots") == 0


def test_a_reload_never_waits_for_the_store(make_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """Only a start looks at it: what is revoked comes into force with a store that is stuck, too."""
    server = make_redis()
    server.freeze()
    limited = bearer_connection("http://127.0.0.1:9", "sk-REALSECRET-0123456789", limits=[{"quota": "9/day"}])
    path = write_config({"connections": {"conn": limited}, "limits": {"store": server.url}}, tmp_path / "c")
    assert load_calmly(path, {}, "config", Memory()).limited
    assert server.client(socket_timeout=0.2).connection_pool  # nobody was asked; it could not have answered
    server.thaw()
    assert server.client().info("stats")["total_connections_received"] <= 2


def slotted(number: int, most: int = 3) -> Any:
    counters = (
        Counter("concurrency", "slots", "{conn}:slots", most),
        Counter("uses", "count", "{conn}:uses", 999),
    )
    return SimpleNamespace(counters=counters, request_id=f"req_{number}")


def test_a_store_that_stood_still_for_a_moment_keeps_no_slot_of_what_was_refused_meanwhile(
    make_redis: Callable[..., RedisServer],
) -> None:
    """It reads later what it was asked before, and took a slot for each, which nobody was to give back: for a
    minute everybody was answered 429.
    """
    server = make_redis()

    async def work(limiter: Limiter) -> None:
        slot = (await limiter.admit(slotted(0))).slot
        assert slot is not None
        slot.release()
        server.freeze()
        try:
            refused = await asyncio.gather(
                *[limiter.admit(slotted(number)) for number in range(1, 101)], return_exceptions=True
            )
            while limiter.counts["store_failures"] < 200:  # noqa: ASYNC110 - to give back has failed as well
                await asyncio.sleep(0.01)
        finally:
            server.thaw()
        assert [type(one) for one in refused] == [Denied] * 100
        assert await asyncio.to_thread(eventually, lambda: not server.client().zcard("{conn}:slots"), 20)
        held = [await admitted(limiter, slotted(number)) for number in range(200, 203)]
        assert len({*held}) == 3

    run(work, server.url)


@pytest.mark.parametrize("how", ["freeze", "kill"])
def test_a_slot_whose_request_ends_while_the_store_is_away_is_free_once_it_is_back(
    how: str, make_redis: Callable[..., RedisServer]
) -> None:
    """Each was taken for a minute. With a short pause every minute nobody was served at all."""
    server = make_redis(appendonly="yes", appendfsync="always")

    async def work(limiter: Limiter) -> None:
        slots = [(await limiter.admit(slotted(number))).slot for number in range(3)]
        server.freeze() if how == "freeze" else server.kill()
        for slot in slots:
            assert slot is not None
            slot.release()
        while limiter.counts["store_failures"] < 3:  # noqa: ASYNC110 - to give back has failed
            await asyncio.sleep(0.01)
        server.thaw() if how == "freeze" else await asyncio.to_thread(server.start)
        assert await asyncio.to_thread(eventually, lambda: not server.client().zcard("{conn}:slots"), 20)
        assert await admitted(limiter, slotted(3)) is not None

    run(work, server.url)


async def admitted(limiter: Limiter, asked: Any) -> Any:
    """Its slot, as soon as the limiter asks the store again."""
    for _ in range(200):
        try:
            return (await limiter.admit(asked)).slot
        except Limited:
            raise
        except Denied:
            await asyncio.sleep(0.05)
    raise TimeoutError
