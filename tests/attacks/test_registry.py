"""What attackers and mishaps did to registries, to reloads, and to programs that print keys."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from presign_proxy.cli.main import main
from presign_proxy.config.load import load
from presign_proxy.config.load_beside import load_calmly
from presign_proxy.config.registry_file.edit import Draft
from presign_proxy.config.registry_file.encryption import new_key, parse_key
from presign_proxy.config.registry_file.memory import Memory
from presign_proxy.config.registry_file.storage import PrivateFileError, write_private
from presign_proxy.config.secret_sources import resolve
from presign_proxy.config.values import SecretSource
from presign_proxy.config_problems import ConfigError
from presign_proxy.errors import Denied
from presign_proxy.gateway.credential_fetch import Fetcher
from presign_proxy.signing.keys import signature_id
from presign_proxy.signing.secret import LateSecret
from support.asking import SECRET, Grant, wire
from support.config import write_config
from support.process import LOADED
from support.proxy import Mitm
from support.puppet import SCRIPTS, Puppeteer, eventually
from support.raw import Response, parse_response, send_raw
from support.recorder import Recorder

KEY = "sk-REALSECRET-0123456789"
TEXT = new_key()
ENVIRON = {"PRESIGN_KEY": TEXT.reveal()}


def connection(upstream: Recorder | None = None, **changes: Any) -> dict[str, Any]:
    plain = {
        "upstream": upstream.url if upstream else "https://api.example.com",
        "auth": {"type": "bearer", "token": KEY},
        "signing_keys": [{"id": "k1", "secret": SECRET}],
    }
    return {**plain, **changes}


def printing(upstream: Recorder, script: str) -> dict[str, Any]:
    return connection(upstream, auth={"type": "bearer", "token": {"exec": ["sh", "-c", script]}})


def ask(gateway: Mitm, grant: Grant | None = None, timeout: float = 15.0) -> Response:
    target = (grant or Grant("conn")).target("v1/models")
    return parse_response(send_raw(gateway.port, wire(target, {"Connection": "close"}), timeout=timeout))


def refused(gateway: Mitm, name: str = "conn") -> str | None:
    return ask(gateway, Grant(name)).header("x-presign-error")


# -- programs that print a key ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_connection_that_is_disabled_while_its_key_is_fetched_forwards_nothing(
    upstream: Recorder, make_gateway, tmp_path: Path
) -> None:
    script = f"echo x > started; while ! test -e go; do sleep 0.05; done; echo {KEY}"
    directory = tmp_path / "config"
    entries = {
        "conn": printing(upstream, script),
        "other": connection(upstream, auth={"type": "bearer", "token": "sk-OTHER"}),
    }
    gateway = make_gateway(write_config({"connections": entries}, directory))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ask, gateway)
        assert eventually((directory / "started").exists)
        disabled = {name: {**entry, "enabled": False} for name, entry in entries.items()}
        write_config({"connections": disabled}, directory)
        assert eventually(lambda: refused(gateway, "other") == "revoked")
        (directory / "go").touch()
        answer = waiting.result()
    assert (answer.status, answer.header("x-presign-error")) == (403, "revoked")
    assert KEY not in str(upstream.requests)


def test_a_key_printed_before_a_reload_is_not_used_after_it(tmp_path: Path) -> None:
    """Somebody rotates the key in the vault and reloads, while the program still brings the old one."""
    late = LateSecret(("sh", "-c", "cat key; sleep 1"), 300)
    (tmp_path / "key").write_text("sk-OLD")

    async def fetch() -> str:
        fetcher = Fetcher()
        fetcher.forget(tmp_path)
        early = asyncio.create_task(fetcher._get(late, {}))
        await asyncio.sleep(0.5)
        (tmp_path / "key").write_text("sk-NEW")
        fetcher.forget(tmp_path)
        await early
        return (await fetcher._get(late, {})).reveal()

    assert asyncio.run(fetch()) == "sk-NEW"


def test_a_program_that_failed_for_a_night_is_asked_again_in_the_morning(tmp_path: Path) -> None:
    """A vault that is down for 17 hours is asked once a minute, 1025 times, and then it is back."""
    late, now = LateSecret(("sh", "-c", f"test -e up && echo {KEY}"), 300), 0.0

    async def outage() -> str:
        nonlocal now
        fetcher = Fetcher(clock=lambda: now)
        fetcher.forget(tmp_path)
        with pytest.raises(Denied):
            await fetcher._get(late, {})
        fetcher._kept[late.argv].failures = 1024  # each takes a process
        for _ in range(3):
            now += 61
            with pytest.raises(Denied):
                await fetcher._get(late, {})
        (tmp_path / "up").touch()
        now += 61
        return (await fetcher._get(late, {})).reveal()

    assert asyncio.run(outage()) == KEY


@pytest.fixture
def many_files() -> Iterator[None]:
    """As in a gateway that serves a thousand clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for descriptor in held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_a_thousand_open_connections_keep_no_program_from_being_read(tmp_path: Path) -> None:
    assert resolve(SecretSource(exec=("echo", KEY)), tmp_path, os.environ).reveal() == KEY


