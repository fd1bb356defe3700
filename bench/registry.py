"""A large encrypted registry: what loading, decrypting, swapping and looking up cost.

The first part runs in this process. The second starts a mitmdump under load, rewrites its registry while it
serves, and reports the longest time for which its event loop did not run: without a swap, with one connection
changed, with all of them changed. The machine may be shared: compare the rows, not the milliseconds.

Run: .venv/bin/python bench/registry.py [--count 100000] [--rounds 3] [--skip-load]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "addon"))

from load import requests_per_second  # noqa: E402 - the path is set above
from throughput import mitmdump, running  # noqa: E402

from presign_proxy import Signer  # noqa: E402
from presign_proxy.config.load_beside import load_calmly  # noqa: E402
from presign_proxy.config.registry_file.edit import Draft  # noqa: E402
from presign_proxy.config.registry_file.encryption import VaultKey, new_key, parse_key, unseal  # noqa: E402
from presign_proxy.config.registry_file.memory import Memory  # noqa: E402
from presign_proxy.core.registry import Registry  # noqa: E402
from presign_proxy.http.message import Origin  # noqa: E402
from presign_proxy.signing.secret import Secret  # noqa: E402

SECRET = "sk_0123456789abcdef0123456789abcdef"
CONFIG = "registry: {file: connections.enc, key: {env: PRESIGN_KEY}}\ngateway: {unsigned: pass}\n"
# Asks the loop to run every millisecond, and keeps the longest time for which it did not.
PROBE = """
import asyncio, time
from pathlib import Path

class Probe:
    def running(self):
        self.task = asyncio.get_running_loop().create_task(self.watch())

    async def watch(self):
        log, worst, shown = Path("stall.log"), 0.0, time.monotonic()
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            now = time.monotonic()
            worst = max(worst, now - before - 0.001)
            if now - shown > 0.1:
                with log.open("a") as file:
                    file.write(f"{now} {worst}\\n")
                worst, shown = 0.0, now

