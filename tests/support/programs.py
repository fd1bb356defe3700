"""The programs that tests and benchmarks run beside Python: the Debian package of each, and what it is for.

This is the one list of them. A test names what it needs, and is skipped where that is missing:
`@pytest.mark.needs("curl")` before its fixtures start, or `needs("curl")` in a fixture or a helper.
`tools/setup --all` installs the packages. It runs this file with no other module at hand than the
standard library.

Run: python tests/support/programs.py prints the packages that `tools/setup --all` would install here.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_NODE_MODULES = Path(__file__).resolve().parent / "node" / "node_modules"
_LACKS = "missing here: "
ALL = "TESTS_NEED_ALL"
"""Where this is in the environment, a test fails that lacks what `tools/setup --all` installs."""


class Program(NamedTuple):
    """What can be missing. `path`: a file to look for instead of a command."""

    package: str
    """Debian's; empty where no package is the answer, and `advice` then is."""
    purpose: str
    in_all: bool = True
    """Whether `tools/setup --all` installs it."""
    path: Path | None = None
    advice: str = ""


PROGRAMS = {
    "bash": Program("bash", "the command line in a shell, and its completion"),
    "cc": Program("gcc", "a file system that hangs, as a library that is loaded first"),
    "chromedriver": Program("chromium-driver", "the pages for people and the site, in a browser"),
    "curl": Program("curl", "a client of the gateway"),
    "debootstrap": Program("debootstrap", "the container image, built without a daemon (make container)"),
    "docker": Program(
        "docker.io", "signing in to a container registry", in_all=False, advice="not in make setup-all"
    ),
    "fish": Program("fish", "completion in fish"),
    "git": Program("git", "cloning and pushing through the gateway"),
    "flock": Program("util-linux", "two set-ups of one tree at once"),
    # 81 MB to fetch and 464 MB on the disk, for the tests of two files.
    "go": Program(
        "golang-go", "the recipe for Go, and its client", in_all=False, advice="not in make setup-all: 464 MB"
    ),
    "haproxy": Program("haproxy", "two gateways behind a balancer"),
    "javac": Program(
        "default-jdk-headless",
        "a Java program of `presign run`",
        in_all=False,
        advice="not in make setup-all",
    ),
    "node": Program("nodejs", "the recipes for JavaScript, and node's own clients"),
    "npm": Program("npm", "the node packages"),
    "nginx": Program("nginx", "bench/performance.py"),
    "njs": Program(
        "libnginx-mod-http-js",
        "bench/performance.py",
        in_all=False,  # not in every release of Debian and Ubuntu
        path=Path("/usr/lib/nginx/modules/ngx_http_js_module.so"),
    ),
    "openssl": Program("openssl", "the recipes for bash"),
    "php": Program("php-cli", "the recipe for PHP"),
    "ps": Program("procps", "what other users see of a process"),
    "redis-server": Program("redis-server", "limits that several gateways share"),
    "ruby": Program("ruby", "the recipe for Ruby"),
    "man": Program("man-db", "the manual page"),
    "skopeo": Program("skopeo", "pulling from a container registry and pushing to it"),
    "squid": Program("squid", "a proxy on the way to the upstream"),
    "wrk": Program("wrk", "bench/performance.py"),
    "zsh": Program("zsh", "completion in zsh"),
    "node packages": Program(
        "",
        "OpenAI's own client for node",
        path=_NODE_MODULES / "openai",
        advice="make setup-all, where npm and its registry can be reached",
    ),
    "claude": Program("", "Claude Code", in_all=False, advice="npm install -g @anthropic-ai/claude-code"),
    "codex": Program("", "Codex", in_all=False, advice="npm install -g @openai/codex"),
    "gemini": Program("", "Gemini CLI", in_all=False, advice="npm install -g @google/gemini-cli"),
    "/dev/full": Program("", "a device that is full", path=Path("/dev/full"), advice="needs Linux"),
    "/proc": Program(
        "", "a look at processes from outside", path=Path("/proc/self/stat"), advice="needs Linux"
    ),
}
"""By the name of the command; the last ones are not commands."""


def find(name: str) -> str | None:
    """The path of a program of the table; None where it is missing."""
    if (path := PROGRAMS[name].path) is not None:
        return str(path) if path.exists() else None
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_beside()))


def _beside() -> list[str]:
    """The `sbin` beside each `bin` of the PATH: Debian puts servers there, off the PATH of users."""
    places = map(Path, os.environ.get("PATH", "").split(os.pathsep))
    return [str(place.with_name("sbin")) for place in places if place.name == "bin"]


def only(directory: Path, *names: str) -> Path:
    """Make a directory that serves as a whole PATH, with these commands of the machine and no other."""
    directory.mkdir()
    for name in names:
        if found := shutil.which(name):
            (directory / name).symlink_to(found)
    return directory


def missing(*names: str) -> list[str]:
    return [name for name in names if find(name) is None]


def needs(*names: str) -> None:
    """Skip the test that runs, where one of these programs is missing; fail it where all are to be there."""
    if lacking := missing(*names):
        import pytest

        if os.environ.get(ALL) and any(PROGRAMS[name].in_all for name in lacking):
            pytest.fail(_LACKS + ", ".join(lacking), pytrace=False)
        pytest.skip(_LACKS + ", ".join(lacking))


def require(*names: str) -> None:
    """End a benchmark with one sentence, where one of these programs is missing."""
    if lacking := missing(*names):
        raise SystemExit("\n".join([f"this needs {' and '.join(lacking)}.", *_ways(lacking)]))


def closing_lines(reasons: Iterable[str]) -> list[str]:
    """What a run says last.

    Args:
        reasons: why tests were skipped, one for each test. Other reasons than a missing program do not count.
    """
    lacks = [reason.partition(_LACKS)[2].split(", ") for reason in reasons if _LACKS in reason]
    if not lacks:
        return []
    counts = Counter(name for names in lacks for name in names)
    skipped = f"{len(lacks)} test{'s were' if len(lacks) > 1 else ' was'} skipped"
    lines = [f"{skipped}, because this machine lacks:"]
    lines += [f"  {name} ({counts[name]}): {PROGRAMS[name].purpose}" for name in sorted(counts)]
    return lines + _ways(sorted(counts))


def packages(names: Iterable[str]) -> list[str]:
    return sorted({PROGRAMS[name].package for name in names} - {""})


def _ways(lacking: Iterable[str]) -> list[str]:
    """How to get what is missing."""
    known = [(name, PROGRAMS[name]) for name in lacking]
    lines = []
    if wanted := packages(name for name, _ in known):
        easy = "make setup-all, or " if any(one.package and one.in_all for _, one in known) else ""
        lines.append(f"On Debian or Ubuntu: {easy}apt-get install {' '.join(wanted)}")
    return lines + [f"{name}: {one.advice}" for name, one in known if one.advice]


if __name__ == "__main__":
    print(*packages(missing(*(name for name, program in PROGRAMS.items() if program.in_all))))
