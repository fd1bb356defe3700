"""What nobody without a key may learn from the time of a refusal: the same steps, whatever is wrong.

Times are measured by bench/timing.py. Here the work is counted.
"""

import hmac
import sys
from collections import Counter
from types import CodeType
from typing import Any

import pytest

from presign_proxy.core.decision import Deny
from presign_proxy.core.registry import Registry
from presign_proxy.http.message import Request
from presign_proxy.signing import keys
from support.deciding import NOW, SECRET, ask, connection, project, registry, request, ring
from support.signing import presign_target, source_url

OTHER = "sk_another_secret_of_thirty_five_b"
LONG = "sk_" + "long" * 40
KNOWN = registry(
    connection("conn_known"),
    connection("conn_4keys", keys=ring(*(f"sk_{n}_0123456789abcdef" for n in range(4)))),
    connection("conn_long0", keys=ring(LONG)),
    connection("conn_off00", enabled=False),
    connection("conn_gone0", revoked=True),
    project("pk_known00"),
)

Steps = Counter[tuple[str, str]]


def presigned(name: str) -> Request:
    return request(presign_target(OTHER, name, "v1/models", NOW + 60, "GET", "v1/*"))


def source(name: str) -> Request:
    return request(source_url(OTHER, name, "https://cdn.acme.com/hero.png", NOW + 60, "png"))


def steps(asked: Request, known: Registry = KNOWN) -> Steps:
    """Every call that deciding on a request makes in our code, by function and by what it calls."""
    monitoring, tool, found = sys.monitoring, sys.monitoring.PROFILER_ID, Counter[tuple[str, str]]()

    def note(code: CodeType, _: int, called: Any, __: object) -> None:
        if "presign_proxy" in code.co_filename:
            found[code.co_qualname, getattr(called, "__qualname__", type(called).__name__)] += 1

    decision = ask(asked, known)  # caches are warm then
    assert isinstance(decision, Deny)
    assert decision.code == "invalid"
    monitoring.use_tool_id(tool, "steps")
    try:
        monitoring.register_callback(tool, monitoring.events.CALL, note)
        monitoring.set_events(tool, monitoring.events.CALL)
        ask(asked, known)
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    assert sum(found.values()) > 20
    return found


@pytest.mark.parametrize(
    "name", ["conn_none0", "conn_4keys", "conn_long0", "conn_off00", "conn_gone0", "pk_known00"]
)
def test_a_wrong_signature_takes_the_same_steps_whoever_it_names(name: str) -> None:
    assert steps(presigned(name)) == steps(presigned("conn_known"))


@pytest.mark.parametrize("name", ["pk_none000", "conn_known"])
def test_a_wrong_source_signature_takes_the_same_steps_whoever_it_names(name: str) -> None:
    assert steps(source(name)) == steps(source("pk_known00"))


@pytest.mark.parametrize("name", ["conn_none0", "conn_known", "conn_4keys", "conn_long0", "conn_off00"])
def test_every_mac_is_over_a_key_of_one_length(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """HMAC hashes a key that is longer than a block first, which takes half as long again."""
    lengths: list[int] = []

    def mac(secret: bytes, message: bytes) -> bytes:
        lengths.append(len(secret))
        return hmac.digest(secret, message, "sha256")

    monkeypatch.setattr(keys, "mac", mac)
    assert isinstance(ask(presigned(name), KNOWN), Deny)
    assert lengths == [64, 64, 64, 64]


@pytest.mark.parametrize("secret", ["x" * 63, "x" * 64, "x" * 65, LONG, SECRET, "ü" * 32, "ü" * 33])
def test_a_secret_of_any_length_signs_as_published(secret: str) -> None:
    known = registry(connection(keys=ring(secret)))
    asked = request(presign_target(secret, "conn", "v1/models", NOW + 60, "GET", "v1/*"))
    assert not isinstance(ask(asked, known), Deny)
