"""Which configuration is in force: the last good one, whole; and what was taken back since, at once."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config import live as module
from presign_proxy.config.live import LiveConfig, Newer, Reloaded
from presign_proxy.config.registry_file.notice import Notice, place_of
from presign_proxy.config.registry_file.open import digest_of
from presign_proxy.config_problems import ConfigError, Problem
from presign_proxy.core.revocations import Revocations
from presign_proxy.units import instant as stamp
from support.config import write_config
from support.lab import bearer_connection

SECRET = "sk_signing_secret_of_the_keeper_0123456789"
ONE = bearer_connection("http://127.0.0.1:1", SECRET)


def settings(*names: str, **more: Any) -> dict[str, Any]:
    return {"connections": dict.fromkeys(names, ONE)} | more


class Prepared:
    """What was opened for a configuration."""

    def __init__(self, thread: threading.Thread) -> None:
        self.thread = thread
        self.discarded = 0

    def discard(self) -> None:
        self.discarded += 1


class Kept:
    """A keeper, and what it has told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = write_config(settings("conn_a"), folder)
        self.adopted: list[tuple[Any, Any]] = []
        self.prepared: list[Prepared] = []
        self.refuse: str | None = None
        self.refuse_to_prepare: str | None = None
        self.live_config = LiveConfig()

    def prepare(self, loaded: Any) -> Prepared:
        if self.refuse_to_prepare is not None:
            raise ConfigError([Problem("x", 0, 0, "", self.refuse_to_prepare)])
        self.prepared.append(Prepared(threading.current_thread()))
        return self.prepared[-1]

    def adopt(self, loaded: Any, prepared: Any) -> None:
        if self.refuse is not None:
            raise ConfigError([Problem("x", 0, 0, "", self.refuse)])
        self.adopted.append((loaded, prepared))

    @property
    def names(self) -> set[str]:
        return set(self.live_config.registry.connections) if self.live_config.registry else set()

    @property
    def since(self) -> Revocations:
        assert self.live_config.registry is not None
        return self.live_config.registry.since or Revocations()

    def load(self) -> None:
        assert self.live_config.load(str(self.path), "config", self) is True

    def write(self, *names: str, **more: Any) -> None:
        write_config(settings(*names, **more), self.folder)

    def write_plain(self, text: str) -> None:
        self.path.write_text(text)

    def reload(self, still: float = math.inf, unsigned: str = "config") -> Reloaded:
        return asyncio.run(self.live_config.reload(unsigned, still, self))

    def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run(work())


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    found = Kept(tmp_path / "config")
    yield found
    found.live_config.close()


def test_before_anything_was_read_there_is_nothing_and_a_bounded_number_of_clients(kept: Kept) -> None:
    live_config = kept.live_config
    assert (live_config.registry, live_config.loaded, live_config.notice, live_config.loaded_at) == (
        None,
        None,
        None,
        0.0,
    )
    assert (live_config.stale, live_config.lacking, live_config.max_clients, live_config.trouble(0.0)) == (
        False,
        [],
        1000,
        "",
    )
    live_config.heed(Notice("x", Revocations(connections=frozenset({"conn_a"}))))
    assert live_config.registry is None
    assert kept.reload() == Reloaded("overtaken")
    assert live_config.reloads == {"ok": 0, "failed": 0}


