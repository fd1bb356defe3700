"""From nothing but the built wheel to the first presigned request, by every way people install things."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from support.documents import DOCS, block
from support.environments import MINUTES, PYTHON, bare_environment, run
from support.places import ROOT
from support.process import Process, free_port
from support.programs import needs
from support.recorder import Recorder

KEY = "sk-KEY-OF-THE-FIRST-MINUTE"


class Minute:
    """The first minute of somebody who has the command on his PATH, in an empty directory, and curl."""

    def __init__(self, commands: Path, home: Path) -> None:
        self.home = home
        self.env = bare_environment(home, commands)
        self.here = home / "gateway"
        self.here.mkdir(mode=0o700)

    def shell(self, line: str, stdin: str = "") -> str:
        return run(["/bin/sh", "-c", line], self.env, self.here, stdin).strip()

    def until_signed(self, upstream: Recorder) -> str:
        """`init`, `connections add`, `sign`; returns the URL."""
        self.shell("presign init")
        self.shell(f"presign connections add conn_api --upstream {upstream.url} --auth bearer", f"{KEY}\n")
        return self.shell("presign sign conn_api v1/models")

    def gateway(self, line: str) -> Process:
        """Starts a gateway as the documents say; `PORT` in the line is the port."""
        port = free_port()
        return Process(
            ["/bin/sh", "-c", f"exec {line.replace('PORT', str(port))}"],
            port,
            self.here / "output.log",
            self.env,
            self.here,
        )

    def status(self, url: str, gateway: Process, *more: str) -> str:
        at = url.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{gateway.port}")
        line = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *more, at]
        return run(line, self.env, self.here)


def assert_it_works(minute: Minute, upstream: Recorder) -> None:
    needs("curl")
    url = minute.until_signed(upstream)
    with minute.gateway("presign serve --listen 127.0.0.1:PORT --confdir ./authority") as served:
        assert minute.status(url, served) == "200"
        assert minute.status(url.replace("v1/models?", "v1/other?"), served) == "403"
        open_proxy = ["-x", f"http://127.0.0.1:{served.port}", "--noproxy", "none.test"]
        assert minute.status(f"{upstream.url}/unsigned", served, *open_proxy) == "403"
        assert served.stop() == 0
    script = 'mitmdump --listen-host 127.0.0.1 --listen-port PORT -s "$(presign script-path)"'
    with minute.gateway(f"{script} --set confdir=./authority") as scripted:
        assert minute.status(url, scripted) == "200"
        assert minute.status(url.replace("v1/models?", "v1/other?"), scripted) == "403"
    seen = [(one.target, one.header("Authorization")) for one in upstream.requests]
    assert seen == [("/v1/models", f"Bearer {KEY}")] * 2


def test_with_pip(pip_environment: Path, home: Path, upstream: Recorder) -> None:
    assert_it_works(Minute(pip_environment, home), upstream)


def test_with_uv_tool_install(wheel: Path, clients: Path, home: Path, upstream: Recorder) -> None:
    commands = home / ".local/bin"
    env = bare_environment(home, clients, PYTHON)
    run(["uv", "tool", "install", "--quiet", "--with-executables-from", "mitmproxy", str(wheel)], env, home)
    assert_it_works(Minute(commands, home), upstream)


def test_with_pipx(wheel: Path, clients: Path, home: Path, upstream: Recorder) -> None:
    env = bare_environment(home, clients, PYTHON)
    run(["pipx", "install", "--include-deps", str(wheel)], env, home)
    assert_it_works(Minute(home / ".local/bin", home), upstream)


def test_the_page_about_upgrades_puts_the_new_version_beside_the_old_one(
    wheel: Path, pip_environment: Path, home: Path, upstream: Recorder
) -> None:
    """Typed with the wheel for the name of the package. Both versions serve, from the same files."""
    minute = Minute(pip_environment, home)
    url = minute.until_signed(upstream)
    beside, python = home / "opt/presign-new", minute.shell("command -v python3")
    assert python
    typed = block(DOCS["jobs/upgrade.md"], "sh").replace("/opt/presign-new", str(beside))
    typed = typed.replace("install presign-proxy", f"install -q {wheel}")
    assert str(wheel) in typed
    run(["/bin/sh", "-ec", typed], bare_environment(home, PYTHON), minute.here)
    assert "1 connection, 0 errors" in minute.shell(f"{beside}/bin/presign check")
    with (
        minute.gateway("presign serve --listen 127.0.0.1:PORT --confdir ./authority") as old,
        minute.gateway(f"{beside}/bin/presign serve --listen 127.0.0.1:PORT --confdir ./authority") as new,
    ):
        assert [minute.status(url, one) for one in (old, new, old)] == ["200"] * 3


def assert_it_shows(output: str) -> None:
    assert "GET v1/hello   200" in output
    assert "GET v1/admin   403" in output


def test_with_uvx_and_nothing_installed(wheel: Path, clients: Path, home: Path) -> None:
    env = bare_environment(home, clients, PYTHON)
    uvx = ["uvx", "--quiet", "--find-links", str(wheel.parent), "presign-proxy"]
    assert_it_shows(run([*uvx, "demo", "--port", "0", "--once"], env, home))
    # What it says comes next is for the shell, which finds nothing of what uvx has on its PATH.
    (here := home / "gateway").mkdir(mode=0o700)
    run([*uvx, "init"], env, here)
    listed = run([*uvx, "connections", "list"], env, here)
    add = listed.strip().removeprefix("No connections yet: ")
    run(["/bin/sh", "-c", add], bare_environment(home), here, f"{KEY}\n")
    assert "conn_openai" in run([*uvx, "connections", "list"], env, here)


def checkout(into: Path) -> Path:
    """The files that are part of the project, as a clone has them."""
    needs("git")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, into / name)
    return into


@pytest.mark.parametrize("tools", ["pip", "uv"])
def test_from_a_checkout(tools: str, clients: Path, home: Path) -> None:
    """`make run` shows a request, and installs what it needs to run and nothing of the tests."""
    tree = checkout(home / "a clone")
    env = bare_environment(home, PYTHON, *([clients] if tools == "uv" else []))
    port = free_port()
    demo = Process(["make", "run", f"PORT={port}"], port, home / "output.log", env, tree)
    with demo.start(MINUTES):
        assert demo.wait_for_log("Serving on", 60), demo.log()
        assert_it_shows(demo.log())
        os.killpg(demo.pid, signal.SIGINT)
        demo.child.wait(30)
    packages = tree.glob(".venv/lib/*/site-packages/*.dist-info")
    names = {path.name.partition("-")[0].lower() for path in packages}
    assert "mitmproxy" in names
    assert names & {"pytest", "mypy", "openai", "boto3", "hypothesis"} == set()
