"""What is revoked, disabled or removed comes into force whatever else a changed configuration lacks."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from presign_proxy.config.registry_file.edit import Draft
from presign_proxy.config.registry_file.encryption import new_key, parse_key
from presign_proxy.config.registry_file.storage import write_private
from presign_proxy.signing.secret import Secret
from support.asking import SECRET, Grant, ask, wire
from support.config import write_config
from support.hanging import Hanging
from support.lab import bearer_connection
from support.process import free_port
from support.puppet import eventually
from support.raw import connect, exchange
from support.recorder import Recorder
from support.serving import PRESIGN, Serve, environment, is_stopped

# What breaks at night breaks for seconds: gateways are started, starved and stopped.
pytestmark = pytest.mark.slow

OTHER = "sk_other_secret_of_these_tests_0123456789"
KEY = new_key().reveal()
"""Of an encrypted registry."""
SOON = 5.0
"""Seconds in which a test waits for what is to happen within one: the machine may be busy."""


class Night:
    """A gateway with a plain registry, and the command beside it."""

    def __init__(self, gateway: Serve, admin: int) -> None:
        self.gateway, self.admin = gateway, admin
        self.directory = gateway.directory

    def presign(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [*PRESIGN, *arguments, "--config", str(self.gateway.config)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(PRESIGN_KEY=KEY),
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self, connection: str, secret: str = SECRET) -> tuple[int, str | None]:
        found = ask(self.gateway.port, Grant(connection, secret=secret).target("v1/models"))
        return found.status, found.header("x-presign-error")

    def becomes(self, connection: str, status: int, code: str | None = None, secret: str = SECRET) -> bool:
        return eventually(lambda: self.status(connection, secret) == (status, code), SOON)

    def ready(self) -> tuple[int, str]:
        found = ask(self.admin, "/readyz", host="127.0.0.1")
        return found.status, found.body.decode().strip()

    def says(self, text: str) -> bool:
        return eventually(lambda: text in self.ready()[1], SOON)

    def figures(self) -> dict[str, float]:
        lines = ask(self.admin, "/metrics", host="127.0.0.1").body.decode().splitlines()
        pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in pairs}


MakeNight = Callable[..., Night]


@pytest.fixture
def make_night(tmp_path: Path, upstream: Recorder) -> Iterator[MakeNight]:
    with ExitStack() as started:

        def make(
            registered: dict[str, Any] | None = None,
            *,
            workers: int = 1,
            kind: str = "yaml",
            hanging: Hanging | None = None,
            **inline: Any,
        ) -> Night:
            admin, directory = free_port(), tmp_path / "night"
            directory.mkdir(mode=0o700)
            content = {"connections": registered or {}}
            file = f"registry.{kind}"
            text = json.dumps(content) if kind == "json" else ""
            config: dict[str, Any] = {
                "registry": {"file": file},
                "admin": {"listen": f"127.0.0.1:{admin}"},
                "connections": {"conn_inline": bearer_connection(upstream.url, SECRET)} | inline,
            }
            if kind == "enc":
                config["registry"]["key"] = {"env": "PRESIGN_KEY"}
                Draft(directory / file, [parse_key(Secret(KEY))], content).write()
            elif kind == "json":
                write_private(directory / file, text.encode())
            else:
                write_config(content, directory, file)
            gateway = Serve(
                directory, config, workers=workers, PRESIGN_KEY=KEY, **(hanging.env if hanging else {})
            )
            started.callback(gateway.stop)
            night = Night(gateway.start(), admin)
            assert eventually(lambda: suppressed(night.ready), SOON)
            return night

        yield make


def suppressed(ask_it: Callable[[], object]) -> object:
    with suppress(OSError):
        return ask_it()
    return None


def fetched(upstream: Recorder, directory: str = ".") -> dict[str, Any]:
    """A connection whose signing secret is printed by a program that fails where there is a file `broken`."""
    script = f"test ! -e {directory}/broken && echo {OTHER}"
    entry = bearer_connection(upstream.url, OTHER)
    return entry | {"signing_keys": [{"secret": {"exec": ["sh", "-c", script]}}]}


# -- revoked, whatever else fails -----------------------------------------------------------------------


def test_a_revocation_holds_while_the_program_of_another_connection_fails(
    make_night: MakeNight, upstream: Recorder
) -> None:
    """The reload failed, was never tried again, and the revoked URL was served 40 seconds later."""
    night = make_night({"conn_a": bearer_connection(upstream.url, SECRET), "conn_x": fetched(upstream)})
    assert night.status("conn_a") == (200, None)
    assert night.status("conn_x", OTHER) == (200, None)
    (night.directory / "broken").touch()
    night.gateway.signal(signal.SIGHUP)  # what it has printed is still good, and it would not run
    night.presign("revoke", "--connection", "conn_a")
    assert night.becomes("conn_a", 403, "revoked")
    # Its own connection is told apart from others, and comes back with its secret.
    assert night.becomes("conn_x", 503, "unavailable", OTHER)
    assert night.status("conn_inline") == (200, None)
    assert night.says("a secret cannot be had")
    assert night.figures()["presign_connections_lacking_secrets"] == 1
    (night.directory / "broken").unlink()
    assert eventually(lambda: night.status("conn_x", OTHER) == (200, None), 15)
    assert eventually(lambda: night.ready() == (200, "ready"), SOON)
    assert night.status("conn_a") == (403, "revoked")


@pytest.mark.parametrize("verb", ["disable", "remove", "drop"])
def test_what_is_taken_out_is_refused_though_the_configuration_is_broken_elsewhere(
    verb: str, make_night: MakeNight, upstream: Recorder
) -> None:
    night = make_night({"conn_a": bearer_connection(upstream.url, SECRET)})
    registry = night.directory / "registry.yaml"
    (pid,) = night.gateway.serving()
    os.kill(pid, signal.SIGSTOP)  # it sees both changes as one: the registry does not load any more
    if verb == "drop":
        night.presign("connections", "rotate", "conn_a", "--drop", "k1")
    else:
        night.presign("connections", verb, "conn_a", *(["--yes"] if verb == "remove" else []))
    text = registry.read_text("utf-8")
    write_private(registry, text.replace("connections:", "nonsense: {}\nconnections:", 1).encode())
    os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: night.status("conn_a")[0] == 403, SOON)
    assert night.status("conn_inline") == (200, None)


@pytest.mark.parametrize(
    "verb",
    [
        "revoke --connection conn_a",
        "revoke --key conn_a/k1",
        "connections disable conn_a",
        "connections remove conn_a --yes",
        "connections rotate conn_a --drop k1",
    ],
)
def test_what_is_taken_out_of_an_encrypted_registry_is_refused_though_the_configuration_is_broken(
    verb: str, make_night: MakeNight, upstream: Recorder
) -> None:
    keyed = bearer_connection(upstream.url, SECRET, signing_keys=[{"id": "k1", "secret": SECRET}])
    night = make_night({"conn_a": keyed}, kind="enc")
    assert night.status("conn_a") == (200, None)
    (pid,) = night.gateway.serving()
    os.kill(pid, signal.SIGSTOP)  # it sees both changes as one
    night.presign(*verb.split())
    text = night.gateway.config.read_text("utf-8")
    write_private(night.gateway.config, f"nonsense: {{}}\n{text}".encode())
    os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: night.status("conn_a")[0] == 403, SOON)
    assert night.says("nonsense")
    assert night.status("conn_inline") == (200, None)


def test_a_revocation_by_hand_in_a_registry_that_does_not_load_holds(
    make_night: MakeNight, upstream: Recorder
) -> None:
    """Somebody else's tool distributes the registry, without a notice, and another entry of it is broken."""
    night = make_night({"conn_a": bearer_connection(upstream.url, SECRET)})
    broken = {"conn_a": bearer_connection(upstream.url, SECRET), "conn_b": {"upstream": "ftp://nowhere"}}
    revoked = {"connections": {"conn_a": "2026-01-01T00:00:00Z"}}
    write_config({"connections": broken, "revoked": revoked}, night.directory, "registry.yaml")
    assert night.becomes("conn_a", 403, "revoked")
    assert night.says("stale configuration: version ")
    assert night.figures()["presign_config_stale_since_timestamp_seconds"] > time.time() - 60
    del broken["conn_b"]
    write_config({"connections": broken}, night.directory, "registry.yaml")  # taken back, and mended
    assert night.becomes("conn_a", 200)
    assert eventually(lambda: night.ready() == (200, "ready"), SOON)


