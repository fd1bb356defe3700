"""Requests that nobody signed and of which no two are alike: what they take of memory, and of others' time.

First through the pure core, then through a real mitmdump, on eight connections, while one client who holds a
presign goes on asking. Memory is read at each tenth.

Run: .venv/bin/python bench/flood.py [--core 1000000] [--wire 50000]
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "addon"), str(ROOT / "tests")]

from support.asking import SECRET, Grant, ask  # noqa: E402 - the path is set above
from support.config import write_config  # noqa: E402
from support.deciding import code, registry  # noqa: E402
from support.flood import as_bytes, as_request  # noqa: E402
from support.lab import bearer_connection  # noqa: E402
from support.proxy import Mitm  # noqa: E402
from support.raw import connect, exchange  # noqa: E402
from support.recorder import Recorder  # noqa: E402


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
            with connect(gateway.port, timeout=30) as sock:
                while True:
                    with lock:
                        number = next(numbers, None)
                    if number is None:
                        return
                    received = exchange(sock, as_bytes(number), 30)
                    with lock:
                        answers[received[9:12]] += 1

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
        assert upstream.connections <= len(alone) + len(beside)
    upstream.stop()


def _asked(gateway: Mitm) -> float:
    started = time.monotonic()
    assert ask(gateway.port, Grant("conn").target("v1/models"), {"Connection": "close"}).status == 200
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--core", type=int, default=1_000_000)
    parser.add_argument("--wire", type=int, default=50_000)
    arguments = parser.parse_args()
    if arguments.core:
        core(arguments.core)
    if arguments.wire:
        with tempfile.TemporaryDirectory(prefix="presign-flood-") as directory:
            wire(arguments.wire, Path(directory))


if __name__ == "__main__":
    main()
