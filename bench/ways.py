"""One load on several ways to the same upstream, in turn, and the table of what came of it.

The ways: directly, through `presign serve`, through `mitmdump -s` without the lane, and through bare
mitmdump in reverse mode. Only ratios mean something; those of CPU time (of the proxy alone) are the
steadier ones.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from throughput import ROOT, cpu_seconds, mitmdump

sys.path[:0] = [str(ROOT / "addon"), str(ROOT / "tests")]

from support.config import write_config  # noqa: E402 - the path is set above
from support.serving import Serve  # noqa: E402

WAYS: Final = ("direct", "serve", "script, flows", "bare")
_RATIOS: Final = (
    ("serve", "bare"),
    ("script, flows", "bare"),
    ("serve", "direct"),
    ("script, flows", "direct"),
)


class Proxy(NamedTuple):
    """Where clients connect to. `pid` is the process that does the work."""

    port: int
    pid: int
    ca: Path
    """The authority that the clients trust."""


class Measured(NamedTuple):
    """What one way has done in one round."""

    rate: float
    """A second, there and back."""
    latency: float
    """Median seconds of one, there and back."""
    cpu: float
    """Seconds of CPU time of the proxy for one."""


Found = Mapping[tuple[str, str], list[Measured]]
"""By way and load, one for each round."""


@contextlib.contextmanager
def proxies(
    directory: Path, config: dict[str, Any], url: str, *of_bare: str, ca: Path | None = None
) -> Iterator[dict[str, Proxy]]:
    """Start all ways but the direct one.

    Args:
        config: the gateway's, with a connection to the upstream.
        url: the upstream's, for bare mitmdump.
        of_bare: more options of bare mitmdump.
        ca: the authority of the upstream, if it has TLS.
    """
    for name in ("serve", "script"):
        (directory / name).mkdir(mode=0o700)
    script = write_config(config, directory / "script")
    trusting = ("--set", f"ssl_verify_upstream_trusted_ca={ca}") if ca else ()
    flows = ("-s", str(ROOT / "addon/presign.py"), "--set", f"presign_config={script}")
    stock = directory / "ca/mitmproxy-ca-cert.pem"
    with contextlib.ExitStack() as stack:
        of_serve = ("--upstream-ca", str(ca)) if ca else ()
        served = stack.enter_context(Serve(directory / "serve", config, *of_serve))
        (worker,) = served.serving()
        shut = ("--set", "presign_lane=off")
        by_script = stack.enter_context(mitmdump(str(directory), *flows, *shut, *trusting))
        reverse = ("--mode", f"reverse:{url}")
        bare = stack.enter_context(mitmdump(str(directory), *reverse, *trusting, *of_bare))
        yield {
            "serve": Proxy(served.port, worker, served.ca),
            "script, flows": Proxy(*by_script, stock),
            "bare": Proxy(*bare, stock),
        }


class CpuTime:
    """The CPU time that a process takes from now on; none without a process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = cpu_seconds(pid) if pid else 0.0

    @property
    def spent(self) -> float:
        return cpu_seconds(self._pid) - self._before if self._pid else 0.0


def print_tables(found: Found, loads: tuple[str, ...]) -> None:
    """Print the medians, and the medians of the ratios of each round."""
    print("| load | way | a second | µs there and back | µs of CPU time of the proxy |")
    print("|---|---|---|---|---|")
    for load in loads:
        for way in WAYS:
            rounds = found[way, load]
            rate, latency, cpu = (statistics.median(one[at] for one in rounds) for at in range(3))
            print(f"| {load} | {way} | {rate:,.0f} | {latency * 1e6:,.0f} | {cpu * 1e6:,.0f} |")
    print("\n| ratio | load | a second | there and back | CPU time |\n|---|---|---|---|---|")
    for one, other in _RATIOS:
        for load in loads:
            pairs = list(zip(found[one, load], found[other, load], strict=True))
            more = statistics.median(a.rate / b.rate for a, b in pairs)
            later = statistics.median(a.latency / b.latency for a, b in pairs)
            cpu = statistics.median(a.cpu / b.cpu for a, b in pairs) if other == "bare" else 0.0
            shown = f"{cpu:.2f}" if cpu else "–"
            print(f"| {one} ÷ {other} | {load} | {more:.2f} | {later:.2f} | {shown} |")
