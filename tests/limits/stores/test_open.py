"""Which store a configuration asks for, and what is wrong with what it says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.limits.counter import Counter
from presign_proxy.limits.stores.memory import MemoryStore
from presign_proxy.limits.stores.open import Choice, problem_of
from presign_proxy.limits.stores.redis import RedisStore
from presign_proxy.limits.stores.sqlite import SqliteStore
from presign_proxy.signing.secret import Secret

BASE = Path("/srv/presign")
USES = Counter("uses", "count", "u", 2)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_each_url_opens_its_own_store(tmp_path: Path) -> None:
    memory, file, redis = (
        Choice(url, tmp_path) for url in ("memory://", "sqlite:///counts.db", "redis://u@redis.test:7000/3")
    )
    assert isinstance(memory.open(), MemoryStore)
    assert (memory.is_private, memory.path, memory.address, memory.obstacle) == (True, None, None, "")
    opened = file.open()
    assert isinstance(opened, SqliteStore)
    assert (file.is_private, file.path, file.address) == (False, tmp_path / "counts.db", None)
    assert Choice("sqlite:////var/x.db", tmp_path).path == Path("/var/x.db")
    asked = redis.open()
    assert isinstance(asked, RedisStore)
    assert (redis.is_private, redis.path, redis.address) == (False, None, ("redis.test", 7000))
    assert redis.obstacle == ""


@pytest.mark.parametrize(("url", "address"), [
    ("redis://", ("localhost", 6379)), ("redis://h", ("h", 6379)), ("rediss://h:1/0", ("h", 1)),
    ("redis://[::1]:2", ("::1", 2)),
])  # fmt: skip
def test_where_redis_listens_is_known_so_that_no_request_leads_there(
    url: str, address: tuple[str, int]
) -> None:
    assert Choice(url, BASE).address == address


def test_a_file_that_cannot_be_counted_in_is_warned_of(tmp_path: Path) -> None:
    assert Choice("sqlite:///counts.db", tmp_path).obstacle == ""
    assert Choice("sqlite:///no/such/counts.db", tmp_path).obstacle != ""


def test_the_same_store_is_one_that_is_led_to_in_the_same_way() -> None:
    one = Choice("redis://h", BASE, Secret("p" * 9), "ca.pem")
    assert one.is_same(Choice("redis://h", BASE, Secret("p" * 9), "ca.pem"))
    assert Choice("memory://", BASE).is_same(Choice("memory://", BASE))
    for other in (
        None,
        Choice("redis://g", BASE, Secret("p" * 9), "ca.pem"),
        Choice("redis://h", BASE / "x", Secret("p" * 9), "ca.pem"),
        Choice("redis://h", BASE, Secret("q" * 9), "ca.pem"),
        Choice("redis://h", BASE, None, "ca.pem"),
        Choice("redis://h", BASE, Secret("p" * 9), None),
    ):
        assert one.is_same(other) is False
        assert other is None or other.is_same(one) is False


@pytest.mark.parametrize(("url", "said"), [
    ("redis://h:notaport", "is not a URL as in redis://127.0.0.1:6379/0"),
    ("redis://h:99999", "is not a URL as in redis://127.0.0.1:6379/0"),
    ("redis://[::1", "is not a URL as in redis://127.0.0.1:6379/0"),
    ("redis://u:hunter2@h", "holds a password: URLs end up in logs; write limits.password"),
    ("redis://:@h", "holds a password: URLs end up in logs; write limits.password"),
    ("redis://h/0?x=1", "is not redis://[USER@]HOST[:PORT][/DATABASE]"),
    ("redis://h/0#x", "is not redis://[USER@]HOST[:PORT][/DATABASE]"),
    ("redis://h:0", "is not redis://[USER@]HOST[:PORT][/DATABASE]"),
    ("redis://h/x", "is not redis://[USER@]HOST[:PORT][/DATABASE]"),
    ("redis://h/1/2", "is not redis://[USER@]HOST[:PORT][/DATABASE]"),
])  # fmt: skip
def test_a_url_of_redis_that_cannot_be_meant_so_is_told_without_its_password(url: str, said: str) -> None:
    assert problem_of(Choice(url, BASE)) == said


def test_a_url_that_can_be_meant_so_has_no_problem(tmp_path: Path, ca_pem: Path) -> None:
    for url in ("memory://", "sqlite:///x.db", "redis://", "redis://h", "redis://u@h:1/15", "rediss://h/"):
        assert problem_of(Choice(url, tmp_path)) is None
    assert problem_of(Choice("rediss://h", tmp_path, None, str(ca_pem))) is None
    assert (
        problem_of(Choice("redis://h", tmp_path, None, str(ca_pem))) == "has a ca, which only rediss:// needs"
    )


def test_a_redis_whose_library_is_not_there_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presign_proxy.limits.stores.redis.ConnectionPool", None)
    assert problem_of(Choice("redis://h", BASE)) == (
        "redis:// needs an extra: pip install 'presign-proxy[redis]'"
    )


def test_a_redis_is_asked_with_the_password_that_was_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        store = Choice(f"redis://someone@127.0.0.1:{port}", BASE, Secret("hunter2-hunter2")).open()
        server.settimeout(5)

        async def ask() -> bytes:
            asking = asyncio.ensure_future(store.admit([USES], "h"))
            wire = (await asyncio.to_thread(server.accept))[0]
            with wire:
                wire.settimeout(5)
                said = await asyncio.to_thread(wire.recv, 4096)
            asking.cancel()
            await asyncio.wait([asking])
            await store.close()
            return said

        said = run(ask())
    assert b"hunter2-hunter2" in said
    assert b"someone" in said
