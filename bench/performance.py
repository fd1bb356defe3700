"""How fast the gateway is: ratios, each measured side by side in one run beside what is wanted.

nginx is the upstream, wrk the clients, rounds alternate. Only ratios mean something, and where the machine is
shared those of CPU time (of the proxy, all its processes, from /proc) more than those of requests per second;
the load is printed. Streams, bodies and idle connections have a client of their own.

Run: .venv/bin/python bench/performance.py [--rounds 7] [--seconds 3] [--only PART]
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

import bodies
import peers
from throughput import CONFIG, ROOT, SECRET, cpu_seconds, free_port, mitmdump, running

from presign_proxy import Signer
from support.programs import require

_STREAMING = """
def requestheaders(flow):
    flow.request.stream = True


def responseheaders(flow):
    flow.response.stream = True
"""
_LIMITS = "    max_uses: 1000000000\n    limits: [{rate: 10000/second, burst: 1000000}]\n"
_NUMBERS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class Proxy(NamedTuple):
    """One that is measured, and how it is asked."""

    port: int
    pid: int
    target: str


class Load(NamedTuple):
    """How wrk asks."""

    connections: int
    anew: bool = False
    """Whether each request comes on a connection of its own."""
    varied: bool = False
    """Whether each asks for another path: what was decided of one does not help the next."""


class Figures(NamedTuple):
    rate: float
    cpu: float
    """Seconds of the proxy for one request."""
    p99: float


class Row(NamedTuple):
    """One line of the table: `of` one figure of `ours` to that of `other`."""

    name: str
    ours: str
    other: str
    wanted: str
    load: Load
    of: tuple[str, ...] = ("rate", "cpu")


SIXTEEN, MANY, ANEW, VARIED = Load(16), Load(64), Load(16, anew=True), Load(16, varied=True)
_VARY: Final = Path(__file__).with_name("vary.lua")
_P99: Final = ("p99",)
ROWS: Final = (
    Row("serve ÷ bare, 16 connections", "serve", "bare", "≥ 12", SIXTEEN),
    Row("serve ÷ bare, 64 connections", "serve", "bare", "≥ 12", MANY),
    Row("serve ÷ bare, every request another one", "serve", "bare", "–", VARIED),
    Row("p99, 64 connections, serve ÷ bare", "serve", "bare", "≤ 0.15", MANY, _P99),
    Row("serve ÷ nginx + njs, 16", "serve", "nginx + njs", "≥ 1.0", SIXTEEN),
    Row("serve ÷ nginx + njs, 64", "serve", "nginx + njs", "≥ 1.0", MANY),
    Row("serve ÷ bare, https upstream", "serve, https", "bare, https", "≥ 9", SIXTEEN),
    Row("SQLite limits ÷ none, 16", "serve, limits", "serve", "≥ 0.6", SIXTEEN),
    Row("SQLite limits ÷ none, 64", "serve, limits", "serve", "≥ 0.6", MANY),
    Row("mitmdump -s, lane ÷ bare", "script", "bare", "≥ 8", SIXTEEN),
    Row("mitmdump -s, flows ÷ bare", "script, flows", "bare", "≥ 0.90", SIXTEEN),
    Row("serve, flows ÷ bare", "serve, flows", "bare", "≥ 2.0", SIXTEEN),
    Row("2 workers ÷ 1, 64 connections", "serve, 2 workers", "serve", "≥ 1.7", MANY, ("rate",)),
    Row("a client connection each, https", "serve, https", "bare, https", "≥ 2.0", ANEW),
    Row("HAProxy with HMAC ÷ serve", "haproxy", "serve", "the gap", SIXTEEN),
    Row("nginx, no check ÷ serve", "nginx", "serve", "the gap", SIXTEEN),
)


def measure(proxy: Proxy, load: Load, seconds: float) -> Figures:
    pids = peers.children(proxy.pid)
    before = sum(map(cpu_seconds, pids))
    options = [f"-c{load.connections}", f"-d{seconds:.0f}s", "--latency"]
    options += ["-H", "Connection: close"] if load.anew else []
    options += ["-s", str(_VARY)] if load.varied else []
    command = ["wrk", "-t1", *options, f"http://127.0.0.1:{proxy.port}{proxy.target}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = sum(map(cpu_seconds, pids)) - before
    assert "Non-2xx" not in said, said
    count, rate = re.search(r"(\d+) requests in", said), re.search(r"Requests/sec: +([\d.]+)", said)
    slow = re.search(r"99% +([\d.]+)(us|ms|s)", said)
    assert count and rate and slow and int(count[1]), f"{proxy}: {said}"
    return Figures(float(rate[1]), spent / int(count[1]), float(slow[1]) * _NUMBERS[slow[2]])


class House:
    """Starts each proxy when it is first asked for; they idle while others are measured."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.directory, self._stack = directory, stack
        self.upstream = stack.enter_context(peers.upstream(directory))
        self.events = int(self._events())
        self._found: dict[str, Proxy] = {}
        (directory / "streaming.py").write_text(_STREAMING)
        grant = Signer("conn_bench", SECRET).sign(["*"], ["v1/*"], expires_at=int(time.time()) + 86_400)
        one = Signer("conn_bench", SECRET).sign(["GET"], ["v1/*"], expires_at=int(time.time()) + 86_400)
        self._grant, self._one = grant, one

    def _events(self) -> str:
        server = self._stack.enter_context(running(sys.executable, str(ROOT / "bench/bodies.py")))
        assert server.stdout
        return server.stdout.readline()

    def target(self, path: str) -> str:
        """Of a presigned request to the gateway."""
        grant = self._one if path == "v1/models" else self._grant
        return grant.url(path, "http://127.0.0.1:1").removeprefix("http://127.0.0.1:1")

    def proxy(self, name: str) -> Proxy:
        if name not in self._found:
            self._found[name] = self.fresh(name, self._stack)
        return self._found[name]

    def fresh(self, name: str, stack: contextlib.ExitStack) -> Proxy:
        """One that nobody has asked yet, as long as the stack lasts."""
        kind, _, more = name.partition(", ")
        enter = stack.enter_context
        if kind == "nginx + njs":
            return Proxy(
                *enter(peers.nginx_proxy(self.directory, self.upstream.plain, check=True)), self._asked
            )
        if kind == "haproxy":
            return Proxy(*enter(peers.haproxy(self.directory, self.upstream.plain)), self._asked)
        if kind == "nginx":
            return Proxy(
                *enter(peers.nginx_proxy(self.directory, self.upstream.plain, check=False)), "/v1/models"
            )
        where = self._behind(more)
        if kind == "bare":
            return Proxy(*enter(self._mitmdump(where, *self._bare(more))), "/v1/models")
        config = self._config(name, where, limits=more == "limits")
        if kind == "script":
            script = ("-s", str(ROOT / "addon/presign.py"), "--set", f"presign_config={config}")
            lane = ("--set", "presign_lane=off") if more == "flows" else ()
            # The lane serves a regular proxy's clients: in reverse mode all takes the flow path.
            return Proxy(*enter(self._mitmdump("", *script, *lane)), self._asked)
        workers = 2 if more == "2 workers" else 1
        return Proxy(*enter(self._gateway(config, workers, lane=more != "flows")), self._asked)

    @property
    def _asked(self) -> str:
        return self.target("v1/models")

    def _behind(self, more: str) -> str:
        if more == "events":
            return f"http://127.0.0.1:{self.events}"
        secure = more == "https"
        return (
            f"https://localhost:{self.upstream.secure}"
            if secure
            else f"http://127.0.0.1:{self.upstream.plain}"
        )

    def _bare(self, more: str) -> tuple[str, ...]:
        return ("-s", str(self.directory / "streaming.py")) if more in ("events", "streaming") else ()

    def _mitmdump(self, where: str, *options: str) -> contextlib.AbstractContextManager[tuple[int, int]]:
        trust = ("--set", f"ssl_verify_upstream_trusted_ca={self.directory}/ca.pem")
        mode = f"reverse:{where}" if where else "regular"
        return mitmdump(str(self.directory), "--mode", mode, *trust, *options)

    def _config(self, name: str, where: str, *, limits: bool) -> Path:
        path = self.directory / (re.sub(r"\W+", "-", name) + ".yaml")
        path.touch(mode=0o600)
        text = CONFIG.format(port=0, secret=SECRET).replace("http://127.0.0.1:0", where)
        text = text.replace("audit.jsonl", f"{path.stem}.jsonl")
        store = f'limits: {{store: "sqlite:///{path.stem}.db"}}\n'
        path.write_text(text + (_LIMITS + store if limits else ""))
        return path

    @contextlib.contextmanager
    def _gateway(self, config: Path, workers: int, *, lane: bool) -> Iterator[tuple[int, int]]:
        """Yields port and process id of the supervisor, once all workers serve."""
        port, log = free_port(), config.with_suffix(f".{workers}.log")
        command = [sys.executable, "-m", "presign_proxy", "serve", "--config", str(config)]
        command += ["--listen", f"127.0.0.1:{port}", "--confdir", f"{self.directory}/ca"]
        command += ["--workers", str(workers), "--upstream-ca", f"{self.directory}/ca.pem"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "addon")}
        if not lane:  # serve has no such option, on purpose: whoever loads the package may still say so
            (self.directory / "without").mkdir(exist_ok=True)
            (self.directory / "without/sitecustomize.py").write_text(
                "import presign_proxy.mitm.lane.availability as o\no.is_open = lambda master, chosen: False\n"
            )
            environment["PYTHONPATH"] += f":{self.directory}/without"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            while log.read_text().count(" serves") < workers:
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            time.sleep(2)  # the reserve reads everything too
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def printed(name: str, found: list[float], wanted: str) -> None:
    low, middle, high = statistics.quantiles(found, n=4) if len(found) > 1 else found * 3
    print(f"| {name} | {wanted} | {middle:.3g} | {low:.3g} to {high:.3g} |", flush=True)


