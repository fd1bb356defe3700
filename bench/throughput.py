"""Throughput of mitmdump with the addon against mitmdump without: same upstream, same load, in turn.

Both run in reverse mode: the bare one forwards plain requests, the other one verifies presigned requests,
strips, injects, masks and writes an audit line. Only ratios mean something: the machine may be shared. The
ratio of CPU time per request is steadier than that of requests per second, and both are printed.

Run: .venv/bin/python bench/throughput.py [--rounds 7] [--seconds 3] [--connections 16]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from load import requests_per_second

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "addon"), str(ROOT / "tests")]

from presign_proxy import Signer  # noqa: E402 - the path is set above

SECRET = "sk_0123456789abcdef0123456789abcdef"
CONFIG = """
audit: {{file: audit.jsonl}}
connections:
  conn_bench:
    upstream: http://127.0.0.1:{port}
    auth: {{type: bearer, token: sk-real-0123456789abcdef}}
    signing_keys: [{{secret: {secret}}}]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def mitmdump(directory: str, *arguments: str, patience: float = 10) -> Iterator[tuple[int, int]]:
    """Yields port and process id, once it listens or `patience` seconds are over."""
    port = free_port()
    binary = str(Path(sys.executable).parent / "mitmdump")
    options = (
        "-q",
        "--listen-host",
        "127.0.0.1",
        "--listen-port",
        str(port),
        "--set",
        f"confdir={directory}/ca",
    )
    with running(binary, *options, *arguments) as process:
        for _ in range(int(patience / 0.05)):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        time.sleep(0.5)
        yield port, process.pid


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (proc(5), stat: fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def heads(port: int) -> tuple[bytes, bytes]:
    """A plain request and a presigned one, with the fields of an ordinary client."""
    grant = Signer("conn_bench", SECRET).sign(["GET"], ["v1/*"], expires_at=int(time.time()) + 3600)
    url = grant.url("v1/models", f"http://127.0.0.1:{port}").removeprefix(f"http://127.0.0.1:{port}")
    fields = "\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
    return tuple(
        f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}{fields}".encode() for target in ("/v1/models", url)
    )  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=16)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        upstream = stack.enter_context(running(sys.executable, str(ROOT / "bench/load.py")))
        assert upstream.stdout
        upstream_port = int(upstream.stdout.readline())
        config = Path(directory, "config.yaml")
        config.touch(mode=0o600)
        config.write_text(CONFIG.format(port=upstream_port, secret=SECRET))
        reverse = ("--mode", f"reverse:http://127.0.0.1:{upstream_port}")
        bare = stack.enter_context(mitmdump(directory, *reverse))
        script = ("-s", str(ROOT / "addon/presign.py"), "--set", f"presign_config={config}")
        ours = stack.enter_context(mitmdump(directory, *reverse, *script))
        plain, presigned = heads(bare[0])[0], heads(ours[0])[1]

        def measure(port: int, pid: int, head: bytes, seconds: float) -> tuple[float, float]:
            """Requests per second, and CPU microseconds of the proxy per request."""
            before = cpu_seconds(pid)
            load = requests_per_second(port, head, connections=asked.connections, seconds=seconds)
            rate, answered = asyncio.run(load)
            return rate, (cpu_seconds(pid) - before) / answered * 1e6

        measure(*bare, plain, 1), measure(*ours, presigned, 1)
        ratios: dict[str, list[float]] = {"requests per second": [], "CPU time per request": []}
        print(f"round        bare           with addon      ({asked.connections} connections)")
        for number in range(asked.rounds):
            first, second = (
                measure(*bare, plain, asked.seconds),
                measure(*ours, presigned, asked.seconds),
            )
            ratios["requests per second"].append(second[0] / first[0])
            ratios["CPU time per request"].append(first[1] / second[1])
            row = "".join(f"{rate:8.0f}/s {cost:5.0f} µs" for rate, cost in (first, second))
            print(f"{number + 1:5}{row}", flush=True)
        for name, found in ratios.items():
            low, middle, high = statistics.quantiles(found, n=4)
            print(f"{name}, with addon against bare: median {middle:.2f}, quartiles {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
