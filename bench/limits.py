"""What one admission costs in each store, beside a bare PING of the same Redis client in the same run.

An admission is the whole of `Limiter.admit`: deadline, breaker and store; its limits are rates, quotas and
uses. A slot is a round trip more, because it is given back. The first table has one request after the
other; the second, 64 at a time; the third, how the cost of three limits grows with the counters that are
there already. "fsync" is a Redis as docs/limits.md asks for it, where each admission waits for the disk, as
it does in a file; a PING does not, and is compared with a Redis that does not. The machine may be shared,
and Redis runs on it: compare rows.

Run: .venv/bin/python bench/limits.py [--rounds 5] [--calls 500] [--keys 1000000]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "addon"), str(ROOT / "tests")]

import redis.asyncio  # noqa: E402 - the path is set above
from throughput import cpu_seconds  # noqa: E402

from presign_proxy.errors import Denied  # noqa: E402
from presign_proxy.limits.counter import SECOND, Counter  # noqa: E402
from presign_proxy.limits.limiter import Limiter  # noqa: E402
from presign_proxy.limits.stores.memory import MemoryStore  # noqa: E402
from presign_proxy.limits.stores.redis import RedisStore  # noqa: E402
from presign_proxy.limits.stores.sqlite import SqliteStore  # noqa: E402
from presign_proxy.limits.stores.store import Store  # noqa: E402
from support.programs import require  # noqa: E402
from support.redis import RedisServer  # noqa: E402

AT_ONCE = 64
PING = "redis, bare PING"
LATER = int(time.time()) + 86_400
_requests = itertools.count()

Call = Callable[[], Awaitable[Any]]


def counters(count: int, url: int = 0) -> tuple[Counter, ...]:
    """A request's counters, those of one URL among them."""
    tag = "presign:{conn_bench}:"
    many = 10**9
    return (
        Counter("rate", "rate", f"{tag}rate:60:connection", 1_000_000, 100),
        Counter("quota", "count", f"{tag}quota:2026-11:connection", many, until=LATER),
        Counter("uses", "count", f"{tag}uses:url:{url:032x}", many, until=LATER),
        Counter("rate", "rate", f"{tag}rate:1:client:192.0.2.1", 1_000_000, SECOND // 10_000),
        Counter("quota", "count", f"{tag}quota:2026-11-22:url:{url:032x}", many, until=LATER),
        Counter("rate", "rate", f"{tag}rate:3600:client:192.0.2.1", 1_000_000, SECOND // 10_000),
        Counter("slots", "slots", f"{tag}slots:connection", 100_000),
    )[:count]


def admission(limiter: Limiter, count: int) -> Call:
    urls = [counters(count, url) for url in range(10)]

    async def admit() -> None:
        number = next(_requests)
        request: Any = SimpleNamespace(counters=urls[number % 10], request_id=f"req_{number:024x}")
        while True:
            try:
                slot = (await limiter.admit(request)).slot
                break
            except Denied:  # somebody else had the disk for a quarter of a second
                limiter.counts["late"] += 1
                await asyncio.sleep(0.05)
        if slot is not None:
            slot.release()  # nobody waits for it, but it is part of the load

    return admit


async def microseconds(call: Call, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await call()
    return (time.perf_counter() - began) / calls * 1e6


async def table(calls: dict[str, Call], servers: Sequence[RedisServer], asked: argparse.Namespace) -> None:
    """Every row in turn, round after round, so that a noisy moment hits all of them."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    cpu = dict.fromkeys(calls, 0.0)
    for call in calls.values():
        await microseconds(call, 20)
    for _ in range(asked.rounds):
        for name, call in calls.items():
            before = busy(servers)
            samples[name].append(await microseconds(call, asked.calls))
            cpu[name] += (busy(servers) - before) / asked.calls / asked.rounds * 1e6
    base, base_cpu = statistics.median(samples[PING]), cpu[PING]
    print(f"{'':24} {'median':>10} {'lowest':>10} {'÷ PING':>8} {'CPU':>10} {'÷ PING':>8}")
    for name, found in samples.items():
        median = statistics.median(found)
        row = f"{name:24} {median:7.0f} µs {min(found):7.0f} µs {median / base:8.2f}"
        print(f"{row} {cpu[name]:7.0f} µs {cpu[name] / base_cpu:8.2f}", flush=True)


def busy(servers: Sequence[RedisServer]) -> float:
    """CPU seconds of this process and of Redis, which do not depend on who else uses the machine."""
    return time.process_time() + sum(cpu_seconds(server.pid) for server in servers)


async def fill(store: Store, begin: int, end: int) -> None:
    """Counters of as many URLs."""
    batch = 2000
    for first in range(begin, end, batch):
        many = [store.admit(counters(3, url)[2:], "h") for url in range(first, min(end, first + batch))]
        await asyncio.gather(*many)


async def growth(limiters: dict[str, Limiter], asked: argparse.Namespace) -> None:
    sizes = [size for size in (10, 1_000, 1_000_000) if size <= asked.keys]
    print("\nthree limits, with as many counters of URLs:")
    print(f"{'':14}" + "".join(f"{size:>14,}" for size in sizes))
    found: dict[str, list[float]] = {name: [] for name in limiters}
    before = 10
    for size in sizes:
        for name, limiter in limiters.items():
            await fill(limiter._store, before, size)
            samples = [await microseconds(admission(limiter, 3), asked.calls) for _ in range(asked.rounds)]
            found[name].append(statistics.median(samples))
        before = size
    for name, costs in found.items():
        print(f"{name:14}" + "".join(f"{cost:11.0f} µs" for cost in costs))


async def throughput(limiters: dict[str, Limiter], asked: argparse.Namespace) -> None:
    print(f"\n{AT_ONCE} at a time:")
    for name, limiter in limiters.items():
        for count in (1, 3, 6):
            admit = admission(limiter, count)
            rates = []
            for _ in range(asked.rounds):
                began = time.perf_counter()
                for _ in range(asked.calls // AT_ONCE + 1):
                    await asyncio.gather(*[admit() for _ in range(AT_ONCE)])
                done = (asked.calls // AT_ONCE + 1) * AT_ONCE
                rates.append(done / (time.perf_counter() - began))
            print(f"{name:14} {count} limits {statistics.median(rates):9,.0f} admissions/s", flush=True)


async def measure(
    asked: argparse.Namespace, directory: Path, plain: RedisServer, durable: RedisServer
) -> None:
    stores: dict[str, Store] = {
        "memory": MemoryStore(max_counters=2_000_000),
        "sqlite": SqliteStore(directory / "presign.db"),
        "redis": RedisStore(plain.url),
        "redis, fsync": RedisStore(durable.url),
    }
    limiters = {}
    for name, store in stores.items():
        limiters[name] = Limiter()
        limiters[name]._store = store
        await store.warnings()  # connects
    ping = redis.asyncio.Redis.from_url(plain.url)
    calls: dict[str, Call] = {PING: ping.ping}
    for name, limiter in limiters.items():
        for count in (1, 3, 6):
            calls[f"{name}, {count} limits"] = admission(limiter, count)
        calls[f"{name}, 6 and a slot"] = admission(limiter, 7)
    await table(calls, (plain, durable), asked)
    await throughput(limiters, asked)
    await growth({name: one for name, one in limiters.items() if "fsync" not in name}, asked)
    print("\nnot counted in time:", {name: limiter.counts["late"] for name, limiter in limiters.items()})
    await ping.aclose()
    for limiter in limiters.values():
        await limiter.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--keys", type=int, default=1_000_000)
    asked = parser.parse_args()
    require("redis-server")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        plain = RedisServer(directory / "plain", appendfsync="everysec").start()
        stack.callback(plain.stop)
        durable = RedisServer(directory / "durable").start()
        stack.callback(durable.stop)
        asyncio.run(measure(asked, directory, plain, durable))


if __name__ == "__main__":
    main()