def test_a_program_that_cannot_even_be_run_is_not_tried_with_every_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def no_thread(*_: Any, **__: Any) -> None:
        nonlocal tries
        tries += 1
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("presign_proxy.gateway.credential_fetch.resolve", no_thread)

    async def ask_often() -> None:
        fetcher = Fetcher()
        fetcher.forget(tmp_path)
        for _ in range(5):
            with pytest.raises(Denied):
                await fetcher._get(LateSecret(("true",), 300), {})

    asyncio.run(ask_often())
    assert tries == 1


# -- reloads ------------------------------------------------------------------------------------------


def slow_to_read(upstream: Recorder, **changes: Any) -> dict[str, Any]:
    """A connection whose signing secret a program prints, slowly where there is a file called `slow`."""
    script = f"test -e slow && touch reading && sleep 4; echo {SECRET}"
    return connection(upstream, signing_keys=[{"secret": {"exec": ["sh", "-c", script]}}], **changes)


def reload_slowly(gateway: Mitm, directory: Path) -> None:
    """Returns while a reload is under way that takes four seconds."""
    assert gateway.wait_for_log(LOADED, timeout=20)
    (directory / "slow").touch()
    os.kill(gateway.pid, signal.SIGHUP)
    assert eventually((directory / "reading").exists)


@pytest.mark.slow
def test_unsigned_traffic_that_is_refused_during_a_reload_stays_refused(
    upstream: Recorder, make_gateway, tmp_path: Path
) -> None:
    directory = tmp_path / "config"
    config = write_config({"connections": {"conn": slow_to_read(upstream)}}, directory)
    gateway = make_gateway(config, "-s", str(SCRIPTS / "puppet.py"))
    unsigned = wire(f"{upstream.url}/", {"Connection": "close"}, host=f"127.0.0.1:{upstream.port}")

    def status() -> int:
        return parse_response(send_raw(gateway.port, unsigned)).status

    assert status() == 200
    reload_slowly(gateway, directory)
    (directory / "slow").unlink()
    Puppeteer(gateway.port).tell("options", presign_unsigned="deny")
    assert status() == 403
    time.sleep(5)
    assert status() == 403


@pytest.mark.slow
def test_an_upstream_that_hangs_is_given_up_during_a_slow_reload_too(
    upstream: Recorder, make_gateway, tmp_path: Path
) -> None:
    directory = tmp_path / "config"
    entry = slow_to_read(upstream, timeouts={"response": "1s"})
    gateway = make_gateway(write_config({"connections": {"conn": entry}}, directory))
    reload_slowly(gateway, directory)
    target = Grant("conn").target("slow")
    answer = parse_response(send_raw(gateway.port, wire(target, {"Connection": "close"}), timeout=15))
    assert answer.status == 504


