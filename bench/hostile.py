"""Mutated requests through the tests in `FILES`, several runs side by side: `make hostile`.

Each run has gateways, upstreams, a client and random numbers of its own. It waits much of the time, to see
that nothing more comes of a request that is none, so there are more runs than cores.

Run: .venv/bin/python bench/hostile.py [--requests 100000] [--jobs 6] [--seed N]
The same seed and number of requests and jobs make the same requests.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = (
    "tests/attacks/test_differential.py",
    "tests/attacks/test_differential_handshakes.py",
    "tests/attacks/test_differential_signatures.py",
    "tests/attacks/test_differential_tokens.py",
)
SEEDS = 1000
"""From one run's first seed to the next one's: more than it has rounds."""


class Run:
    """One pytest over a share of the requests; what it prints is passed on, its counts are kept."""

    def __init__(self, number: int, requests: int, seed: int) -> None:
        self.number = number
        self.counts: Counter[str] = Counter()
        env = dict(os.environ, PRESIGN_REQUESTS=str(requests), PRESIGN_SEED=str(seed))
        argv = [sys.executable, "-m", "pytest", *FILES, "-s"]
        argv += ["-o", "faulthandler_timeout=0"]  # one test takes minutes
        self._child = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self._child.stdout or ():
            if line.startswith('{"'):
                self.counts.update(json.loads(line))
            elif line.strip(" .\n"):
                print(f"[{self.number}] {line}", end="", flush=True)

    def wait(self) -> bool:
        """Whether nothing was found, by a run that came to its end."""
        self._reader.join()
        return self._child.wait() == 0 and bool(self.counts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=3 * (os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, default=random.randrange(1, 10**9))
    asked = parser.parse_args()
    started = time.monotonic()
    share = -(-asked.requests // asked.jobs)
    print(f"seed {asked.seed}, {asked.jobs} runs of {share} requests", flush=True)
    runs = [Run(number, share, asked.seed + SEEDS * number) for number in range(asked.jobs)]
    good = [run.wait() for run in runs]
    took = time.monotonic() - started
    counts = sum((run.counts for run in runs), Counter[str]())
    print(f"{counts['requests']} requests in {took:.0f} s, {counts['requests'] / took:.0f} a second")
    for name, count in sorted(counts.items()):
        print(f"{count:9}  {name}")
    print("nothing found" if all(good) else f"FOUND, or broken off: {good.count(False)} of {len(good)} runs")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