addons = [Probe()]
"""


def entries(count: int) -> dict[str, Any]:
    """As `presign connections add` writes them; a third of them of APIs of their own."""
    found: dict[str, Any] = {}
    for number in range(count):
        entry: dict[str, Any] = {"preset": "openai"}
        if number % 3 == 0:
            entry = {"upstream": f"https://api{number}.example.com"}
        auth = {"token": f"sk-{secrets.token_urlsafe(32)}"} | ({} if number % 3 else {"type": "bearer"})
        key = {"id": "k1", "secret": f"sk_{secrets.token_urlsafe(32)}", "added": "2026-11-01T00:00:00Z"}
        found[f"conn_{number:06}"] = {
            **entry,
            "auth": auth,
            "signing_keys": [key],
            "allow": {"methods": ["GET", "POST"], "paths": ["v1/*"]},
            "max_lifetime": "7d",
        }
    return found


def timed(name: str, action: Callable[[], Any], rounds: int) -> Any:
    times, result = [], None
    for _ in range(rounds):
        began = time.perf_counter()
        result = action()
        times.append(time.perf_counter() - began)
    print(f"{name:<44} {statistics.median(times):8.3f} s   (best {min(times):.3f})")
    return result


def resident() -> int:
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def lookup(registry: Registry, name: str) -> float:
    """Microseconds for one look-up by id and one by URL."""
    origin, path = Origin("https", "api0.example.com", 443), b"/v1/models"
    times = []
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(20_000):
            registry.get(name, "presign")
            registry.addressed(origin, path)
        times.append((time.perf_counter() - began) / 20_000)
    return min(times) * 1e6


def measure_here(directory: Path, count: int, rounds: int, key: VaultKey) -> Draft:
    draft = Draft(directory / "connections.enc", [key], {"connections": entries(count)})
    timed(f"encrypt and write {count} connections", draft.write, 1)
    sealed = draft.path.read_bytes()
    print(f"{'size of the file':<44} {len(sealed) / 1e6:8.1f} MB")
    timed("decrypt", lambda: unseal(sealed, [key]), rounds)
    config = directory / "config.yaml"
    name = "load from nothing (decrypt, check, build)"
    timed(name, lambda: load_calmly(config, os.environ, "config", Memory()), rounds)
    before, memory = resident(), Memory()
    registry = load_calmly(config, os.environ, "config", memory).registry
    print(f"{'memory of one connection':<44} {(resident() - before) / count:8.0f} bytes")
    first = next(iter(draft.connections.values()))
    first["enabled"] = False
    draft.write()
    name = "load again, one connection changed"
    timed(name, lambda: load_calmly(config, os.environ, "config", memory), 1)
    small = Registry(dict(list(registry.connections.items())[:100]))
    few, many = lookup(small, "conn_000003"), lookup(registry, "conn_000003")
    print(
        f"{'look-up: 100 connections / all of them':<44} {few:8.2f} / {many:.2f} µs, ratio {many / few:.2f}"
    )
    return draft


def measure_stalls(directory: Path, draft: Draft, rounds: int) -> None:
    (directory / "probe.py").write_text(PROBE)
    os.chdir(directory)
    with running(sys.executable, str(ROOT / "bench/load.py")) as upstream:
        assert upstream.stdout
        draft.connections["conn_load"] = {
            "upstream": f"http://127.0.0.1:{int(upstream.stdout.readline())}",
            "auth": {"type": "bearer", "token": "sk-real-0123456789abcdef"},
            "signing_keys": [{"secret": SECRET}],
        }
        draft.write()
        options = ("--set", f"presign_config={directory}/config.yaml", "-s", str(directory / "probe.py"))
        script = ("-s", str(ROOT / "addon/presign.py"))
        with mitmdump(str(directory), *script, *options, patience=120) as (port, _):
            grant = Signer("conn_load", SECRET).sign(["GET"], ["*"], expires_at=int(time.time()) + 86_400)
            head = f"GET {grant.url('v1/x', '')} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
            while not (directory / "stall.log").exists():  # it reads its registry first
                time.sleep(0.1)
            report_stalls(directory, draft, rounds, port, head)


def report_stalls(directory: Path, draft: Draft, rounds: int, port: int, head: bytes) -> None:
    def stall(change: Callable[[], None] | None, seconds: float) -> tuple[float, float]:
        """The longest stall in milliseconds, and requests per second, while something changes."""

        async def both() -> float:
            loading = asyncio.create_task(requests_per_second(port, head, connections=8, seconds=seconds))
            if change is not None:
                await asyncio.sleep(0.5)
                await asyncio.to_thread(change)
            return (await loading)[0]

        began = time.monotonic()
        rate = asyncio.run(both())
        lines = [line.split() for line in (directory / "stall.log").read_text().splitlines()]
        return max(float(worst) for at, worst in lines if float(at) > began) * 1e3, rate

    def one() -> None:
        entry = draft.connections["conn_000007"]
        entry["enabled"] = not entry.get("enabled", True)
        draft.write()

    def every() -> None:
        for entry in draft.connections.values():
            entry["head_as_get"] = not entry.get("head_as_get", False)
        draft.write()

    stall(None, 1)
    for name, change, seconds in (
        ("no swap", None, 5.0),
        ("one changed", one, 5.0),
        ("all changed", every, 30.0),
    ):
        found = [stall(change, seconds) for _ in range(rounds)]
        shown = ", ".join(f"{one:.0f}" for one, _ in found)
        rate = statistics.median(rate for _, rate in found)
        worst = max(one for one, _ in found)
        print(f"longest stall under load, {name:<18} {worst:8.1f} ms (of {shown})   {rate:.0f} requests/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-load", action="store_true")
    arguments = parser.parse_args()
    text = new_key()
    os.environ["PRESIGN_KEY"] = text.reveal()
    key = parse_key(Secret(text.reveal()))
    with tempfile.TemporaryDirectory(prefix="presign-bench-") as name:
        directory = Path(name)
        (directory / "config.yaml").write_text(CONFIG)
        (directory / "config.yaml").chmod(0o600)
        draft = measure_here(directory, arguments.count, arguments.rounds, key)
        if not arguments.skip_load:
            measure_stalls(directory, draft, arguments.rounds)


if __name__ == "__main__":
    main()
