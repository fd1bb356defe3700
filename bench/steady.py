"""Many clients that asked once and wait, and some that go on asking: what `presign serve` takes to hold them.

Those that ask do so in turn, at a fixed rate all together: small answers, uploads and streams of events, on
connections that are kept for fifty requests and then made anew. Every other one of those that wait asks once
more before half time. Memory and descriptors of each process are looked at every few seconds; at the end
everybody hangs up.

Exit code 1 where a request failed, a process goes on growing in the second half, descriptors are left, or
somebody was hung up on who had waited for less than the ten minutes that mitmproxy gives.

With `--reloads`, something is taken back each second, or as soon as the last one is, in an encrypted
registry of `--connections`: in turn a URL, a signing key and a connection are revoked, a connection is
disabled, one is removed, and a key is replaced. Each time the registry is written as the command writes
it, by another process, and all workers read it again. How long such a URL is still served from the moment
in which all was written is printed, median and worst of each kind. Exit code 1 where that is more than a
second.

Run: .venv/bin/python bench/steady.py [--minutes 10] [--idle 1000] [--active 200] [--rate 150] [--workers 1]
     [--reloads] [--connections 1000]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import itertools
import multiprocessing
import random
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "addon"), str(ROOT / "tests"), str(ROOT / "bench")]

from registry import entries  # noqa: E402 - the path is set above

from presign_proxy.config.registry_file.edit import Draft, changing  # noqa: E402
from presign_proxy.config.registry_file.encryption import new_key, parse_key  # noqa: E402
from presign_proxy.signing.keys import signature_id  # noqa: E402
from presign_proxy.signing.secret import Secret  # noqa: E402
from support.asking import SECRET, Grant, wire  # noqa: E402
from support.lab import bearer_connection  # noqa: E402
from support.process import resident  # noqa: E402
from support.recorder import Recorder  # noqa: E402
from support.serving import CONN, Serve  # noqa: E402

AT: Final = "2026-01-01T00:00:00Z"
EVERY: Final = 5.0
"""Seconds between two looks at the processes."""
KEPT: Final = 50
"""Requests on one connection."""
KINDS: Final = ("answer",) * 7 + ("upload",) * 2 + ("stream",)
PATIENCE: Final = 30.0
HELD: Final = 590.0
"""Seconds for which a connection on which nothing happens has to be held: nearly mitmproxy's ten minutes."""
GROWTH: Final = 400.0
"""KiB a minute by which a process may grow in the second half: what is left of warming up. At 150 requests a
second, 46 bytes that each of them leaves are more.
"""
LEFT: Final = 3
"""Descriptors that a process may have more than before anybody came."""


@dataclass
class Told:
    """What came of it."""

    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    """Seconds for which clients waited that were hung up on."""
    took: list[float] = field(default_factory=list)
    """Seconds of each small answer."""
    delays: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds for which a URL was still served that had been taken back, by how."""


class Client:
    """One connection."""

    def __init__(self, port: int, told: Told) -> None:
        self._port = port
        self._told = told
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._asked = 0

    async def ask(self, kind: str) -> None:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._ask(kind)
            self._told.answered[kind] += 1
            if kind == "answer":
                self._told.took.append(time.monotonic() - begun)
        except (OSError, ValueError, EOFError, TimeoutError) as error:
            self._told.failed.append(f"{kind}: {type(error).__name__} {error}"[:200])
            self.close()

    async def wait(self) -> None:
        """Until the other side hangs up."""
        assert self._streams is not None
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            await self._streams[0].read(1)
        self._told.lengths.append(time.monotonic() - begun)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _ask(self, kind: str) -> None:
        if self._streams is None:
            self._streams, self._asked = await asyncio.open_connection("127.0.0.1", self._port), 0
        reader, writer = self._streams
        request, expected = _request(kind)
        writer.write(request)
        await writer.drain()
        body = await _answer(reader)
        if expected not in body:
            raise ValueError(f"another answer: {body[:80]!r}")
        self._asked += 1
        if self._asked == KEPT:
            self.close()


def _request(kind: str) -> tuple[bytes, bytes]:
    """A request, and what stands in its answer."""
    if kind == "upload":
        size = random.randrange(1, 300_000)
        return wire(Grant(CONN).target("echo"), method="POST", body=bytes(size)), b'"length": %d' % size
    if kind == "stream":
        return wire(Grant(CONN).target("sse")), b"data: event 4"
    return wire(Grant(CONN).target("v1/models")), b"{"


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """The body of the next answer, to its end. Raises ValueError where that is none of status 200."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200 "):
        raise ValueError(head[:80].decode("latin-1"))
    _, _, length = head.partition(b"\r\ncontent-length:")
    if length:
        return await reader.readexactly(int(length.partition(b"\r\n")[0]))
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


