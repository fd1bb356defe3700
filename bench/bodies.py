"""Clients for what wrk cannot ask: event streams, large bodies, connections that do nothing; and an upstream
that sends events.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

EVENTS: Final = 40
EVERY: Final = 0.05
_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT: Final = b'data: {"choices":[{"index":0,"delta":{"content":" a word"}}]}\n\n'
_CHUNK: Final = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
GIBIBYTE: Final = 1 << 30


async def _serve_events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_HEAD)
            for _ in range(EVENTS):
                writer.write(_CHUNK)
                await asyncio.sleep(EVERY)
            writer.write(b"0\r\n\r\n")
    writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_serve_events, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _request(port: int, target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n\r\n".encode()


async def _stream(port: int, target: str) -> tuple[float, int]:
    """Seconds to the first event, and how many came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started, first, held, count = time.perf_counter(), 0.0, b"", 0
    writer.write(_request(port, target))
    while not held.endswith(b"0\r\n\r\n"):
        piece = await reader.read(65536)
        assert piece, held
        held = held[-8:] + piece
        count += piece.count(b"data: ")
        first = first or (time.perf_counter() - started if count else 0.0)
    writer.close()
    return first, count


def listen(port: int, target: str, *, streams: int) -> tuple[float, int]:
    """The median time to the first event, over streams that begin at once, and how many events came."""

    async def all_of_them() -> list[tuple[float, int]]:
        return await asyncio.gather(*(_stream(port, target) for _ in range(streams)))

    found = asyncio.run(all_of_them())
    return sorted(first for first, _ in found)[streams // 2], sum(count for _, count in found)


def resident(pids: list[int]) -> int:
    """KiB in memory, of several processes."""
    page = os.sysconf("SC_PAGE_SIZE") // 1024
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids)


def gibibyte(port: int, pids: list[int], target: str, way: str) -> tuple[float, int]:
    """Seconds that it takes, and the KiB of memory that the proxy has grown by meanwhile."""
    over = threading.Event()
    before, peak = resident(pids), [0]

    def watch() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], resident(pids))

    watching = threading.Thread(target=watch)
    watching.start()
    started = time.perf_counter()
    try:
        (_upload if way == "upload" else _download)(port, target)
    finally:
        over.set()
        watching.join()
    return time.perf_counter() - started, peak[0] - before


def _upload(port: int, target: str) -> None:
    head = f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {GIBIBYTE}\r\n\r\n"
    block = bytes(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(head.encode())
        for _ in range(GIBIBYTE // len(block)):
            client.sendall(block)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


def _download(port: int, target: str) -> None:
    command = ["curl", "-sS", "-f", "-o", os.devnull, "-w", "%{size_download}"]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}{target}"], capture_output=True, check=True)
    assert int(done.stdout) == GIBIBYTE, done


def idle(port: int, pids: list[int], target: str, *, clients: int) -> float:
    """KiB for each of so many clients that have asked once and wait."""
    request = _request(port, target)

    def ask() -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(request)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        return client

    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(ask())
        before = resident(pids)
        for _ in range(clients):
            stack.enter_context(ask())
        time.sleep(1)
        return (resident(pids) - before) / clients


if __name__ == "__main__":
    sys.exit(asyncio.run(_serve()))
