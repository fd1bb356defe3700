"""WebSocket through `presign serve`, beside bare mitmdump and without any proxy: the same peers, in turn.

Clients send one message after the other, each as soon as the last one came back as an echo of the same size.
Bare mitmdump takes each message apart and keeps it; `serve` passes bytes on. The flow path is measured too:
`mitmdump -s` with the lane shut. Only ratios mean something; those of CPU time (of the proxy alone) are the
steadier ones. Clients and upstream run in one process of Python, beside the proxy: they bound what `direct`
reaches. A message of 1 MiB shows what a byte costs; it has a quarter of the rounds' time.

Run: .venv/bin/python bench/websocket.py [--rounds 5] [--seconds 2] [--connections 16]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from throughput import ROOT, free_port
from ways import WAYS, CpuTime, Measured, print_tables, proxies

sys.path[:0] = [str(ROOT / "addon"), str(ROOT / "tests")]

from support.asking import SECRET, Grant  # noqa: E402 - the path is set above
from support.lab import bearer_connection  # noqa: E402
from support.serving import CONN  # noqa: E402
from support.websocket import BINARY, HANDSHAKE, frame, switching  # noqa: E402

SIZES: Final = (64, 1 << 20)
"""Bytes of a message: one that costs what a message costs, and one that costs what its bytes cost."""


class Place(NamedTuple):
    """Where clients connect to, and what they ask for."""

    port: int
    pid: int
    head: bytes


@lru_cache
def message(size: int, *, masked: bool) -> bytes:
    return frame(bytes(size), BINARY, masked=masked)


async def _upstream(port: int) -> None:
    """Echo each message unmasked. The first byte of a path is the power of two of the messages' size."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            target = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
            size = 1 << int(target.partition(b"?")[0].rpartition(b"/")[2])
            asked, answer = len(message(size, masked=True)), message(size, masked=False)
            writer.write(switching())
            while True:
                await reader.readexactly(asked)
                writer.write(answer)
                await writer.drain()

    server = await asyncio.start_server(talk, "127.0.0.1", port, limit=1 << 21)
    await server.serve_forever()


def upstream(port: int) -> None:
    asyncio.run(_upstream(port))


async def _client(place: Place, size: int, until: float, took: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port, limit=1 << 21)
    writer.write(place.head % (size.bit_length() - 1))
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        raise ConnectionError(head[:100])
    asked, answer = message(size, masked=True), len(message(size, masked=False))
    while not took or time.perf_counter() < until:
        begun = time.perf_counter()
        writer.write(asked)
        await reader.readexactly(answer)
        took.append(time.perf_counter() - begun)
    writer.close()


async def _measure(place: Place, size: int, connections: int, seconds: float) -> Measured:
    took: list[float] = []
    message(size, masked=True)
    message(size, masked=False)
    cpu, begun = CpuTime(place.pid), time.perf_counter()
    clients = [_client(place, size, begun + seconds, took) for _ in range(connections)]
    await asyncio.gather(*clients)
    spent = cpu.spent
    return Measured(len(took) / (time.perf_counter() - begun), statistics.median(took), spent / len(took))


def head(target: str, host: str) -> bytes:
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", *HANDSHAKE, "", ""]
    return "\r\n".join(lines).replace("%", "%%").replace("SIZE", "%d").encode()


@contextlib.contextmanager
def places(directory: Path) -> Iterator[dict[str, Place]]:
    port = free_port()
    process = multiprocessing.Process(target=upstream, args=(port,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{port}"
    config = {"connections": {CONN: bearer_connection(url, SECRET, websocket=True)}}
    granted = head(Grant(CONN).target("SIZE"), "presign.local")
    plain = head("/SIZE", f"127.0.0.1:{port}")
    config |= {"gateway": {"hosts": ["presign.local"]}}
    with proxies(directory, config, url) as known:
        heads = {way: plain if way == "bare" else granted for way in known}
        found = {way: Place(proxy.port, proxy.pid, heads[way]) for way, proxy in known.items()}
        yield {"direct": Place(port, 0, plain), **found}
    process.terminate()


def label(size: int) -> str:
    return f"{size:,} bytes"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connections", type=int, default=16)
    asked: Any = parser.parse_args()
    found: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as directory, places(Path(directory)) as known:
        for _ in range(asked.rounds):
            for size in SIZES:
                # mitmdump keeps every message: few clients and less time keep that bounded.
                few = size > SIZES[0]
                connections = 2 if few else asked.connections
                seconds = asked.seconds / 4 if few else asked.seconds
                for way in WAYS:
                    measured = asyncio.run(_measure(known[way], size, connections, seconds))
                    found[way, label(size)].append(measured)
    print_tables(found, tuple(map(label, SIZES)))


if __name__ == "__main__":
    main()
