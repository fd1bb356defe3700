"""What credentials cost that are made: a cached token of OAuth 2.0, a signature for AWS, a static bearer.

One `presign serve` has a connection of each kind to one nginx; wrk asks them in turn, in alternating rounds,
and also bare mitmdump in reverse mode, and nginx directly. Only ratios in one run mean something. A static
credential is granted again within its second (`mitm/lane/grant_cache.py`), the others are not: so there are
rounds with one URL, and with one for each.

Run: .venv/bin/python bench/credentials.py [--rounds 7] [--seconds 3]
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
from typing import Final, NamedTuple

import peers
from throughput import ROOT, SECRET, cpu_seconds, free_port, mitmdump

from presign_proxy import Signer
from support.token_endpoint import TokenEndpoint

_CONFIG: Final = """
audit: {{file: audit.jsonl}}
connections:
  conn_bearer:
    upstream: http://127.0.0.1:{port}
    auth: {{type: bearer, token: sk-real-0123456789abcdef}}
    signing_keys: [{{secret: {secret}}}]
  conn_oauth2:
    upstream: http://127.0.0.1:{port}
    auth: {{type: oauth2, token_url: "{token_url}", client_id: me, client_secret: s-0123456789}}
    signing_keys: [{{secret: {secret}}}]
  conn_sigv4:
    upstream: http://127.0.0.1:{port}
    auth: {{type: aws_sigv4, access_key_id: AKIAIOSFODNN7EXAMPLE, secret_access_key: wJalrXUtnFEMI/K7MDENG,
            service: bedrock, region: eu-west-1}}
    signing_keys: [{{secret: {secret}}}]
"""
_VARY: Final = Path(__file__).with_name("vary.lua")
_POST: Final = """
wrk.method = "POST"
wrk.body = string.rep("x", {size})
"""
KINDS: Final = ("bearer", "oauth2", "sigv4")
OTHERS: Final = ("bare", "direct")
"""Ways without a gateway: bare mitmdump in reverse mode, and no proxy at all."""
LOADS: Final = ("one URL", "every request another one", "POST of 1 KiB", "POST of 64 KiB")


class Way(NamedTuple):
    """Where requests go. `pids` are the processes of the proxy."""

    base: str
    pids: list[int]


class Figures(NamedTuple):
    rate: float
    cpu: float
    """Seconds of the proxy for one request."""


@contextlib.contextmanager
def gateway(directory: Path, upstream: int, token_url: str) -> Iterator[tuple[int, int]]:
    """Yields port and process id of the supervisor."""
    config, port = directory / "config.yaml", free_port()
    config.touch(mode=0o600)
    config.write_text(_CONFIG.format(port=upstream, secret=SECRET, token_url=token_url))
    log = directory / "serve.log"
    command = [sys.executable, "-m", "presign_proxy", "serve", "--config", str(config), "--workers", "1"]
    command += ["--listen", f"127.0.0.1:{port}", "--confdir", f"{directory}/ca"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "addon")}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        while " serves" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        time.sleep(2)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def url_of(kind: str, base: str, path: str) -> str:
    if kind in OTHERS:
        return f"{base}/{path}"
    grant = Signer(f"conn_{kind}", SECRET).sign(["*"], ["v1/*"], expires_at=int(time.time()) + 86_400)
    return grant.url(path, base)


def measure(directory: Path, way: Way, kind: str, load: str, seconds: float) -> Figures:
    path = "v1/sink" if load.startswith("POST") else "v1/models"
    options = []
    if load == LOADS[1]:
        options = ["-s", str(_VARY)]
    elif load.startswith("POST"):
        script = directory / "post.lua"
        script.write_text(_POST.format(size=1024 * int(load.split()[2])))
        options = ["-s", str(script)]
    before = sum(map(cpu_seconds, way.pids))
    command = ["wrk", "-t1", "-c16", f"-d{seconds:.0f}s", *options, url_of(kind, way.base, path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = sum(map(cpu_seconds, way.pids)) - before
    assert "Non-2xx" not in said, said
    count, rate = re.search(r"(\d+) requests in", said), re.search(r"Requests/sec: +([\d.]+)", said)
    assert count and rate and int(count[1]), said
    return Figures(float(rate[1]), spent / int(count[1]))


def printed(name: str, found: list[float]) -> None:
    low, middle, high = statistics.quantiles(found, n=4) if len(found) > 1 else found * 3
    print(f"| {name} | {middle:.3g} | {low:.3g} to {high:.3g} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3)
    asked = parser.parse_args()
    endpoint = TokenEndpoint()
    found: list[dict[tuple[str, str], Figures]] = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        ports = stack.enter_context(peers.upstream(directory))
        port, pid = stack.enter_context(gateway(directory, ports.plain, endpoint.url))
        reverse = ("--mode", f"reverse:http://127.0.0.1:{ports.plain}")
        bare, bare_pid = stack.enter_context(mitmdump(name, *reverse))
        served = Way(f"http://127.0.0.1:{port}", peers.children(pid))
        ways = dict.fromkeys(KINDS, served) | {
            "bare": Way(f"http://127.0.0.1:{bare}", [bare_pid]),
            "direct": Way(f"http://127.0.0.1:{ports.plain}", []),
        }
        for number in range(asked.rounds + 1):  # the first one warms up
            one = {
                (kind, load): measure(directory, way, kind, load, asked.seconds if number else 1)
                for load in LOADS
                for kind, way in ways.items()
            }
            found += [one] if number else []
            print(f"round {number}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    assert len(endpoint.asked) == 1  # the token was cached
    endpoint.stop()
    for load in LOADS:
        for kind in KINDS[1:]:
            ratios = [one[kind, load].cpu / one["bearer", load].cpu for one in found]
            printed(f"CPU time of one request, {kind} ÷ bearer, {load}", ratios)
        for kind in KINDS[1:]:
            for other in OTHERS:
                rates = [one[kind, load].rate / one[other, load].rate for one in found]
                printed(f"requests a second, {kind} ÷ {other}, {load}", rates)
        for kind in KINDS:
            printed(f"µs of CPU time, {kind}, {load}", [one[kind, load].cpu * 1e6 for one in found])


if __name__ == "__main__":
    main()