def requests(house: House, rounds: int, seconds: float) -> None:
    """Every proxy under every load once a round."""
    needed = sorted({(name, row.load) for row in ROWS for name in (row.ours, row.other)})
    for name, load in needed:
        measure(house.proxy(name), load, seconds)
    found: list[dict[tuple[str, Load], Figures]] = []
    for number in range(rounds):
        found.append({(name, load): measure(house.proxy(name), load, seconds) for name, load in needed})
        print(f"round {number + 1}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    for row in ROWS:
        pairs = [(one[row.ours, row.load], one[row.other, row.load]) for one in found]
        for what in row.of:
            values = [getattr(ours, what) / getattr(other, what) for ours, other in pairs]
            if what == "cpu":
                printed(
                    f"… CPU time of one request, {row.other} ÷ {row.ours}",
                    [1 / one for one in values],
                    row.wanted,
                )
            else:
                printed(row.name, values, row.wanted)
    for name in sorted({name for name, load in needed if load == SIXTEEN}):
        costs = [one[name, SIXTEEN].cpu * 1e6 for one in found]
        printed(f"µs of CPU time for one request, {name}", costs, "–")


def check(house: House, rounds: int, seconds: float) -> None:  # noqa: ARG001 - one shape for all parts
    import verify

    known, asked = verify.registry(), verify.request("query")
    calls = [verify.microseconds(lambda: verify.verify(known, asked)) for _ in range(rounds)]
    printed("the check itself: parse, MAC, policy, µs", calls, "≤ 20")


def streams(house: House, rounds: int, seconds: float) -> None:  # noqa: ARG001
    """50 event streams at once."""
    first: list[float] = []
    cost: list[float] = []
    for _ in range(rounds):
        found = {}
        for name, target in (("serve, events", house.target("v1/events")), ("bare, events", "/v1/events")):
            proxy = house.proxy(name)
            before = sum(map(cpu_seconds, peers.children(proxy.pid)))
            waited, events = bodies.listen(proxy.port, target, streams=50)
            spent = sum(map(cpu_seconds, peers.children(proxy.pid))) - before
            found[name] = (waited, spent / events)
        ours, bare = found["serve, events"], found["bare, events"]
        first.append(ours[0] / bare[0])
        cost.append(ours[1] / bare[1])
    printed("SSE, 50 new streams: time to the first event, serve ÷ bare", first, "≤ 0.3")
    printed("SSE: CPU time of one event, serve ÷ bare", cost, "≤ 0.5")


def gibibyte(house: House, rounds: int, seconds: float) -> None:  # noqa: ARG001
    grown: list[float] = []
    ratios: dict[str, list[float]] = {"upload": [], "download": []}
    fresh = house.proxy("nginx")  # whoever asks first waits for the disk
    bodies.gibibyte(fresh.port, peers.children(fresh.pid), "/v1/big", "download")
    for _ in range(min(rounds, 3)):
        for way in ratios:
            path = "v1/big" if way == "download" else "v1/sink"
            taken = {}
            for name, target in (("serve", house.target(path)), ("bare, streaming", f"/{path}")):
                proxy = house.proxy(name)
                taken[name], more = bodies.gibibyte(proxy.port, peers.children(proxy.pid), target, way)
                if name == "serve":
                    grown.append(more / 1024)
            ratios[way].append(taken["bare, streaming"] / taken["serve"])
    printed("1 GiB upload, serve ÷ bare", ratios["upload"], "≥ 1.6")
    printed("1 GiB download, serve ÷ bare", ratios["download"], "≥ 1.3")
    printed("… memory added, MiB", grown, "≤ 8")


def idle(house: House, rounds: int, seconds: float) -> None:  # noqa: ARG001
    found = []
    for _ in range(min(rounds, 3)):
        used = {}
        for name in ("serve", "bare"):
            # A process that was never asked: what others have left behind would be used again.
            with contextlib.ExitStack() as stack:
                fresh = house.fresh(name, stack)
                used[name] = bodies.idle(fresh.port, peers.children(fresh.pid), fresh.target, clients=400)
        found.append(used["serve"] / used["bare"])
    printed("memory of an idle client connection, serve ÷ bare", found, "≤ 1.0")


PARTS: Final = {"requests": requests, "check": check, "streams": streams, "bodies": gibibyte, "idle": idle}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", choices=PARTS)
    asked = parser.parse_args()
    require("curl", "haproxy", "nginx", "njs", "wrk", "/proc")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755 if os.geteuid() == 0 else 0o700)
        house = House(directory, stack)
        print(f"load {os.getloadavg()}, {os.cpu_count()} cores, rounds {asked.rounds}", file=sys.stderr)
        print("| measured | wanted | median | quartiles |\n|---|---|---|---|")
        for part, work in PARTS.items():
            if asked.only in (None, part):
                work(house, asked.rounds, asked.seconds)


if __name__ == "__main__":
    main()