def test_a_disabled_connection_of_the_configuration_is_refused_though_the_rest_is_broken(
    make_night: MakeNight, upstream: Recorder
) -> None:
    night = make_night()
    text = night.gateway.config.read_text("utf-8")
    broken = text.replace("conn_inline:\n", "conn_inline:\n    enabled: false\n    colour: blue\n")
    assert broken != text
    write_private(night.gateway.config, broken.encode())
    assert night.becomes("conn_inline", 403, "revoked")


def test_a_configuration_whose_connections_are_misspelt_takes_nobody_out_of_service(
    make_night: MakeNight, upstream: Recorder
) -> None:
    night = make_night()
    text = night.gateway.config.read_text("utf-8").replace("\nconnections:", "\nconections:")
    write_private(night.gateway.config, text.encode())
    assert night.says("stale configuration")
    assert night.status("conn_inline") == (200, None)


def test_a_notice_that_cannot_be_read_takes_nothing_back_of_what_it_said(
    make_night: MakeNight, upstream: Recorder
) -> None:
    night = make_night({"conn_a": bearer_connection(upstream.url, SECRET)}, kind="json")
    registry = night.directory / "registry.json"
    before = registry.read_bytes()
    night.presign("connections", "disable", "conn_a")
    notice = night.directory / "registry.json.revoked"
    whole = notice.read_bytes()
    assert night.becomes("conn_a", 403, "revoked")
    write_private(registry, before)  # an older copy: the notice says more, and counts
    time.sleep(1)
    assert night.status("conn_a") == (403, "revoked")
    write_private(notice, whole[: len(whole) // 2])
    assert night.says("is not JSON, or was cut off")
    assert night.status("conn_a") == (403, "revoked")
    write_private(notice, whole)
    assert eventually(lambda: night.ready() == (200, "ready"), SOON)
    night.presign("connections", "enable", "conn_a")
    assert night.becomes("conn_a", 200)


# -- secrets ----------------------------------------------------------------------------------------------


def test_a_secret_file_that_is_gone_stops_its_connection_alone_and_is_read_again_when_it_is_back(
    make_night: MakeNight, upstream: Recorder
) -> None:
    """It was read again with the next change of another file only."""
    entry = bearer_connection(upstream.url, SECRET, auth={"type": "bearer", "token": {"file": "token"}})
    night = make_night({"conn_plain": bearer_connection(upstream.url, SECRET)})
    write_private(night.directory / "token", b"sk-FIRST-0123456789")
    write_config({"connections": {"conn_a": entry}}, night.directory, "registry.yaml")
    assert night.becomes("conn_a", 200)
    (night.directory / "token").unlink()
    assert night.becomes("conn_a", 503, "unavailable")
    assert night.status("conn_inline") == (200, None)
    write_private(night.directory / "token", b"")
    assert night.says("is not set or empty")
    upstream.clear()
    write_private(night.directory / "token", b"sk-SECOND-0123456789")
    assert night.becomes("conn_a", 200)
    assert "sk-SECOND-0123456789" in str(upstream.requests[-1].headers)


def test_a_worker_that_dies_while_a_secret_is_missing_is_replaced(
    make_night: MakeNight, upstream: Recorder
) -> None:
    """What took its place could serve nobody, and neither could what came after that."""
    night = make_night({"conn_x": fetched(upstream)})
    assert eventually(night.gateway.has_reserve, 30)
    (night.directory / "broken").touch()
    before = night.gateway.children()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: set(night.gateway.serving()) - set(before), 30)
    assert night.status("conn_inline") == (200, None)
    assert night.status("conn_x", OTHER) == (403, "invalid")  # nobody knows its signing secret any more
    (night.directory / "broken").unlink()
    assert eventually(lambda: night.status("conn_x", OTHER) == (200, None), 15)


# -- pipes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["config.yaml", "registry.yaml", "token", "cert.pem"])
def test_a_pipe_in_the_place_of_a_file_stops_no_later_change(
    file: str, make_night: MakeNight, upstream: Recorder, ca: trustme.CA
) -> None:
    """Reading it waited for ever, and nothing that was disabled afterwards was."""
    night = make_night({"conn_a": bearer_connection(upstream.url, SECRET)}, workers=2)
    place, cert = night.directory / file, ca.issue_cert("presign.local")
    cert.private_key_pem.write_to_path(night.directory / "key.pem")
    (night.directory / "key.pem").chmod(0o600)
    content = {
        "token": b"sk-FIRST-0123456789",
        "cert.pem": b"".join(one.bytes() for one in cert.cert_chain_pems),
    }
    for name, raw in content.items():
        write_private(night.directory / name, raw)
    whole = yaml.safe_load(night.gateway.config.read_text())
    whole["gateway"] = {"tls": {"cert": "cert.pem", "key": "key.pem"}}
    with_file = bearer_connection(upstream.url, SECRET, auth={"type": "bearer", "token": {"file": "token"}})
    whole["connections"]["conn_file"] = with_file
    write_config(whole, night.directory)
    assert night.becomes("conn_file", 200)
    pipe = night.directory / "pipe"
    os.mkfifo(pipe, 0o600)
    before = place.read_bytes()
    pipe.replace(place)
    assert night.says("pipe")
    assert night.status("conn_inline") == (200, None)
    write_private(place, before)
    whole["connections"]["conn_inline"]["enabled"] = False
    write_config(whole, night.directory)
    for _ in range(8):  # both workers
        assert night.becomes("conn_inline", 403, "revoked")


# -- descriptors ------------------------------------------------------------------------------------------


def test_a_gateway_that_starts_with_too_few_descriptors_says_so(
    make_night: MakeNight, upstream: Recorder, tmp_path: Path
) -> None:
    night = make_night()
    assert "clients take up to" not in night.gateway.log()
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 500 && exec "$@"', "sh", *PRESIGN, "check", "--config", night.gateway.config],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert "1000 clients take up to 3256 open files in each worker, and 500 are allowed" in done.stdout
    night.gateway.stop()
    few = Serve(
        night.directory,
        {},
        program=("sh", "-c", 'ulimit -n 500 && exec "$@"', "sh", *PRESIGN),
        start_from=night.gateway.config.read_text("utf-8"),
    )
    with few.start():
        assert few.wait_for_log("1000 clients take up to 3256 open files in each worker, and 500 are allowed")


@pytest.mark.needs("/proc")
def test_what_is_revoked_is_read_while_clients_hold_every_descriptor(
    make_night: MakeNight, upstream: Recorder
) -> None:
    """There was none left to open the registry with, and nobody tried again."""
    night = make_night({"conn_a": bearer_connection(upstream.url, SECRET)}, kind="json")
    (pid,) = night.gateway.serving()
    entries = Path(f"/proc/{pid}/fd")
    with ExitStack() as stack:
        # One that is served already, and asks again when there are no others.
        client = stack.enter_context(connect(night.gateway.port))
        request = wire(Grant("conn_a").target("v1/models"))
        assert exchange(client, request).startswith(b"HTTP/1.1 200 ")
        used = len(list(entries.iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 8, used + 8))
        for _ in range(20):
            stack.enter_context(connect(night.gateway.port))
        assert night.gateway.wait_for_log("no client can be accepted at the moment", 10)
        night.presign("revoke", "--connection", "conn_a")
        assert eventually(lambda: exchange(client, request).startswith(b"HTTP/1.1 403 "), SOON)


# -- a file system that hangs -----------------------------------------------------------------------------


@pytest.mark.needs("cc")
def test_a_hung_file_system_holds_up_no_request_and_is_told_of(
    make_night: MakeNight, upstream: Recorder, tmp_path: Path
) -> None:
    """Every worker stood still with it, and /readyz said that all was well."""
    hanging = Hanging(tmp_path, f"{tmp_path}/night/")
    night = make_night({"conn_a": bearer_connection(upstream.url, SECRET)}, hanging=hanging)
    assert night.status("conn_a") == (200, None)
    hanging.hang()
    try:
        assert eventually(lambda: "does not answer" in night.ready()[1], 10)
        assert night.ready()[0] == 200
        for _ in range(20):
            assert night.status("conn_a") == (200, None)
        assert night.figures()["presign_config_files_hang"] == 1
        assert "does not answer; what was read last stays in force" in night.gateway.log()
        night.presign("revoke", "--connection", "conn_a")  # from a machine whose file system is well
    finally:
        hanging.go_on()
    assert night.becomes("conn_a", 403, "revoked")
    assert eventually(lambda: night.ready() == (200, "ready"), SOON)


@pytest.mark.needs("cc")
def test_what_is_revoked_holds_though_the_file_system_of_a_secret_hangs(
    make_night: MakeNight, upstream: Recorder, tmp_path: Path
) -> None:
    (tmp_path / "mounted").mkdir(mode=0o700)
    secret = tmp_path / "mounted/token"
    write_private(secret, b"sk-MOUNTED-0123456789")
    entry = bearer_connection(upstream.url, SECRET, auth={"type": "bearer", "token": {"file": str(secret)}})
    hanging = Hanging(tmp_path, f"{tmp_path}/mounted/")
    registered = {"conn_a": bearer_connection(upstream.url, SECRET), "conn_m": entry}
    night = make_night(registered, hanging=hanging)
    hanging.hang()
    try:
        night.presign("revoke", "--connection", "conn_a")
        assert night.becomes("conn_a", 403, "revoked")
        assert night.status("conn_m") == (200, None)
        assert eventually(lambda: "the file system of the secrets does not answer" in night.ready()[1], 10)
        # By hand, and without a notice: seen in the file alone, though the reload waits for the secret.
        night.presign("revoke", "--connection", "conn_inline")
        assert night.becomes("conn_inline", 403, "revoked")
    finally:
        hanging.go_on()
    assert eventually(lambda: night.ready() == (200, "ready"), SOON)


# -- a worker that is stopped -------------------------------------------------------------------------------


def test_a_stopped_worker_is_not_ready_within_three_seconds(make_night: MakeNight) -> None:
    """It was taken for ready for twenty."""
    night = make_night()
    assert night.ready() == (200, "ready")
    (pid,) = night.gateway.serving()
    os.kill(pid, signal.SIGSTOP)
    assert eventually(lambda: is_stopped(pid), SOON)
    began = time.monotonic()
    assert eventually(lambda: night.ready()[0] == 503, 10)
    assert time.monotonic() - began < 4
    assert f"worker {pid} has not reported" in night.ready()[1]
    os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: night.ready() == (200, "ready"), SOON)


def test_one_stopped_worker_of_two_is_told_of_while_the_other_serves(make_night: MakeNight) -> None:
    night = make_night(workers=2)
    pid, _ = night.gateway.serving()
    os.kill(pid, signal.SIGSTOP)
    assert night.says(f"worker {pid} has not reported")
    assert night.ready()[0] == 200
    os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: night.ready() == (200, "ready"), SOON)
