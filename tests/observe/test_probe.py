"""The health check of the image, as a container's runtime runs it: a program, its exit code, a line."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from presign_proxy.observe import admin_server, probe
from support.places import ROOT
from support.process import free_port

ARGV = (sys.executable, "-m", "presign_proxy.observe.probe")


def run(*arguments: str, directory: Path = ROOT, **environ: str) -> tuple[int, str]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "addon")} | environ
    done = subprocess.run(
        [*ARGV, *arguments], cwd=directory, env=env, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def asked(ready: bool, said: str, **environ: str) -> tuple[int, str]:
    """What the program says of a real admin listener."""

    async def ask() -> tuple[int, str]:
        sockets = admin_server.bound("127.0.0.1", 0)
        server = admin_server.AdminServer(
            sockets, "127.0.0.1", lambda: (ready, said), *[lambda: pytest.fail("no figures")] * 2
        )
        try:
            address = f"127.0.0.1:{sockets[0].getsockname()[1]}"
            return await asyncio.to_thread(lambda: run(address, **environ))
        finally:
            server.close()

    return asyncio.run(ask())


def test_a_gateway_that_is_ready_is_healthy() -> None:
    assert asked(True, "ready") == (0, "ready\n")


def test_a_gateway_that_drains_is_not_healthy_and_says_why() -> None:
    assert asked(False, "not ready: draining") == (1, "not ready: draining\n")


def test_the_proxy_of_the_environment_is_not_asked_for_the_gateway_itself() -> None:
    """A container often has HTTP_PROXY set for what is outside of it."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert asked(True, "ready", HTTP_PROXY=nowhere, http_proxy=nowhere, ALL_PROXY=nowhere) == (0, "ready\n")


def test_where_nobody_listens_that_is_said() -> None:
    port = free_port()
    code, said = run(f"127.0.0.1:{port}")
    assert code == 1
    assert said.startswith(f"no answer from 127.0.0.1:{port}: ")
    assert said.count("\n") == 1


def test_an_address_that_is_none_is_said_to_be_none() -> None:
    assert run("127.0.0.1:http")[0] == 1


def test_a_gateway_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel accepts, and nobody answers."""
    monkeypatch.setattr(probe, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert probe.ask(address) == (False, f"no answer from {address}: timed out")


def test_the_usual_address_is_that_of_the_documents() -> None:
    assert f"listen: {probe.DEFAULT}" in (ROOT / "deploy/config.compose.yaml").read_text("utf-8")
    assert f"listen: {probe.DEFAULT}" in (ROOT / "docs/observing.md").read_text("utf-8")
