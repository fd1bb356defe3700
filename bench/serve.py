"""Throughput of `presign serve` against bare mitmdump, and of two workers against one.

nginx is the upstream, wrk the clients. Bare mitmdump forwards plain requests in reverse mode; the gateway
verifies presigned ones, strips, injects, masks and writes an audit line. In turn, round by round: only ratios
mean something, and that of two workers to one only on a machine that has cores to spare: wrk and nginx take
theirs too.

Run: .venv/bin/python bench/serve.py [--rounds 5] [--seconds 4] [--connections 16] [--workers 2]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from throughput import CONFIG, ROOT, SECRET, cpu_seconds, free_port, mitmdump, running

from presign_proxy import Signer

NGINX = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.err;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3;
  uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
  server {{
    listen 127.0.0.1:{port};
    location / {{ default_type application/json; return 200 '{{"ok":true}}'; }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(directory: str) -> Iterator[int]:
    port = free_port()
    path = Path(directory, "nginx.conf")
    path.write_text(NGINX.format(directory=directory, port=port))
    with running("nginx", "-c", str(path)):
        wait_for(port)
        yield port


@contextlib.contextmanager
def gateway(directory: str, workers: int) -> Iterator[tuple[int, int]]:
    """Yields port and process id of the supervisor, once all workers serve."""
    port, log = free_port(), Path(directory, f"serve-{workers}.log")
    options = ("--config", f"{directory}/config.yaml", "--listen", f"127.0.0.1:{port}")
    command = (sys.executable, "-m", "presign_proxy", "serve", *options, "--confdir", f"{directory}/ca")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "addon")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--workers", str(workers)], stdout=output, stderr=output, env=environment
        )
    try:
        while log.read_text().count(" serves") < workers:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def wait_for(port: int) -> None:
    for _ in range(200):
        if (
            subprocess.run(
                ["curl", "-s", "-o", os.devnull, f"http://127.0.0.1:{port}/"], check=False
            ).returncode
            == 0
        ):
            return
        time.sleep(0.05)


def family(pid: int) -> list[int]:
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [pid, *map(int, children.split())]


def measure(port: int, pid: int, target: str, connections: int, seconds: float) -> tuple[float, float]:
    """Requests per second, and CPU microseconds of the proxy, all its processes together, per request."""
    pids = family(pid)
    before = sum(map(cpu_seconds, pids))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", f"http://127.0.0.1:{port}{target}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = sum(map(cpu_seconds, pids)) - before
    assert "Non-2xx" not in said, said
    found = re.search(r"(\d+) requests in", said)
    rate = re.search(r"Requests/sec: +([\d.]+)", said)
    assert found and rate, said
    return float(rate[1]), spent / int(found[1]) * 1e6


def target_of(url_port: int) -> str:
    grant = Signer("conn_bench", SECRET).sign(["GET"], ["v1/*"], expires_at=int(time.time()) + 3600)
    origin = f"http://127.0.0.1:{url_port}"
    return grant.url("v1/models", origin).removeprefix(origin)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        Path(directory).chmod(0o755 if os.geteuid() == 0 else 0o700)
        upstream = stack.enter_context(nginx(directory))
        config = Path(directory, "config.yaml")
        config.touch(mode=0o600)
        config.write_text(CONFIG.format(port=upstream, secret=SECRET))
        reverse = ("--mode", f"reverse:http://127.0.0.1:{upstream}")
        bare = stack.enter_context(mitmdump(directory, *reverse))
        one = stack.enter_context(gateway(directory, 1))
        many = stack.enter_context(gateway(directory, asked.workers))
        candidates = {"bare": (bare, "/v1/models"), "1 worker": (one, target_of(one[0]))}
        candidates[f"{asked.workers} workers"] = (many, target_of(many[0]))
        rounds: list[dict[str, tuple[float, float]]] = []
        for number in range(asked.rounds + 1):
            found = {}
            for name, ((port, pid), target) in candidates.items():
                seconds = asked.seconds if number else 1
                found[name] = measure(port, pid, target, asked.connections, seconds)
            if number:
                rounds.append(found)
                row = "".join(
                    f"  {name} {rate:6.0f}/s {cost:5.0f} µs" for name, (rate, cost) in found.items()
                )
                print(f"{number:3}{row}", flush=True)
        names = list(candidates)
        for first, second in ((names[0], names[1]), (names[1], names[2])):
            rates = sorted(found[second][0] / found[first][0] for found in rounds)
            cost = statistics.median(found[first][1] / found[second][1] for found in rounds)
            print(
                f"{second} against {first}: requests per second ×{statistics.median(rates):.2f} "
                f"({rates[0]:.2f} to {rates[-1]:.2f}), CPU time per request ×{cost:.2f}"
            )


if __name__ == "__main__":
    main()
