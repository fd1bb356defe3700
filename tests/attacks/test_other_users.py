"""What other users of the machine, and those who read what a gateway leaves behind, find: nothing of use."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.registry_file.edit import Draft
from presign_proxy.config.registry_file.encryption import new_key, parse_key
from support.asking import SECRET, Grant, wire
from support.config import write_config
from support.leaks import Traces
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import connect, exchange, parse_response
from support.recorder import Recorder

# Each lists the processes of a gateway of its own.
pytestmark = pytest.mark.slow

LITERAL = "sk-LITERAL-in-the-registry-0123456789"
FROM_ENV = "sk-FROM-the-environment-0123456789"
PRINTED = "sk-PRINTED-by-a-program-0123456789"
ABORTED = -signal.SIGABRT


@dataclass
class Owned:
    """A gateway whose secrets come from everywhere: a file it decrypts, its environment, a program."""

    gateway: Mitm
    home: Path
    temporary: Path
    registry_key: str
    issued: list[str] = field(default_factory=list)

    def ask(self, cid: str) -> int:
        grant = Grant(cid)
        self.issued.append(grant.headers["X-Presign-Signature"])
        with connect(self.gateway.port) as sock:
            return parse_response(exchange(sock, wire(grant.target("v1/models")))).status

    @property
    def traces(self) -> Traces:
        return Traces([LITERAL, FROM_ENV, PRINTED, SECRET, self.registry_key, *self.issued])


@pytest.fixture
def owned(tmp_path: Path, make_gateway: Any, upstream: Recorder) -> Owned:
    key = new_key()
    directory = tmp_path / "gateway"
    printing = {"exec": ["sh", "-c", "env > seen.env; cat > seen.stdin; cat printed"]}
    tokens = {"conn": LITERAL, "conn_env": {"env": "THE_TOKEN"}, "conn_exec": printing}
    draft = Draft(directory / "connections.enc", [parse_key(key)], {})
    for name, token in tokens.items():
        auth = {"type": "bearer", "token": token}
        keys = [{"id": "k1", "secret": SECRET}]
        draft.connections[name] = {"upstream": upstream.url, "auth": auth, "signing_keys": keys}
    registry = {"file": "connections.enc", "key": {"env": "PRESIGN_KEY"}}
    config = write_config({"registry": registry, "audit": {"file": "audit.jsonl"}}, directory)
    (directory / "printed").write_text(PRINTED, "utf-8")
    draft.write()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    env = {"PRESIGN_KEY": key.reveal(), "THE_TOKEN": FROM_ENV, "TMPDIR": str(temporary)}
    env["PYTHONFAULTHANDLER"] = "1"
    # Whoever starts it has no umask at all.
    before = os.umask(0)
    try:
        gateway = make_gateway(config, "-v", env=env)
    finally:
        os.umask(before)
    found = Owned(gateway, directory, temporary, key.reveal())
    assert [found.ask(name) for name in tokens] == [200] * 3
    return found


@pytest.mark.needs("ps", "/proc")
def test_the_process_table_shows_no_secret(owned: Owned) -> None:
    shown = subprocess.run(["ps", "-ww", "-e", "-o", "args"], capture_output=True, check=True).stdout
    assert str(owned.gateway.config).encode() in shown
    assert not owned.traces.found_in(shown)
    for task in Path(f"/proc/{owned.gateway.pid}/task").iterdir():
        names = (task / "comm").read_bytes() + (task / "cmdline").read_bytes()
        assert not owned.traces.found_in(names)


def test_a_listing_of_all_options_shows_no_secret(owned: Owned) -> None:
    done = subprocess.run(
        [*owned.gateway.argv, "--options"],
        env=owned.gateway._env,
        cwd=owned.gateway.directory,
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert b"presign_config" in done.stdout
    assert not owned.traces.found_in(done.stdout + done.stderr)


def test_nothing_that_a_gateway_writes_holds_a_secret_or_can_be_read_by_others(owned: Owned) -> None:
    given = {"config.yaml", "printed", "seen.env", "seen.stdin"}
    (owned.home / "connections.enc").touch()  # read again
    owned.gateway.child.send_signal(signal.SIGHUP)
    time.sleep(1.2)
    assert owned.ask("conn") == 200
    owned.gateway.stop()
    places = (owned.home, owned.gateway.directory)
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    written = [path for path in files if path.name not in given]
    assert {"audit.jsonl", "mitmproxy-ca.pem"} <= {path.name for path in written}
    for path in written:
        assert not owned.traces.found_in(path.read_bytes()), path
        if b"PRIVATE KEY" in path.read_bytes() or path.name == "audit.jsonl":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert list(owned.temporary.iterdir()) == []


def test_a_gateway_that_is_aborted_leaves_a_trace_without_secrets(owned: Owned) -> None:
    """Frames without their variables, and no core: what a crash prints goes to a log."""
    with connect(owned.gateway.port) as sock:
        grant = Grant("conn")
        owned.issued.append(grant.headers["X-Presign-Signature"])
        sock.sendall(wire(grant.target("v1/slow")))
        time.sleep(0.3)
        owned.gateway.child.send_signal(signal.SIGABRT)
        assert owned.gateway.child.wait(10) == ABORTED
    log = owned.gateway.log()
    assert "Fatal Python error: Aborted" in log
    assert not owned.traces.found_in(log.encode())


def test_a_program_that_prints_a_secret_reads_nothing_and_says_nothing(owned: Owned) -> None:
    """It has the gateway's own environment (which `op` and `vault` need), and no terminal to ask."""
    directory = owned.home
    environment = (directory / "seen.env").read_text("utf-8")
    assert f"TMPDIR={owned.temporary}" in environment
    assert (directory / "seen.stdin").read_bytes() == b""
    assert not owned.traces.found_in(owned.gateway.log().encode())


def test_a_client_learns_nothing_of_an_exception(
    make_gateway: Any, upstream: Recorder, tmp_path: Path
) -> None:
    """Whatever raises in us: the answer has no text of it, the log no value of it."""
    script = tmp_path / "raising.py"
    script.write_text(
        "from presign_proxy.core import decide as gateway\n"
        "def decide(registry, request, *_):\n"
        "    raise ValueError(f'{request.target!r} and {registry.connections}')\n"
        "gateway.decide = decide\n",
        "utf-8",
    )
    keys = [{"secret": SECRET}]
    auth = {"type": "bearer", "token": LITERAL}
    config = {"connections": {"conn": {"upstream": upstream.url, "auth": auth, "signing_keys": keys}}}
    gateway = make_gateway(config, "-s", str(script), "-v")
    grant = Grant("conn")
    with connect(gateway.port) as sock:
        response = parse_response(exchange(sock, wire(grant.target("v1/models"))))
    assert (response.status, response.header("x-presign-error")) == (500, "internal")
    traces = Traces([LITERAL, SECRET, grant.headers["X-Presign-Signature"]])
    assert eventually(lambda: "failed to decide (ValueError)" in gateway.log())
    assert not traces.found_in(response.body + gateway.log().encode())
    assert b"ValueError" not in response.body
    assert "Traceback" not in gateway.log()