class Watch:
    """Looks at the processes of a gateway."""

    def __init__(self, gateway: Serve) -> None:
        self._names = {gateway.pid: "supervisor"}
        serving = gateway.serving()
        for pid in gateway.children():
            self._names[pid] = f"worker {pid}" if pid in serving else "reserve"
        self.samples: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self._before = self.descriptors()
        self._most = dict(self._before)

    def descriptors(self) -> dict[int, int]:
        return {pid: len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self._names}

    async def run(self) -> None:
        while True:
            for pid, count in self.descriptors().items():
                self.samples[pid].append((time.monotonic() / 60, resident(pid) / 1024))
                self._most[pid] = max(self._most[pid], count)
            await asyncio.sleep(EVERY)

    async def settle(self) -> None:
        """Wait until those who have hung up are forgotten."""
        ends = time.monotonic() + 20
        while self.left() > 0 and time.monotonic() < ends:  # noqa: ASYNC110 - others hang up
            await asyncio.sleep(0.5)

    def left(self) -> int:
        """The most descriptors that one process has more than before."""
        return max(count - self._before[pid] for pid, count in self.descriptors().items())

    def growth(self, pid: int) -> float:
        """KiB a minute, over the second half."""
        half = self.samples[pid][len(self.samples[pid]) // 2 :]
        at, rss = zip(*half, strict=True)
        return statistics.linear_regression(at, rss).slope if len(half) > 2 else 0.0

    def report(self) -> list[str]:
        """Print a table, and memory at each tenth; returns what is wrong."""
        print(f"{'':14}{'MB: least':>11}{'most':>8}{'KiB/min':>9}{'descriptors':>13}{'most':>7}{'left':>6}")
        now, wrong = self.descriptors(), []
        for pid, name in self._names.items():
            rss = [one / 1024 for _, one in self.samples[pid]]
            print(
                f"{name:14}{min(rss):11.1f}{max(rss):8.1f}{self.growth(pid):9.1f}"
                f"{self._before[pid]:13}{self._most[pid]:7}{now[pid]:6}"
            )
            tenths = rss[:: max(1, len(rss) // 10)]
            print(f"{'':14}{' '.join(f'{one:.1f}' for one in tenths):>20}")
            if self.growth(pid) > GROWTH:
                wrong.append(f"{name} goes on growing")
            if now[pid] > self._before[pid] + LEFT:
                wrong.append(f"{name} keeps descriptors")
        return wrong


def _revoke_url(draft: Draft, grant: Grant) -> None:
    signature = grant.query.rpartition("=")[2]
    draft.revoked("urls")[signature_id(signature)] = {"at": AT}


def _replace_key(draft: Draft, grant: Grant) -> None:
    entry = draft.connections[grant.connection]
    entry["signing_keys"] = [{"id": "k2", "secret": f"{SECRET}-2"}]


TAKE_BACK: Final[dict[str, Callable[[Draft, Grant], object]]] = {
    "URL revoked": _revoke_url,
    "key revoked": lambda draft, grant: draft.revoked("keys").update({f"{grant.connection}/k1": {"at": AT}}),
    "connection revoked": lambda draft, grant: draft.revoked("connections").update(
        {grant.connection: {"at": AT}}
    ),
    "connection disabled": lambda draft, grant: draft.connections[grant.connection].update(enabled=False),
    "connection removed": lambda draft, grant: draft.connections.pop(grant.connection),
    "key replaced": _replace_key,
}


def take_back(path: Path, key: str, how: str, grant: Grant) -> None:
    """What a command does between its lock and its end; in a process of its own."""
    with changing(path, [parse_key(Secret(key))]) as draft:
        TAKE_BACK[how](draft, grant)
        draft.write()


class Revoking:
    """Takes back one URL after the other, and looks how long each is still served."""

    def __init__(self, registry: Path, key: str, port: int, told: Told) -> None:
        self._command = functools.partial(take_back, registry, key)
        self._port = port
        self._told = told

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        expires = int(time.time()) + 86_400
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            for number, how in enumerate(itertools.cycle(TAKE_BACK)):
                begun = time.monotonic()
                conn = CONN if how == "URL revoked" else f"taken_{number}"
                grant = Grant(conn, expires=expires + number)  # another URL
                if not await self._is_served(grant):
                    self._told.failed.append(f"{how}: refused before")
                await loop.run_in_executor(process, self._command, how, grant)
                written = time.monotonic()
                while await self._is_served(grant):  # noqa: ASYNC110 - another process decides
                    await asyncio.sleep(0.01)
                self._told.delays[how].append(time.monotonic() - written)
                await asyncio.sleep(max(0.0, begun + 1.0 - time.monotonic()))

    async def _is_served(self, grant: Grant) -> bool:
        """By each worker that is asked: several times, since any may answer."""
        for _ in range(4):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(wire(grant.target("v1/models"), {"Connection": "close"}))
            head = await reader.read(16)
            writer.close()
            if b" 200 " in head:
                return True
        return False


async def load(port: int, asked: argparse.Namespace, watch: Watch, told: Told) -> None:
    idle = [Client(port, told) for _ in range(asked.idle)]
    for client in idle:
        await client.ask("answer")
    watching = asyncio.create_task(watch.run())
    waiting = []
    for number, client in enumerate(idle):
        again = asked.minutes * (10 + 20 * number / asked.idle)
        waiting.append(asyncio.create_task(_wait(client, again if number % 2 else None)))
    await _go_on(port, asked, told)
    watching.cancel()
    print(f"of {asked.idle} that waited, {sum(not task.done() for task in waiting)} are still connected")
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def _wait(client: Client, seconds: float | None) -> None:
    """Wait, ask once more after a while, and wait on."""
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await client.wait()
        await client.ask("answer")
        await client.wait()
    finally:
        client.close()


async def _go_on(port: int, asked: argparse.Namespace, told: Told) -> None:
    """Those who ask, one after the other."""
    free: asyncio.Queue[Client] = asyncio.Queue()
    for _ in range(asked.active):
        free.put_nowait(Client(port, told))

    async def use(client: Client) -> None:
        await client.ask(random.choice(KINDS))
        free.put_nowait(client)

    begun, count = time.monotonic(), 0
    async with asyncio.TaskGroup() as busy:
        while time.monotonic() < begun + asked.minutes * 60:
            busy.create_task(use(await free.get()))
            count += 1
            await asyncio.sleep(max(0.0, begun + count / asked.rate - time.monotonic()))
    while not free.empty():
        free.get_nowait().close()


def judged(told: Told, watch: Watch) -> list[str]:
    """Print what came of it; returns what is wrong."""
    wrong = watch.report()
    print(f"requests: {dict(told.answered)}, failed: {len(told.failed)}")
    for failure in told.failed[:5]:
        print(f"  {failure}")
    if told.lengths:
        print(f"hung up on while they waited: {len(told.lengths)}, after {min(told.lengths):.0f} s and more")
    if len(told.took) > 100:
        shown = [
            f"{one * 1e3:.1f}" for one in (statistics.median(told.took), _p99(told.took), max(told.took))
        ]
        print("small answers, ms: median {}, p99 {}, worst {}".format(*shown))
    for how, delays in told.delays.items():
        median, worst = statistics.median(delays), max(delays)
        print(f"{how}: {len(delays)} times, served for s: median {median:.2f}, worst {worst:.2f}")
        if worst > 1.0:
            wrong.append(f"{how}: more than a second")
    if told.failed:
        wrong.append("requests failed")
    if any(length < HELD for length in told.lengths):
        wrong.append("clients were hung up on too early")
    return wrong


def _p99(found: list[float]) -> float:
    return statistics.quantiles(found, n=100)[98]


def registered(directory: Path, asked: argparse.Namespace, connection: dict[str, object], key: str) -> Path:
    """An encrypted registry of so many connections, and one for each that will be taken back."""
    content = {CONN: connection} | (entries(asked.connections - 1) if asked.connections > 1 else {})
    keyed = connection | {"signing_keys": [{"id": "k1", "secret": SECRET}]}
    content |= {f"taken_{number}": keyed for number in range(int(asked.minutes * 60) + 2)}
    registry = directory / "connections.enc"
    directory.chmod(0o700)
    Draft(registry, [parse_key(Secret(key))], {"connections": content}).write()
    return registry


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--active", type=int, default=200)
    parser.add_argument("--rate", type=float, default=150.0, help="requests a second, of all together")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--reloads", action="store_true", help="take something back each second")
    parser.add_argument("--connections", type=int, default=1000, help="of the registry, with --reloads")
    asked = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a client and an upstream at each end
    told, upstream = Told(), Recorder().start()
    connection = bearer_connection(upstream.url, SECRET)
    config = {
        "gateway": {"max_clients": asked.idle + asked.active + 100},
        "audit": {"file": "audit.jsonl"},
    }
    key, registry = new_key().reveal(), None
    with tempfile.TemporaryDirectory(prefix="presign-steady-") as directory:
        if asked.reloads:
            registry = registered(Path(directory), asked, connection, key)
            config["registry"] = {"file": "connections.enc", "key": {"env": "PRESIGN_KEY"}}
        else:
            config["connections"] = {CONN: connection}
        gateway = Serve(Path(directory), config, workers=asked.workers, PRESIGN_KEY=key).start(120)
        try:
            while not gateway.has_reserve():
                time.sleep(0.1)
            watch = Watch(gateway)
            revoking = Revoking(registry, key, gateway.port, told) if registry is not None else None
            asyncio.run(measured(gateway, asked, watch, told, upstream, revoking))
            wrong = judged(told, watch)
        finally:
            gateway.stop()
            upstream.stop()
    for what in wrong:
        print(f"WRONG: {what}")
    return 1 if wrong else 0


async def measured(
    gateway: Serve,
    asked: argparse.Namespace,
    watch: Watch,
    told: Told,
    upstream: Recorder,
    revoking: Revoking | None,
) -> None:
    async def forget() -> None:
        """What the upstream has recorded."""
        while True:
            upstream.clear()
            await asyncio.sleep(EVERY)

    beside = [asyncio.create_task(forget())]
    if revoking is not None:
        beside.append(asyncio.create_task(revoking.run()))
    await load(gateway.port, asked, watch, told)
    for task in beside:
        if task.done():
            task.result()  # says why it has ended
        task.cancel()
    await watch.settle()


if __name__ == "__main__":
    sys.exit(main())
