"""What a gateway that reads its configuration again and again keeps of each time: nothing."""

import gc
import json
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.load_beside import free, load_calmly
from presign_proxy.config.registry_file.memory import Memory
from support.asking import SECRET, Grant, wire
from support.config import write_config
from support.process import resident
from support.puppet import eventually
from support.raw import connect, exchange
from support.serving import Serve

KEY = "sk-REALSECRET-0123456789"
ENVIRON = {"TOKEN": KEY, "SIGNING": SECRET}
CONFIG = {"registry": {"file": "connections.json"}}
KINDS = ("literal", "env", "file", "exec")
MB = 2**20


@pytest.fixture(autouse=True)
def _collections_as_they_were() -> Iterator[None]:
    yield
    gc.unfreeze()


class Cycle:
    """Like a connection of mitmproxy, whose layers refer to each other."""

    def __init__(self) -> None:
        self.itself = self


def source(kind: str, name: str, value: str) -> Any:
    if kind == "exec" and name == "SIGNING":
        kind = "env"  # what verifies is needed at once
    if kind == "literal":
        return value
    return {kind: ["echo", KEY] if kind == "exec" else name}


def place(directory: Path, count: int, kind: str, number: int = 0) -> Path:
    """A registry of that many connections; with each number, each of them is another one."""
    for name, value in ENVIRON.items():
        (directory / name).touch(0o600)
        (directory / name).write_text(value)
    connections = {
        f"conn_{one}": {
            "upstream": "http://127.0.0.1:9",
            "auth": {"type": "bearer", "token": source(kind, "TOKEN", KEY)},
            "signing_keys": [{"id": f"k{number}", "secret": source(kind, "SIGNING", SECRET)}],
        }
        for one in range(count)
    }
    draft = directory / "draft"
    draft.touch(0o600)
    draft.write_text(json.dumps({"connections": connections}))
    draft.replace(directory / "connections.json")
    config = directory / "config.yaml"
    return config if config.exists() else write_config(CONFIG, directory)


def test_clients_of_a_night_of_reloads_are_freed(tmp_path: Path) -> None:
    """Where secrets are in the environment, each reload makes each connection anew."""
    path, memory = place(tmp_path, 1200, "env"), Memory()
    load_calmly(path, ENVIRON, "config", memory)
    alive = Cycle()
    ghost = weakref.ref(alive)
    load_calmly(path, ENVIRON, "config", memory)
    del alive
    gc.collect()
    assert ghost() is None


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_collections_pass_over_all_connections(tmp_path: Path, kind: str) -> None:
    gc.collect()
    before = len(gc.get_objects())
    loaded = load_calmly(place(tmp_path, 1200, kind), ENVIRON, "config", Memory())
    assert len(loaded.registry.connections) == 1200
    gc.collect()
    assert len(gc.get_objects()) - before < 1200


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "times"), [(10, 1000), (1500, 20)])
def test_no_reload_leaves_anything(tmp_path: Path, kind: str, count: int, times: int) -> None:
    memory, blocks = Memory(), []
    loaded = load_calmly(place(tmp_path, count, kind), ENVIRON, "config", memory)
    for number in range(1, times + 1):
        before, path = loaded, place(tmp_path, count, kind, number)
        loaded = load_calmly(path, ENVIRON, "config", memory)
        free(before.registry)
        del before
        if number % (times // 4) == 0:
            gc.collect()
            blocks.append(sys.getallocatedblocks())
    assert max(blocks[1:]) - blocks[0] < 500


@pytest.mark.slow
def test_a_gateway_that_is_reloaded_while_clients_come_and_go_does_not_grow(tmp_path: Path) -> None:
    place(tmp_path, 1500, "env")
    times, sizes = 30, []
    request = wire(Grant("conn_1").target("v1/models"))
    with Serve(tmp_path, CONFIG, **ENVIRON) as gateway:
        (worker,) = gateway.serving()
        for number in range(1, times + 1):
            crowd = [connect(gateway.port) for _ in range(40)]
            for one in crowd:
                assert exchange(one, request).startswith(b"HTTP/1.1 502 ")
            place(tmp_path, 1500, "env", number)
            said = f"worker {worker}: 1500 connections from"
            assert eventually(lambda said=said, number=number: gateway.log().count(said) >= number, 15)
            for one in crowd:
                one.close()
            sizes.append(resident(worker))
    assert sizes[-1] - sizes[times // 3] < 8 * MB, [size // MB for size in sizes]