@pytest.mark.slow
def test_a_reload_that_is_asked_for_during_a_reload_is_not_lost(
    upstream: Recorder, make_gateway, tmp_path: Path
) -> None:
    """Somebody replaces the file of a leaked key, which the reload under way has read already."""
    directory = tmp_path / "config"
    first = connection(upstream, auth={"type": "bearer", "token": {"file": "token"}})
    config = {"connections": {"conn": first, "slow": slow_to_read(upstream)}}
    write_config(config, directory)
    (directory / "token").write_text("sk-LEAKED-0123456789")
    gateway = make_gateway(directory / "config.yaml")
    reload_slowly(gateway, directory)
    (directory / "slow").unlink()
    (directory / "token").write_text("sk-FRESH-0123456789")
    os.kill(gateway.pid, signal.SIGHUP)

    def is_fresh() -> bool:
        ask(gateway)
        return dict(upstream.requests[-1].headers)["Authorization"] == "Bearer sk-FRESH-0123456789"

    assert eventually(is_fresh, timeout=8)


def write_registry(directory: Path, connections: dict[str, Any], **more: Any) -> Path:
    """A configuration over an encrypted registry; returns the configuration's path."""
    Draft(directory / "connections.enc", [parse_key(TEXT)], {"connections": connections}).write()
    registry = {"file": "connections.enc", "key": {"env": "PRESIGN_KEY"}}
    return write_config({"registry": registry, **more}, directory)


class Served:
    """A gateway over an encrypted registry with the connection `conn`."""

    def __init__(self, directory: Path, make_gateway: Any, upstream: Recorder) -> None:
        self.directory, self.upstream = directory, upstream
        self.gateway: Mitm = make_gateway(self.write(), env=ENVIRON)
        assert self.gateway.wait_for_log(LOADED, timeout=20)

    def write(self, **changes: Any) -> Path:
        return write_registry(self.directory, {"conn": connection(self.upstream, **changes)})


@pytest.fixture
def served(upstream: Recorder, make_gateway, tmp_path: Path) -> Served:
    directory = tmp_path / "config"
    directory.mkdir(mode=0o700)
    return Served(directory, make_gateway, upstream)


@pytest.mark.slow
def test_a_registry_whose_mode_was_mended_is_read_as_the_message_promises(served: Served) -> None:
    """A backup with a revocation in it, copied back as everybody copies, refused, and then `chmod go-r`."""
    registry = served.directory / "connections.enc"
    good = registry.read_bytes()
    served.write(enabled=False)
    revoking = registry.read_bytes()
    write_private(registry, good)
    registry.chmod(0o644)
    registry.write_bytes(revoking)
    served.gateway.wait_for_log("chmod go-r")
    registry.chmod(0o600)
    assert eventually(lambda: refused(served.gateway) == "revoked")


@pytest.mark.slow
def test_a_registry_that_comes_after_the_configuration_that_names_it_is_read(served: Served) -> None:
    """The configuration moves to another registry, which somebody writes a second later."""
    key = {"env": "PRESIGN_KEY"}
    write_config({"registry": {"file": "other.enc", "key": key}}, served.directory)
    served.gateway.wait_for_log("the last good one stays")
    entries = {"conn": connection(served.upstream, enabled=False)}
    Draft(served.directory / "other.enc", [parse_key(TEXT)], {"connections": entries}).write()
    assert eventually(lambda: refused(served.gateway) == "revoked")


def test_a_preset_that_was_unreadable_once_leads_nowhere_for_ever(tmp_path: Path) -> None:
    """Its stand-in was remembered, and a connection to nowhere accepted, where there is no such preset."""
    entry = {"preset": "mine", "auth": {"token": KEY}, "signing_keys": [{"secret": SECRET}]}
    memory = Memory()
    write_config({"presets": "broken"}, tmp_path, "own.yaml")
    path = write_registry(tmp_path, {"conn": entry}, presets="own.yaml")
    with pytest.raises(ConfigError, match=r"own\.yaml"):
        load(path, ENVIRON, memory=memory)
    path = write_registry(tmp_path, {"conn": entry})
    with pytest.raises(ConfigError, match="there is no such preset"):
        load(path, ENVIRON, memory=memory)


