"""Signals in a loop, as a broken script sends them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from support.asking import SECRET, Grant, ask
from support.puppet import eventually
from support.recorder import Recorder
from support.serving import CONN, Serve, config_for

STORM = 5000
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Seconds of a core that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_that_means_something_to_other_servers_ends_neither_the_gateway_nor_a_worker(
    tmp_path: Path, upstream: Recorder, number: int
) -> None:
    gateway = Serve(tmp_path, config_for(upstream)).start()
    try:
        workers = gateway.serving()
        for pid in (gateway.pid, *workers):
            os.kill(pid, number)
        time.sleep(0.5)
        assert ask(gateway.port, Grant(CONN).target("v1/models")).status == 200
        assert gateway.serving() == workers
    finally:
        gateway.stop()


def test_thousands_of_reloads_while_one_waits_for_a_program_take_nobodys_time(
    tmp_path: Path, upstream: Recorder
) -> None:
    program, slow = tmp_path / "secret.sh", tmp_path / "slow"
    program.write_text(f"#!/bin/sh\n[ -e {slow} ] && sleep 9\nprintf %s {SECRET}\n", "ascii")
    program.chmod(0o700)
    config = config_for(upstream)
    config["connections"][CONN]["signing_keys"] = [{"secret": {"exec": [str(program)]}}]
    gateway = Serve(tmp_path / "gateway", config)
    gateway.directory.mkdir(mode=0o700, exist_ok=True)
    gateway.start()
    try:
        assert eventually(gateway.has_reserve, 60)
        (worker,) = gateway.serving()
        slow.touch()
        for _ in range(STORM):
            gateway.signal(signal.SIGHUP)
            time.sleep(0.0003)
        before, begun = cpu(worker), time.monotonic()
        time.sleep(2)
        share = (cpu(worker) - before) / (time.monotonic() - begun)
        assert share < 0.06  # of a core; it takes 0.01 when nothing happens
        assert ask(gateway.port, Grant(CONN).target("v1/models")).status == 200
        slow.unlink()
        # The last signal is obeyed too: what it asks for is read.
        assert eventually(lambda: gateway.log().count("1 connection from") >= 2, 20)
    finally:
        gateway.stop()
