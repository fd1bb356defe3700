"""gRPC through `presign serve` and `mitmdump -s`, beside bare mitmdump and without any proxy, in turn.

Client and server are `grpcio`, unchanged. A unary call is one message there and one back. A streamed message
is one of a call in both directions that stays open: each is sent as soon as the last one came back. Bare
mitmdump streams bodies, since it would hold each message until the end of its call otherwise. Only ratios
mean something; those of CPU time (of the proxy alone) are the steadier ones. Server and clients are Python,
one process each: they bound what `direct` reaches.

The file is not called `grpc.py`: a script's directory comes first where Python looks for modules.

Run: .venv/bin/python bench/grpc_calls.py [--rounds 5] [--seconds 2] [--channels 2] [--calls 8]
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
from collections.abc import AsyncIterator, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio
import trustme
from throughput import ROOT
from ways import WAYS, CpuTime, Measured, print_tables, proxies

sys.path[:0] = [str(ROOT / "addon"), str(ROOT / "tests")]

from support.asking import SECRET, Grant  # noqa: E402 - the path is set above
from support.grpc_server import GrpcServer, path  # noqa: E402
from support.lab import REAL_SECRET, bearer_connection  # noqa: E402
from support.serving import CONN  # noqa: E402

LOADS: Final = ("unary call", "streamed message")
MESSAGE: Final = bytes(64)
STREAMING: Final = """
def requestheaders(flow):
    flow.request.stream = True

def responseheaders(flow):
    flow.response.stream = True
"""


class Place(NamedTuple):
    """Where clients connect to, and the credential that they bring."""

    port: int
    pid: int
    ca: bytes
    key: str


def serve(authority: bytes, told: Connection) -> None:
    """Serve until the process is ended; the port is told first. Args: authority: the PEM of its key."""
    ca = trustme.CA.from_pem(*authority.split(b"\0"))
    with GrpcServer(ca.issue_cert("localhost")) as server:
        told.send(server.port)
        while not told.poll(1):
            server.clear()  # it keeps what it was asked


async def _unary(channel: grpc.aio.Channel, key: str, until: float, took: list[float]) -> None:
    call = channel.unary_unary(path("Echo"))
    while not took or time.perf_counter() < until:
        begun = time.perf_counter()
        await call(MESSAGE, metadata=(("authorization", key),), timeout=20)
        took.append(time.perf_counter() - begun)


async def _streamed(channel: grpc.aio.Channel, key: str, until: float, took: list[float]) -> None:
    back: asyncio.Queue[None] = asyncio.Queue()

    async def messages() -> AsyncIterator[bytes]:
        while not took or time.perf_counter() < until:
            begun = time.perf_counter()
            yield MESSAGE
            await back.get()
            took.append(time.perf_counter() - begun)

    call = channel.stream_stream(path("Talk"))(messages(), metadata=(("authorization", key),))
    async for _ in call:
        back.put_nowait(None)


async def _measure(place: Place, load: str, channels: int, calls: int, seconds: float) -> Measured:
    took: list[float] = []
    credentials = grpc.ssl_channel_credentials(place.ca)
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    client = _unary if load == LOADS[0] else _streamed
    async with contextlib.AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                grpc.aio.secure_channel(f"localhost:{place.port}", credentials, options)
            )
            for _ in range(channels)
        ]
        for channel in opened:
            await channel.channel_ready()
        cpu, begun = CpuTime(place.pid), time.perf_counter()
        until = begun + seconds
        await asyncio.gather(*[client(one, place.key, until, took) for one in opened for _ in range(calls)])
        spent, lasted = cpu.spent, time.perf_counter() - begun
    return Measured(len(took) / lasted, statistics.median(took), spent / len(took))


@contextlib.contextmanager
def places(directory: Path) -> Iterator[dict[str, Place]]:
    ca, (mine, its) = trustme.CA(), multiprocessing.Pipe()
    authority = b"\0".join((ca.cert_pem.bytes(), ca.private_key_pem.bytes()))
    # A fork would take over half of what grpc has begun in this process.
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(authority, its), daemon=True)
    process.start()
    port = mine.recv()
    ca.cert_pem.write_to_path(str(directory / "upstream.pem"))
    (directory / "streaming.py").write_text(STREAMING)
    url = f"https://localhost:{port}"
    config = {"connections": {CONN: bearer_connection(url, SECRET)}}
    real, key = f"Bearer {REAL_SECRET}", f"Bearer {Grant(CONN).token}"
    streaming = ("-s", str(directory / "streaming.py"))
    with proxies(directory, config, url, *streaming, ca=directory / "upstream.pem") as known:
        keys = {way: real if way == "bare" else key for way in known}
        found = {
            way: Place(proxy.port, proxy.pid, proxy.ca.read_bytes(), keys[way])
            for way, proxy in known.items()
        }
        yield {"direct": Place(port, 0, ca.cert_pem.bytes(), real), **found}
    process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--calls", type=int, default=8)
    asked: Any = parser.parse_args()
    found: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as directory, places(Path(directory)) as known:
        for _ in range(asked.rounds):
            for load in LOADS:
                for way in WAYS:
                    args = (known[way], load, asked.channels, asked.calls, asked.seconds)
                    found[way, load].append(asyncio.run(_measure(*args)))
    print_tables(found, LOADS)


if __name__ == "__main__":
    main()
