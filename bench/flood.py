"""Requests that nobody signed and of which no two are alike: what they take of memory, and of others' time.

First through the pure core, then through a real mitmdump, on eight connections, while one client who holds a
presign goes on asking. Memory is read at each tenth.

Then the dearest heads that were found: 60 KiB of `%&` over HTTP/1.1, a field that HPACK repeats over HTTP/2.
Fifty connections send as many of these as of ordinary refused requests, to a mitmdump without the lane and to
`presign serve` with two workers, and what one client waits beside each is compared.

Run: .venv/bin/python bench/flood.py [--core 1000000] [--wire 50000] [--dear 500]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

Flood = Callable[..., None]
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "addon"), str(ROOT / "tests")]

from support.asking import SECRET, Grant  # noqa: E402 - the path is set above
from support.asking import wire as wire_of  # noqa: E402
from support.config import write_config  # noqa: E402
from support.deciding import code, registry  # noqa: E402
from support.flood import as_bytes, as_request, dear_over_h1, dear_over_h2  # noqa: E402
from support.h2frames import RawH2, head_of  # noqa: E402
from support.lab import bearer_connection  # noqa: E402
from support.proxy import Mitm  # noqa: E402
from support.raw import connect, exchange  # noqa: E402
from support.recorder import Recorder  # noqa: E402
from support.serving import Serve  # noqa: E402


def resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


def core(count: int) -> None:
    known, started, sizes = registry(), time.process_time(), []
    codes: Counter[str] = Counter()
    for number in range(count):
        codes[code(as_request(number), known)] += 1
        if (number + 1) % (count // 10) == 0:
            gc.collect()
            sizes.append(resident() / 1e6)
    took = time.process_time() - started
    print(f"core: {count} requests, {took / count * 1e6:.0f} µs each, making them included; {dict(codes)}")
    print("  MB at each tenth: " + " ".join(f"{size:.1f}" for size in sizes))


def wire(count: int, directory: Path) -> None:
    upstream = Recorder().start()
    config = write_config({"connections": {"conn": bearer_connection(upstream.url, SECRET)}}, directory)
    with Mitm(directory, config) as gateway:
        numbers, lock, over = iter(range(count)), threading.Lock(), threading.Event()
        answers: Counter[bytes] = Counter()

        def flood() -> None:
            with contextlib.ExitStack() as kept:
                sock = None
                while True:
                    with lock:
                        number = next(numbers, None)
                    if number is None:
                        return
                    sock = sock or kept.enter_context(connect(gateway.port, timeout=30))
                    received = exchange(sock, as_bytes(number), 30)
                    with lock:
                        answers[received[9:12]] += 1
                    if not received or b"\r\nconnection: close\r\n" in received.lower():
                        kept.close()  # on a connection that was closed, nothing would reach the gateway
                        sock = None

        alone = [_asked(gateway) for _ in range(50)]
        beside: list[float] = []
        sizes: list[float] = []

        def look_on() -> None:
            while not over.is_set():
                beside.append(_asked(gateway))
                if sum(answers.values()) >= len(sizes) * count // 10:
                    sizes.append(gateway.rss() / 1e6)
                time.sleep(0.1)

        threads = [threading.Thread(target=flood) for _ in range(8)]
        watcher = threading.Thread(target=look_on)
        started = time.monotonic()
        for thread in [*threads, watcher]:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - started
        over.set()
        watcher.join()
        sizes.append(gateway.rss() / 1e6)
        told = {status.decode(): number for status, number in answers.items()}
        print(f"gateway: {count} requests, {count / took:.0f} a second; {told}")
        print("  MB at each tenth: " + " ".join(f"{size:.1f}" for size in sizes))
        print(
            f"  a good request, new connection: {statistics.median(alone) * 1000:.0f} ms alone, "
            f"{statistics.median(beside) * 1000:.0f} ms beside it (most {max(beside) * 1000:.0f}), "
            f"{len(beside)} of {len(beside)} served"
        )
        assert not answers[b""]
        assert upstream.connections <= len(alone) + len(beside)
    upstream.stop()


CROWD = 50
WAITS = 300
REFUSED = "/api/proxy/conn/v1/models?X-Presign-Expires=1"


def over_h1(port: int, count: int, *, dearest: bool) -> None:
    asked = dear_over_h1("parameters") if dearest else wire_of(REFUSED)
    for _ in range(count):
        with contextlib.suppress(OSError), connect(port, timeout=60) as sock:
            exchange(sock, asked, 60)


def over_h2(port: int, count: int, *, dearest: bool) -> None:
    """A segment of a hundred of the dearest heads for each connection, of which the gateway takes two.

    Else two ordinary heads on as many connections: a new connection costs more than either.
    """
    for _ in range(-(-count // 100)):
        with contextlib.suppress(OSError), RawH2(port, 60) as client:
            if dearest:
                client.send(dear_over_h2())
            else:
                for number in range(2):
                    client.request(2 * number + 1, head_of(REFUSED.encode()))
            ended = 0
            for one in client.frames():
                ended += one.stream > 0 and bool(one.flags & 1)
                if ended == (100 if dearest else 2) or one.goaway is not None:
                    break


def beside(gateway: Mitm | Serve, flood: Flood, count: int, *, dearest: bool) -> list[float]:
    """What a client with a presign waits for each request while fifty others send `count` refused ones.

    They send as many again until there are enough waits for a 99th percentile.
    """
    share = -(-count // CROWD)
    waited: list[float] = []
    while len(waited) < WAITS:
        crowd = [
            threading.Thread(target=flood, args=(gateway.port, share), kwargs={"dearest": dearest})
            for _ in range(CROWD)
        ]
        for thread in crowd:
            thread.start()
        while any(thread.is_alive() for thread in crowd):
            waited.append(_asked(gateway))
    return waited


def p99(waited: list[float]) -> float:
    return sorted(waited)[int(len(waited) * 0.99)]


def dear(count: int, directory: Path) -> None:
    upstream = Recorder().start()
    config = {"connections": {"conn": bearer_connection(upstream.url, SECRET)}}
    flows = Mitm(directory, write_config(config, directory), "--set", "presign_lane=off")
    (directory / "served").mkdir()
    served = Serve(directory / "served", config, workers=2)
    for name, gateway in (("mitmdump, flow path", flows), ("serve, two workers", served)):
        with contextlib.ExitStack() as running:
            running.callback(gateway.stop)
            gateway.start(240)
            before = sorted(served.serving()) if gateway is served else []
            for protocol, flood in (("HTTP/1.1", over_h1), ("HTTP/2", over_h2)):
                alone = [_asked(gateway) for _ in range(50)]
                ordinary = beside(gateway, flood, count, dearest=False)
                dearest = beside(gateway, flood, count, dearest=True)
                print(
                    f"{name}, {protocol}: p99 of a good request {p99(alone) * 1000:.0f} ms alone, "
                    f"{p99(ordinary) * 1000:.0f} beside {count} ordinary refusals, {p99(dearest) * 1000:.0f} "
                    f"beside as many of the dearest: {p99(dearest) / p99(ordinary):.1f} times",
                    flush=True,
                )
            if gateway is served:
                print(f"  the same workers: {before == sorted(served.serving())}")
    upstream.stop()


def _asked(gateway: Mitm | Serve) -> float:
    started = time.monotonic()
    with connect(gateway.port, timeout=60) as sock:
        asked = wire_of(Grant("conn").target("v1/models"), {"Connection": "close"})
        assert exchange(sock, asked, 60).startswith(b"HTTP/1.1 200")
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--core", type=int, default=1_000_000)
    parser.add_argument("--wire", type=int, default=50_000)
    parser.add_argument("--dear", type=int, default=500)
    arguments = parser.parse_args()
    if arguments.core:
        core(arguments.core)
    if arguments.wire:
        with tempfile.TemporaryDirectory(prefix="presign-flood-") as directory:
            wire(arguments.wire, Path(directory))
    if arguments.dear:
        with tempfile.TemporaryDirectory(prefix="presign-flood-") as directory:
            dear(arguments.dear, Path(directory))


if __name__ == "__main__":
    main()