class Cycle:
    """Like a connection of mitmproxy, whose layers refer to each other."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_alive_during_the_reload_of_a_large_registry_is_freed_later(tmp_path: Path) -> None:
    """Someone who revokes a URL a minute must not make the gateway keep each client that was there."""
    connections = {f"conn_{n}": connection() for n in range(1200)}
    memory = Memory()
    load_calmly(write_registry(tmp_path, connections), ENVIRON, "config", memory)
    alive = Cycle()
    ghost = weakref.ref(alive)
    connections["conn_7"] = connection(enabled=False)
    load_calmly(write_registry(tmp_path, connections), ENVIRON, "config", memory)
    del alive
    gc.collect()
    assert ghost() is None


# -- the command --------------------------------------------------------------------------------------


def command(directory: Path, *arguments: str, given: str = "") -> Result:
    return CliRunner(env=ENVIRON).invoke(
        main, [*arguments, "--config", str(directory / "config.yaml")], input=given
    )


def with_key_file(directory: Path, connections: dict[str, Any]) -> Path:
    """A configuration whose registry's key is in a file; returns the file."""
    Draft(directory / "connections.enc", [parse_key(TEXT)], {"connections": connections}).write()
    write_config({"registry": {"file": "connections.enc", "key": {"file": "presign.key"}}}, directory)
    write_private(directory / "presign.key", TEXT.reveal().encode())
    return directory / "presign.key"


