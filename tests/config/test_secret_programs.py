"""Many programs that print signing secrets: side by side, a bounded number, and only those that are due."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.load import Loaded, build, load
from presign_proxy.config.read_files import see
from presign_proxy.config.registry_file.memory import Memory
from presign_proxy.config.registry_file.storage import write_private
from presign_proxy.config.secret_programs import AT_ONCE, Missing, Programs
from presign_proxy.config.secret_sources import SecretError
from presign_proxy.config.values import SecretSource
from presign_proxy.config_problems import ConfigError
from support.asking import SECRET
from support.config import write_config
from support.puppet import eventually
from support.recorder import Recorder
from support.serving import Serve

# Says how many run beside it, and waits for so many others; then prints its secret.
TOGETHER = """
mkdir running.$1; ls -d running.* | wc -l >> counts; touch begun.$1
i=0; while [ $(ls -d begun.* | wc -l) -lt $2 ]; do i=$((i+1)); [ $i -gt 100 ] && exit 9; sleep 0.05; done
ls -d running.* | wc -l >> counts; rmdir running.$1; echo secret-of-$1-which-is-long-enough-for-anybody
"""
COUNTING = "echo x >> ran.$1; [ -e broken ] && exit 1; echo secret-of-$1-which-is-long-enough-for-anybody"


def connection(script: str, *arguments: str, ttl: str = "5m") -> dict[str, Any]:
    return {
        "upstream": "https://api.example.com",
        "auth": {"type": "bearer", "token": "sk-REALSECRET-0123456789"},
        "signing_keys": [{"secret": {"exec": ["sh", "-c", script, "sh", *arguments], "ttl": ttl}}],
    }


def secret_of(loaded: Loaded, name: str) -> str:
    return loaded.registry.connections[name].keys.keys[0].secret.reveal()


@pytest.mark.parametrize("where", ["config.yaml", "connections.json", "connections.yaml"])
def test_twenty_slow_programs_run_side_by_side_and_never_more_than_may(tmp_path: Path, where: str) -> None:
    """One after the other, a revocation waited for all of them, and 130 of them for ever."""
    connections = {f"conn_{one}": connection(TOGETHER, str(one), str(AT_ONCE)) for one in range(20)}
    if where == "config.yaml":
        path = write_config({"connections": connections}, tmp_path)
    else:
        write_private(tmp_path / where, json.dumps({"connections": connections}).encode())
        path = write_config({"registry": {"file": where}}, tmp_path)
    loaded = load(path, {"PATH": "/usr/bin:/bin"})
    assert secret_of(loaded, "conn_7") == "secret-of-7-which-is-long-enough-for-anybody"
    counts = [int(line) for line in (tmp_path / "counts").read_text().split()]
    assert 1 < max(counts) <= AT_ONCE


def test_a_reload_runs_only_the_programs_that_are_due_or_new(tmp_path: Path) -> None:
    environ = {"PATH": "/usr/bin:/bin"}
    now, memory = [0.0], Memory()
    memory.lent.programs = Programs(lambda: now[0])

    def ran() -> dict[str, int]:
        return {name: len((tmp_path / f"ran.{name}").read_text().split()) for name in connections}

    connections = {"a": connection(COUNTING, "a", ttl="10s"), "b": connection(COUNTING, "b", ttl="60s")}
    load(write_config({"connections": connections}, tmp_path), environ, memory=memory)
    connections["c"] = connection(COUNTING, "c")
    path = write_config({"connections": connections}, tmp_path)
    load(path, environ, memory=memory)
    assert ran() == {"a": 1, "b": 1, "c": 1}
    now[0] = 11.0
    load(path, environ, memory=memory)
    assert ran() == {"a": 2, "b": 1, "c": 1}
    memory.lent.programs.forget()
    load(path, environ, memory=memory)
    assert ran() == {"a": 3, "b": 2, "c": 2}


def test_a_program_that_several_connections_name_runs_once(tmp_path: Path) -> None:
    path = write_config(
        {"connections": {name: connection(COUNTING, "same") for name in ("a", "b", "c")}}, tmp_path
    )
    load(path, {"PATH": "/usr/bin:/bin"})
    assert (tmp_path / "ran.same").read_text() == "x\n"


def test_all_programs_that_fail_are_told_at_once_and_run_again_with_the_next_load(tmp_path: Path) -> None:
    environ, memory = {"PATH": "/usr/bin:/bin"}, Memory()
    path = write_config({"connections": {name: connection(COUNTING, name) for name in ("a", "b")}}, tmp_path)
    (tmp_path / "broken").touch()
    with pytest.raises(ConfigError) as failed:
        load(path, environ, memory=memory)
    said = [str(one) for one in failed.value.problems]
    assert len(said) == 2
    assert all("the program sh ended with exit code 1" in one for one in said)
    (tmp_path / "broken").unlink()
    assert set(load(path, environ, memory=memory).registry.connections) == {"a", "b"}


def test_a_program_that_does_not_come_to_an_end_of_being_due_is_still_read(tmp_path: Path) -> None:
    """Its secret is good for less time than it takes to read the configuration."""
    ticks = itertools.count(0, 100)
    programs = Programs(lambda: float(next(ticks)))
    source = SecretSource(exec=("echo", SECRET), ttl=1)
    for _ in range(2):
        programs.begin()
        with pytest.raises(Missing):
            programs.secret(source, tmp_path)
        assert programs.run({"PATH": "/usr/bin:/bin"})
        assert programs.secret(source, tmp_path).reveal() == SECRET
        assert not programs.run({})
        programs.end()


def test_what_no_configuration_asks_for_any_more_is_forgotten(tmp_path: Path) -> None:
    programs = Programs()
    source = SecretSource(exec=("echo", SECRET))
    programs.begin()
    with pytest.raises(Missing):
        programs.secret(source, tmp_path)
    programs.run({"PATH": "/usr/bin:/bin"})
    programs.end()
    assert len(programs._kept) == 1
    programs.begin()
    programs.end()
    assert not programs._kept


def test_a_failure_is_told_to_all_that_ask(tmp_path: Path) -> None:
    programs = Programs()
    source = SecretSource(exec=("false",))
    programs.begin()
    with pytest.raises(Missing):
        programs.secret(source, tmp_path)
    assert programs.run({"PATH": "/usr/bin:/bin"})
    for _ in range(2):
        with pytest.raises(SecretError, match="exit code 1"):
            programs.secret(source, tmp_path)
    assert not programs.run({})


def test_what_is_revoked_is_known_before_any_program_runs(tmp_path: Path) -> None:
    environ, memory = {"PATH": "/usr/bin:/bin"}, Memory()
    connections = {"a": connection(COUNTING, "a"), "b": connection(COUNTING, "b")}
    content = {"connections": connections, "revoked": {"connections": {"a": "2026-01-01T00:00:00Z"}}}
    write_private(tmp_path / "connections.json", json.dumps(content).encode())
    path = write_config({"registry": {"file": "connections.json"}}, tmp_path)
    seen = see(path, environ, memory)
    assert seen.taken_back().connections == {"a"}
    assert not list(tmp_path.glob("ran.*"))
    loaded = build(seen, environ, "config", memory)
    assert loaded.registry.connections["a"].revoked
    assert secret_of(loaded, "b") == "secret-of-b-which-is-long-enough-for-anybody"


def test_a_program_that_fails_at_a_reload_stops_its_connection_alone_and_runs_again(tmp_path: Path) -> None:
    environ, now, memory = {"PATH": "/usr/bin:/bin"}, [0.0], Memory()
    memory.lent.programs = Programs(lambda: now[0])
    connections = {"a": connection(COUNTING, "a", ttl="10s"), "b": connection(COUNTING, "b", ttl="60s")}
    path = write_config({"connections": connections}, tmp_path)
    memory.lent = load(path, environ, memory=memory).lent.for_next_load()  # in force, as `live` does it
    (tmp_path / "broken").touch()
    now[0] = 11.0
    for count in (2, 3):
        loaded = load(path, environ, memory=memory)
        assert [name for name, one in loaded.registry.connections.items() if one.lacks] == ["a"]
        assert len(loaded.lent.lacking) == 1, "told once, however often it is built"
        # Its holders are known, to be told that it is not available.
        assert secret_of(loaded, "a") == "secret-of-a-which-is-long-enough-for-anybody"
        assert (tmp_path / "ran.a").read_text() == "x\n" * count
        memory.lent = loaded.lent.for_next_load()
    (tmp_path / "broken").unlink()
    loaded = load(path, environ, memory=memory)
    assert not loaded.lent.lacking and not loaded.registry.connections["a"].lacks
    assert (tmp_path / "ran.b").read_text() == "x\n"


def test_a_configuration_that_was_broken_leaves_no_secret_to_be_lacking(tmp_path: Path) -> None:
    environ, memory = {"PATH": "/usr/bin:/bin"}, Memory()
    memory.lent.strict = False
    given = connection(COUNTING, "a")
    (tmp_path / "broken").touch()
    broken = write_config({"connections": {"a": given, "b": {"upstream": "nothing"}}}, tmp_path)
    with pytest.raises(ConfigError):
        load(broken, environ, memory=memory)
    (tmp_path / "broken").unlink()
    assert not load(
        write_config({"connections": {"a": given}}, tmp_path), environ, memory=memory
    ).lent.lacking


def test_presets_that_change_while_programs_run_are_those_of_all_connections(tmp_path: Path) -> None:
    """The connections before are kept for the second reading, and must not keep the presets of the first."""
    environ, memory = {"PATH": "/usr/bin:/bin"}, Memory()
    own = tmp_path / "own.yaml"

    def preset(host: str) -> str:
        auth = {"type": "bearer"}
        return json.dumps(
            {"presets": {"mine": {"name": "Mine", "upstream": f"https://{host}", "auth": auth}}}
        )

    own.write_text(preset("first.example"))
    registry = tmp_path / "connections.json"
    plain = {
        "preset": "mine",
        "auth": {"type": "bearer", "token": "sk-REALSECRET-0123456789"},
        "signing_keys": [{"secret": SECRET}],
    }
    write_private(registry, json.dumps({"connections": {"a": plain}}, separators=(",", ":")).encode())
    path = write_config({"registry": {"file": registry.name}, "presets": own.name}, tmp_path)
    load(path, environ, memory=memory)
    new = preset("other.example").replace('"', '\\"')
    program = connection(f'printf "%s" "{new}" > own.yaml; echo {SECRET}')
    content = {"connections": {"a": plain, "b": program}}
    write_private(registry, json.dumps(content, separators=(",", ":")).encode())
    upstream = load(path, environ, memory=memory).registry.connections["a"].upstream
    assert upstream is not None and upstream.origin.host == "other.example"


def test_sighup_runs_programs_whose_secret_is_still_good(tmp_path: Path, upstream: Recorder) -> None:
    """Whoever has changed a secret in the vault says so, and need not wait for the old one to end."""
    given = connection(COUNTING, "a", ttl="1h") | {"upstream": upstream.url}
    with Serve(tmp_path, {"connections": {"conn": given}}) as gateway:
        assert eventually(gateway.has_reserve, 30)
        before = len((tmp_path / "ran.a").read_text().split())
        gateway.signal(signal.SIGHUP)
        assert eventually(lambda: len((tmp_path / "ran.a").read_text().split()) == before + 2, 15)