def test_what_was_read_is_in_force(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    began = time.time()
    kept.write("conn_a", "conn_b", gateway={"max_clients": 7})
    with caplog.at_level(logging.INFO, "presign_proxy"):
        kept.load()
    assert kept.names == {"conn_a", "conn_b"}
    assert kept.live_config.max_clients == 7
    assert began <= kept.live_config.loaded_at <= time.time()
    assert kept.adopted == [(kept.live_config.loaded, kept.prepared[0])]
    assert kept.prepared[0].thread is threading.main_thread()
    assert not kept.since
    assert kept.live_config.trouble(time.monotonic()) == ""
    assert "2 connections from" in caplog.text
    assert "in force before the rest" not in caplog.text


def test_the_same_options_are_not_read_again_and_others_are(kept: Kept) -> None:
    kept.load()
    assert kept.live_config.load(str(kept.path), "config", kept) is False
    assert len(kept.adopted) == 1
    assert kept.live_config.load(str(kept.path), "deny", kept) is True
    assert kept.live_config.registry is not None
    assert kept.live_config.registry.deny_unsigned
    other = write_config(settings("conn_z"), kept.folder / "other")
    assert kept.live_config.load(str(other), "deny", kept) is True
    assert kept.names == {"conn_z"}
    assert len(kept.adopted) == 3


def test_an_option_that_is_refused_changes_nothing_and_may_be_given_again(kept: Kept) -> None:
    kept.load()
    before = kept.live_config.loaded
    other = write_config({"connections": {"conn_z": {}}}, kept.folder / "other")
    for _ in range(2):
        with pytest.raises(ConfigError):
            kept.live_config.load(str(other), "config", kept)
    fine = write_config(settings("conn_z"), kept.folder / "third")
    for refusal in ("refuse", "refuse_to_prepare"):
        setattr(kept, refusal, "no")
        with pytest.raises(ConfigError):
            kept.live_config.load(str(fine), "config", kept)
        setattr(kept, refusal, None)
    assert kept.live_config.loaded is before
    assert kept.names == {"conn_a"}
    assert kept.live_config.load(str(kept.path), "config", kept) is False, (
        "what it was asked for is what is in force"
    )
    assert kept.live_config.load(str(fine), "config", kept) is True
    assert kept.names == {"conn_z"}


def test_limits_that_no_store_can_count_are_refused_at_the_start(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where nothing is limited: then nobody asks the store."""
    monkeypatch.setattr(module.config.Choice, "refusal", "counts nothing", raising=True)
    kept.load()
    limited = ONE | {"limits": [{"rate": "1/day"}]}
    other = write_config({"connections": {"conn_b": limited}}, kept.folder / "other")
    with pytest.raises(ConfigError) as refused:
        kept.live_config.load(str(other), "config", kept)
    (problem,) = refused.value.problems
    assert problem == Problem(str(other), 0, 0, "limits.store", "counts nothing")
    assert kept.names == {"conn_a"}


def test_a_change_is_in_force_after_a_reload_and_counted(kept: Kept) -> None:
    kept.load()
    kept.live_config.newer = Newer(1.0, "long ago")
    assert kept.live_config.loaded is not None
    before = kept.live_config.loaded.registry
    kept.write("conn_a", "conn_b")
    assert kept.reload() == Reloaded("ok")
    assert not before.connections, "what is not in force is freed, in steps"
    assert kept.names == {"conn_a", "conn_b"}
    assert kept.live_config.reloads == {"ok": 1, "failed": 0}
    assert kept.live_config.stale is False
    assert kept.adopted[-1] == (kept.live_config.loaded, kept.prepared[-1])
    assert kept.prepared[-1].thread is not threading.main_thread()
    assert kept.prepared[-1].discarded == 0
    assert kept.reload(unsigned="deny") == Reloaded("ok")
    assert kept.live_config.registry is not None
    assert kept.live_config.registry.deny_unsigned


def test_a_broken_change_keeps_the_last_good_one_and_says_so_once(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.load()
    before = kept.live_config.loaded
    bad = ONE | {"upstream": "nowhere"}
    write_config({"connections": {"conn_a": ONE, "conn_b": bad}}, kept.folder)
    began = time.time()
    for _ in range(3):
        assert kept.reload() == Reloaded("failed")
    assert kept.live_config.loaded is before
    assert kept.live_config.stale is True
    assert kept.live_config.reloads == {"ok": 0, "failed": 1}
    assert kept.live_config.newer is not None
    since = kept.live_config.newer.since
    assert began <= since <= time.time()
    assert "conn_b" in kept.live_config.newer.why
    assert caplog.text.count("the last good one stays") == 1
    assert caplog.text.count("conn_b") == 1
    assert SECRET not in caplog.text
    trouble = kept.live_config.trouble(time.monotonic())
    assert trouble.startswith("stale configuration: version ")
    assert "conn_b" in trouble
    assert "takes long" not in trouble
    # It fails in another way: that is told, and since when there is something newer stays.
    write_config({"connections": {"conn_a": ONE, "conn_c": bad}}, kept.folder)
    assert kept.reload() == Reloaded("failed")
    assert kept.live_config.reloads == {"ok": 0, "failed": 2}
    assert kept.live_config.newer.since == since
    kept.write("conn_c")
    assert kept.reload() == Reloaded("ok")
    assert (kept.live_config.stale, kept.live_config.reloads) == (False, {"ok": 1, "failed": 2})
    # What failed before is told again after a good one.
    write_config({"connections": {"conn_c": ONE, "conn_b": bad}}, kept.folder)
    kept.reload()
    kept.write("conn_c")
    kept.reload()
    write_config({"connections": {"conn_c": ONE, "conn_b": bad}}, kept.folder)
    kept.reload()
    assert kept.live_config.reloads["failed"] == 4


def test_what_a_broken_change_takes_back_holds_all_the_same(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that was taken out must not stay good because of a slip somewhere else in the file."""
    kept.write("conn_a", "conn_b", "conn_c")
    kept.load()
    bad = ONE | {"upstream": "nowhere"}
    caplog.clear()
    caplog.set_level(logging.INFO)
    write_config({"connections": {"conn_a": ONE | {"enabled": False}, "conn_b": bad}}, kept.folder)
    assert kept.reload() == Reloaded("failed")
    assert kept.since.connections == {"conn_a", "conn_c"}
    assert kept.names == {"conn_a", "conn_b", "conn_c"}
    assert caplog.text.count("is in force before the rest is read") == 1
    registry = kept.live_config.registry
    kept.reload()
    assert kept.live_config.registry is registry, "nothing new, so nothing is exchanged"
    # A slip is corrected, and what came back is there again.
    write_config({"connections": {"conn_a": ONE, "conn_b": bad, "conn_c": ONE}}, kept.folder)
    assert kept.reload() == Reloaded("failed")
    assert not kept.since
    assert kept.live_config.registry is not None
    assert kept.live_config.loaded is not None
    assert kept.live_config.registry is kept.live_config.loaded.registry


def test_a_file_that_cannot_be_read_takes_nothing_less_back_than_before(kept: Kept) -> None:
    """Nor more: nobody knows what stands in it."""
    kept.write("conn_a", "conn_b")
    kept.load()
    bad = ONE | {"upstream": "nowhere"}
    write_config({"connections": {"conn_b": bad}}, kept.folder)
    kept.reload()
    assert kept.since.connections == {"conn_a"}
    kept.path.write_text("connections: [\n...\n")
    assert kept.reload() == Reloaded("failed")
    assert kept.since.connections == {"conn_a"}


def test_half_of_a_file_takes_nobody_out_of_service(kept: Kept) -> None:
    """Without an end mark: what is not there may still be coming."""
    kept.write_plain(plain({"conn_a": ONE}))
    kept.load()
    kept.write_plain('"connections": {}\n')
    waits = kept.reload(still=5.0)
    assert waits == Reloaded("waits", 10.0)
    assert not kept.since
    assert kept.live_config.newer is not None
    why = f"{kept.path} has no end mark, and is used once it was left alone for 10 s"
    assert kept.live_config.newer.why == why
    assert kept.names == {"conn_a"}
    assert kept.live_config.reloads == {"ok": 0, "failed": 0}
    assert kept.reload(still=10.0) == Reloaded("ok")
    assert kept.names == set()


def plain(connections: dict[str, Any]) -> str:
    """As people write it: without an end mark."""
    return json.dumps({"connections": connections}).removeprefix("{").removesuffix("}") + "\n"


def test_what_half_of_a_file_says_to_be_disabled_is_so_at_once(kept: Kept) -> None:
    """And so it stays where the next half does not say it: nobody knows that it was taken back."""
    kept.write_plain(plain({"conn_a": ONE, "conn_b": ONE}))
    kept.load()
    kept.write_plain(plain({"conn_a": ONE | {"enabled": False}}))
    assert kept.reload(still=0.0) == Reloaded("waits", 10.0)
    assert kept.since.connections == {"conn_a"}
    kept.write_plain(plain({"conn_b": ONE | {"enabled": False}}))
    assert kept.reload(still=0.0) == Reloaded("waits", 10.0)
    assert kept.since.connections == {"conn_a", "conn_b"}


def test_what_was_left_alone_for_long_enough_takes_back_what_it_lacks(kept: Kept) -> None:
    bad = ONE | {"upstream": "nowhere"}
    kept.write_plain(plain({"conn_a": ONE, "conn_b": ONE}))
    kept.load()
    kept.write_plain(plain({"conn_b": bad}))
    assert kept.reload(still=10.0) == Reloaded("failed")
    assert kept.since.connections == {"conn_a"}


def test_what_a_file_takes_back_and_what_a_notice_takes_back_hold_both(kept: Kept) -> None:
    bad = ONE | {"upstream": "nowhere"}
    kept.write("conn_a", "conn_b", "conn_c")
    kept.load()
    write_config({"connections": {"conn_b": ONE, "conn_c": bad}}, kept.folder)
    assert kept.reload() == Reloaded("failed")
    kept.live_config.heed(revoking("newer", "conn_b"))
    assert kept.since.connections == {"conn_a", "conn_b"}


def test_of_several_problems_the_first_is_told_as_the_reason(kept: Kept) -> None:
    kept.load()
    bad = ONE | {"upstream": "nowhere"}
    write_config({"connections": {"conn_a": ONE, "conn_b": bad, "conn_c": bad}}, kept.folder)
    assert kept.reload() == Reloaded("failed")
    assert kept.live_config.newer is not None
    assert "conn_b" in kept.live_config.newer.why
    assert kept.live_config.loaded is not None
    version, since = kept.live_config.loaded.record.version, stamp(int(kept.live_config.loaded_at))
    changed, why = stamp(int(kept.live_config.newer.since)), kept.live_config.newer.why
    assert kept.live_config.trouble(0.0) == (
        f"stale configuration: version {version} is in force since {since}; "
        f"what changed at {changed} is not: {why}"
    )


def test_a_file_that_has_lost_its_end_mark_is_never_used(kept: Kept) -> None:
    kept.write("conn_a", "conn_b")
    kept.load()
    kept.write_plain(plain({"conn_a": ONE}))
    for still in (1.0, 1e9, math.inf):
        assert kept.reload(still=still) == Reloaded("failed")
        assert kept.names == {"conn_a", "conn_b"}
        assert not kept.since, "what it lacks may have been cut off"
    assert kept.live_config.reloads == {"ok": 0, "failed": 1}


def test_a_change_that_cannot_be_made_use_of_keeps_the_last_good_one(kept: Kept) -> None:
    kept.load()
    before = kept.live_config.loaded
    kept.write("conn_a", "conn_b")
    for refusal in ("refuse", "refuse_to_prepare"):
        setattr(kept, refusal, "no store")
        assert kept.reload() == Reloaded("failed")
        setattr(kept, refusal, None)
        assert kept.live_config.loaded is before
        assert (kept.live_config.stale, kept.live_config.reloads["failed"]) == (True, 1)


def test_an_error_without_a_word_is_told_of_in_ours(kept: Kept) -> None:
    kept.load()
    kept.live_config._failed(ConfigError([]))
    assert kept.live_config.newer is not None
    assert kept.live_config.newer.why == "it is not usable"


class Held:
    """Stops the thread that reads in the middle of its work, until it is let go."""

    def __init__(self, patch: pytest.MonkeyPatch, name: str) -> None:
        self._real, self._reads, self._go_on = getattr(module, name), threading.Event(), threading.Event()
        patch.setattr(module, name, self._slow)

    def _slow(self, *given: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            self._reads.set()
            assert self._go_on.wait(5)
        return self._real(*given)

    async def reads(self) -> None:
        while not self._reads.is_set():  # noqa: ASYNC110 - it is another thread
            await asyncio.sleep(0.005)

    def let_go(self) -> None:
        self._go_on.set()


@pytest.mark.parametrize("step", ["see_calmly", "build_calmly"])
def test_a_reload_that_an_option_has_overtaken_changes_nothing(
    step: str, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.load()
    other = write_config(settings("conn_z"), kept.folder / "other")

    async def work() -> None:
        held = Held(monkeypatch, step)
        write_config({"connections": {"conn_b": ONE}}, kept.folder)
        reloading = asyncio.ensure_future(kept.live_config.reload("config", math.inf, kept))
        await held.reads()
        monkeypatch.undo()
        kept.live_config.load(str(other), "config", kept)
        held.let_go()
        assert await reloading == Reloaded("overtaken")
        assert kept.names == {"conn_z"}
        assert not kept.since
        assert kept.live_config.reloads == {"ok": 0, "failed": 0}
        assert kept.live_config.stale is False

    kept.run(work)
    discarded = [one.discarded for one in kept.prepared]
    assert discarded == ([0, 0] if step == "see_calmly" else [0, 0, 1])


def test_a_reload_that_does_not_come_back_is_told_of(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.load()

    async def work() -> None:
        held = Held(monkeypatch, "see_calmly")
        reloading = asyncio.ensure_future(kept.live_config.reload("config", math.inf, kept))
        await held.reads()
        began = kept.live_config._began
        assert kept.live_config.trouble(began + 30.0) == ""
        long = "reading the changed configuration takes long: it waits for a program, or for a disk"
        assert kept.live_config.trouble(began + 30.5) == long
        kept.live_config.newer = Newer(0.0, "why")
        assert kept.live_config.trouble(began + 30.5).endswith(f" is not: why, {long}")
        held.let_go()
        assert await reloading == Reloaded("ok")
        assert kept.live_config.trouble(began + 30.5) == ""

    kept.run(work)


def test_one_is_read_at_a_time_and_the_thread_ends_with_it(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.load()
    real, at_work, most = module.see_calmly, [], []

    def slow(*given: Any) -> Any:
        at_work.append(1)
        most.append(len(at_work))
        time.sleep(0.05)
        at_work.pop()
        return real(*given)

    async def work() -> None:
        monkeypatch.setattr(module, "see_calmly", slow)
        await asyncio.gather(*(kept.live_config.reload("config", math.inf, kept) for _ in range(2)))

    kept.run(work)
    assert most == [1, 1]
    threads = [one for one in threading.enumerate() if one.name == "presign-reload-0"]
    assert threads
    kept.live_config.close()
    for one in threads:
        one.join(2)
        assert not one.is_alive()
    assert kept.live_config.spares._held == []


def test_descriptors_are_let_go_of_while_files_are_read(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients have taken all the others."""
    kept.load()
    held: list[int] = []

    def noting(real: Any, *given: Any) -> Any:
        held.append(len(kept.live_config.spares._held))
        return real(*given)

    for name in ("see_calmly", "build_calmly"):
        monkeypatch.setattr(module, name, partial(noting, getattr(module, name)))
    before = len(kept.live_config.spares._held)
    assert before > 0
    assert kept.reload() == Reloaded("ok")
    assert held == [0, 0]
    assert len(kept.live_config.spares._held) == before


# -- secrets that cannot be had ---------------------------------------------------------------------------


def lacking(folder: Path, *names: str) -> dict[str, Any]:
    """Connections whose credential stands in a file of their name."""
    token = {"type": "bearer", "token": {"file": "key"}}
    return {name: ONE | {"auth": token | {"token": {"file": f"{name}.key"}}} for name in names}


def test_a_secret_that_cannot_be_had_stops_the_start_and_no_reload(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.load()
    fresh = write_config({"connections": lacking(kept.folder, "conn_b")}, kept.folder / "other")
    with pytest.raises(ConfigError):
        kept.live_config.load(str(fresh), "config", kept)
    kept.live_config.strict = False
    assert kept.live_config.load(str(fresh), "config", kept) is True
    assert [one.file for one in kept.live_config.lacking]
    assert "answered 503 until this can be had" in caplog.text
    first = str(kept.live_config.lacking[0])
    assert kept.live_config.trouble(0.0) == f"a secret cannot be had: {first}"
    for names in (("conn_b", "conn_c"), ("conn_b", "conn_c", "conn_d")):
        write_config({"connections": lacking(kept.folder, *names)}, kept.folder / "other")
        assert kept.reload() == Reloaded("lacks")
        assert len({str(one) for one in kept.live_config.lacking}) == len(names)
        more = f" and {len(names) - 1} more"
        assert kept.live_config.trouble(0.0) == f"a secret cannot be had: {kept.live_config.lacking[0]}{more}"
    for name in ("conn_b", "conn_c", "conn_d"):
        key = kept.folder / "other" / f"{name}.key"
        key.touch(0o600)
        key.write_text("sk-REALSECRET-0123456789")
    assert kept.reload() == Reloaded("ok")
    assert (kept.live_config.lacking, kept.live_config.trouble(time.monotonic())) == ([], "")


def test_programs_are_run_again_where_that_is_asked_for(kept: Kept) -> None:
    printing = {"exec": ["sh", "-c", "echo x >> runs; echo sk-REALSECRET-0123456789"], "ttl": "1h"}
    one = ONE | {"signing_keys": [{"id": "k1", "secret": printing}]}
    write_config({"connections": {"conn_a": one}}, kept.folder)
    kept.load()
    runs = kept.folder / "runs"
    assert len(runs.read_text().split()) == 1
    assert kept.reload() == Reloaded("ok")
    assert len(runs.read_text().split()) == 1
    kept.live_config.run_anew()
    assert kept.reload() == Reloaded("ok")
    assert len(runs.read_text().split()) == 2


# -- the notice -------------------------------------------------------------------------------------------


def registered(kept: Kept) -> tuple[Path, str]:
    """A configuration with a registry beside it; the registry and the digest of its file."""
    write_config({"registry": {"file": "connections.json"}}, kept.folder)
    registry = kept.folder / "connections.json"
    registry.touch(0o600)
    registry.write_text(json.dumps({"connections": {"conn_a": ONE, "conn_b": ONE}}))
    return registry, digest_of(registry.read_bytes())


def revoking(of: str, *names: str) -> Notice:
    return Notice(of, Revocations(connections=frozenset(names)))


def test_a_notice_takes_back_at_once_and_its_absence_gives_nothing_back(kept: Kept) -> None:
    registered(kept)
    kept.load()
    kept.live_config.heed(None)
    before = kept.live_config.registry
    assert kept.live_config.loaded is not None
    assert before is kept.live_config.loaded.registry
    kept.live_config.heed(revoking("newer", "conn_b"))
    assert kept.since.connections == {"conn_b"}
    after = kept.live_config.registry
    kept.live_config.heed(revoking("newer", "conn_b"))
    assert kept.live_config.registry is after
    kept.live_config.heed(None)
    assert kept.since.connections == {"conn_b"}
    kept.live_config.heed(revoking("newest", "conn_a", "conn_b"))
    assert kept.since.connections == {"conn_a", "conn_b"}


def test_a_notice_of_the_registry_that_is_in_force_says_nothing_new(kept: Kept) -> None:
    _, digest = registered(kept)
    kept.load()
    kept.live_config.heed(revoking(digest, "conn_b"))
    assert not kept.since


def test_a_notice_beside_the_registry_is_read_with_it(kept: Kept) -> None:
    """And where the registry is as it says, its work is done."""
    registry, digest = registered(kept)
    said = {"of": "newer", "revoked": {}, "disabled": [], "removed": ["conn_b"]}
    notice = place_of(registry)
    notice.touch(0o600)
    notice.write_text(json.dumps(said))
    kept.load()
    assert kept.live_config.notice is not None
    assert kept.since.connections == {"conn_b"}
    notice.write_text(json.dumps(said | {"removed": ["conn_a", "conn_b"]}))
    write_config({"registry": {"file": "connections.json"}, "gateway": {"hosts": ["!"]}}, kept.folder)
    assert kept.reload() == Reloaded("failed")
    assert kept.since.connections == {"conn_a", "conn_b"}
    write_config({"registry": {"file": "connections.json"}}, kept.folder)
    notice.write_text(json.dumps(said | {"of": digest}))
    assert kept.reload() == Reloaded("ok")
    assert not kept.since
    notice.unlink()
    assert kept.reload() == Reloaded("ok")
    assert not kept.since


def test_what_an_operator_is_told_stands_on_one_short_line(kept: Kept) -> None:
    kept.load()
    kept.live_config.newer = Newer(0.0, "much\n  of " + "it " * 300)
    trouble = kept.live_config.trouble(0.0)
    assert "\n" not in trouble
    assert "what changed at 1970-01-01T00:00:00Z is not: much of it" in trouble
    assert len(trouble.partition(" is not: ")[2]) == 300


def test_nothing_of_a_configuration_in_force_is_lost_by_what_is_looked_at(kept: Kept) -> None:
    """The ending of each file and the secrets of the last time are remembered with each that is used."""
    kept.load()
    memory = kept.live_config._memory
    assert kept.live_config.loaded is not None
    record = kept.live_config.loaded.record
    assert memory.forms == record.forms
    assert kept.path in memory.forms
    assert (memory.place, memory.lent.strict) == (record.place, False)
