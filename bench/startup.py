"""How long a verb of the command takes to start, beside `python -c pass`.

Rounds alternate: in each, every command runs once, in random order, so that what else the machine does falls
on all of them. Of each, the ratio to `python -c pass` of the same round, the time and the processor time:
medians and quartiles. On a busy machine, trust the processor time. Two lines show what cannot be saved: the
imports of the libraries that signing needs.

Compiled modules are there, as after an installation; they are written into a directory of this run.

Run: .venv/bin/python bench/startup.py [ROUNDS]
(31 by default)
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

ADDON: Final = Path(__file__).resolve().parents[1] / "addon"
SECRET: Final = "sk_startup_0123456789abcdef0123456789abcdef"
PASS: Final = "python -c pass"
WANTED: Final = "wanted: at most 150 ms, or three times `python -c pass` where that is more"

_CRYPTOGRAPHY: Final = "import click, yaml; from cryptography.hazmat.primitives.ciphers import Cipher"


class Taken(NamedTuple):
    """Seconds of one run: by the clock, and of the processor."""

    wall: float
    cpu: float


def commands(presign: Path) -> dict[str, list[str]]:
    python, command = sys.executable, [sys.executable, str(presign)]
    return {
        PASS: [python, "-c", "pass"],
        "import click": [python, "-c", "import click"],
        "import click, yaml, cryptography": [python, "-c", _CRYPTOGRAPHY],
        "from presign_proxy import Signer": [python, "-c", "from presign_proxy import Signer"],
        "presign --help": [*command, "--help"],
        "presign --version": [*command, "--version"],
        "presign completion bash": [*command, "completion", "bash"],
        "presign sign, secret alone": [*command, "sign", "conn_a", "v1/models", "--secret-env", "SIGNING"],
        "presign sign, encrypted registry": [*command, "sign", "conn_a", "v1/models"],
        "presign connections list": [*command, "connections", "list"],
    }


def prepared(directory: Path) -> tuple[Path, dict[str, str]]:
    """The command and its environment, in a directory with a configuration and an encrypted registry."""
    presign = directory / "presign"
    presign.write_text("from presign_proxy.__main__ import main\n\nmain()\n")
    left_out = ("PYTHONDONTWRITEBYTECODE", "PRESIGN_CONFIG")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    env |= {"PYTHONPATH": str(ADDON), "PYTHONPYCACHEPREFIX": str(directory / "compiled"), "SIGNING": SECRET}
    for arguments in (["init"], ["connections", "add", "conn_a", "--preset", "openai"]):
        subprocess.run(
            [sys.executable, str(presign), *arguments],
            input=b"sk-KEY-0123456789\n",
            cwd=directory,
            env=env,
            check=True,
            capture_output=True,
        )
    return presign, env


def run(command: Sequence[str], directory: Path, env: Mapping[str, str]) -> Taken:
    with (directory / "out").open("wb") as out:
        begun = time.perf_counter()
        child = subprocess.Popen(command, cwd=directory, env=env, stdout=out, stderr=out)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begun
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, (command, (directory / "out").read_text())
    return Taken(wall, used.ru_utime + used.ru_stime)


def spread(values: Sequence[float], form: str) -> str:
    """Median, and the quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:{form}} ({low:{form}} to {high:{form}})"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 31
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o700)
        presign, env = prepared(directory)
        cases = commands(presign)
        taken: dict[str, list[Taken]] = {case: [] for case in cases}
        for number in range(-1, rounds):  # the first writes the compiled modules, and does not count
            for case in random.sample(list(cases), len(cases)):
                found = run(cases[case], directory, env)
                if number >= 0:
                    taken[case].append(found)
    print(f"{rounds} rounds, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {WANTED}\n")
    print("| started | ÷ `python -c pass` | ms | ms of the processor | ÷ that of `pass` |")
    print("|---|---|---|---|---|")
    for case, found in taken.items():
        pairs = list(zip(found, taken[PASS], strict=True))
        cells = (
            spread([one.wall / base.wall for one, base in pairs], ".2f"),
            spread([one.wall * 1000 for one in found], ".0f"),
            spread([one.cpu * 1000 for one in found], ".0f"),
            spread([one.cpu / base.cpu for one, base in pairs], ".2f"),
        )
        print(f"| {case} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