def test_rekeying_on_a_full_disk_again_and_again_loses_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_key_file(tmp_path, {"conn": connection()})

    def full(*_: Any) -> None:
        raise PrivateFileError("cannot be written: no space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("presign_proxy.config.registry_file.edit.write_private", full)
        for _ in range(5):
            assert command(tmp_path, "rekey").exit_code == 1
    assert command(tmp_path, "connections", "list").exit_code == 0
    assert command(tmp_path, "rekey").exit_code == 0
    assert command(tmp_path, "connections", "list").exit_code == 0


def test_a_revoked_key_without_an_id_stays_revoked_when_a_new_one_comes_before_it(tmp_path: Path) -> None:
    with_key_file(tmp_path, {"conn": connection(signing_keys=[{"secret": SECRET}])})
    assert command(tmp_path, "revoke", "--key", "conn/k1").exit_code == 0
    rotated = command(tmp_path, "connections", "rotate", "conn", "--json")
    assert rotated.exit_code == 0, rotated
    assert json.loads(rotated.stdout)["signing_key"]["id"] == "k2"
    keys = load(tmp_path / "config.yaml", ENVIRON).registry.connections["conn"].keys.keys
    assert [(key.id, key.revoked) for key in keys] == [("k2", False), ("k1", True)]


def test_rotating_what_has_no_keys_or_a_huge_number_in_its_ids_is_answered_in_a_sentence(
    tmp_path: Path,
) -> None:
    project = {
        "scheme": "source",
        "mode": "allowlist",
        "allowed_origins": ["https://acme.com"],
        "formats": ["png"],
    }
    huge = connection(signing_keys=[{"id": "k99999999", "secret": SECRET}])
    with_key_file(tmp_path, {"pk": project, "conn": huge})
    refused = command(tmp_path, "connections", "rotate", "pk")
    assert (refused.exit_code, refused.stderr) == (
        1,
        "presign: pk has no signing keys: its URLs are not signed\n",
    )
    assert "signs with k100000000" in command(tmp_path, "connections", "rotate", "conn").stdout


def test_two_who_add_a_connection_of_one_name_do_not_overwrite_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_key_file(tmp_path, {})
    arguments = ("connections", "add", "conn", "--upstream", "https://api.example.com", "--auth", "bearer")

    def asked_slowly(_: str) -> str:
        """Somebody else is faster."""
        Draft(
            tmp_path / "connections.enc", [parse_key(TEXT)], {"connections": {"conn": connection()}}
        ).write()
        return "sk-SECOND-0123456789"

    monkeypatch.setattr("presign_proxy.cli.prompts.secret", asked_slowly)
    assert command(tmp_path, *arguments).exit_code == 1
    assert KEY in (tmp_path / "connections.enc", command(tmp_path, "decrypt").stdout)[1]


def test_a_url_revoked_with_a_forged_expiry_is_not_forgotten_while_the_real_one_lives(
    tmp_path: Path,
) -> None:
    """Its holder hands in the URL with another expiry, long past: the signature is the same."""
    with_key_file(tmp_path, {"conn": connection()})
    real = Grant("conn")
    forged = real.target("v1/models").replace(str(real.expires), "1600000000")
    mine = signature_id(real.headers["X-Presign-Signature"])
    refused = command(tmp_path, "revoke", f"https://presign.local{forged}")
    assert (refused.exit_code, mine in refused.stderr) == (
        1,
        True,
    )  # no key made it as it stands; how to go on
    assert command(tmp_path, "revoke", mine).exit_code == 0
    assert command(tmp_path, "revoke", "0" * 32).exit_code == 0
    assert mine in load(tmp_path / "config.yaml", ENVIRON).registry.revoked.urls


def test_an_expired_revoked_url_is_forgotten(tmp_path: Path) -> None:
    with_key_file(tmp_path, {"conn": connection()})
    past = Grant("conn", expires=1600000000)
    assert command(tmp_path, "revoke", f"https://presign.local{past.target('v1/models')}").exit_code == 0
    assert command(tmp_path, "revoke", "0" * 32).exit_code == 0
    assert load(tmp_path / "config.yaml", ENVIRON).registry.revoked.urls == {"0" * 32}


BROKEN = {
    "an entry": '{"connections": {"conn": "sk-REALSECRET-0123456789"}}',
    "an instant": json.dumps(
        {"connections": {"conn": connection(signing_keys=[{"secret": KEY, "added": KEY}])}}
    ),
    "an end": json.dumps(
        {"connections": {"conn": connection(signing_keys=[{"secret": KEY, "not_after": KEY}])}}
    ),
    "auth": json.dumps({"connections": {"conn": connection(auth=KEY)}}),
    "vars": json.dumps({"connections": {"conn": connection(preset="openai", vars=[KEY])}}),
    "half a character": json.dumps({"connections": {"conn": connection(default_headers={"X": "\ud800"})}}),
    "what is revoked": json.dumps({"connections": {"conn": connection()}, "revoked": {"urls": [KEY]}}),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize(
    "verb",
    [("connections", "show", "conn"), ("connections", "rotate", "conn"), ("revoke", "0" * 32)],
    ids=str,
)
def test_a_registry_broken_by_hand_is_told_without_what_is_in_it(
    broken: str, verb: tuple[str, ...], tmp_path: Path
) -> None:
    """A traceback ended with the text that was no date, a secret that had slipped by a line."""
    write_config({"registry": {"file": "plain.json"}}, tmp_path)
    write_private(tmp_path / "plain.json", BROKEN[broken].encode())
    told = command(tmp_path, *verb)
    assert told.exception is None or isinstance(told.exception, SystemExit)
    assert KEY not in told.output


def test_a_credential_is_not_rotated_where_there_is_none(tmp_path: Path) -> None:
    project = {
        "scheme": "source",
        "mode": "signed",
        "formats": ["png"],
        "signing_keys": [{"secret": SECRET}],
    }
    with_key_file(tmp_path, {"pk": project})
    told = command(tmp_path, "connections", "rotate", "pk", "--credential", given=f"{KEY}\n")
    assert (told.exit_code, told.stderr) == (1, "presign: pk has no credential\n")
