"""Every URL of `data/seed_vectors.json`, as the published recipes made it, sent to a running gateway."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from support.gateways import TLS_NAMES, MakeGateway
from support.lab import REAL_SECRET, bearer_connection
from support.places import TESTS
from support.proxy import Mitm
from support.raw import Response, parse_response, send_raw
from support.recorder import Recorder

VECTORS = json.loads((TESTS / "data" / "seed_vectors.json").read_text("utf-8"))
PRESIGN: list[dict[str, Any]] = VECTORS["presign"]
SOURCE: list[dict[str, Any]] = VECTORS["source_url"]
LONG_PAST = 1714808400
"""The one `exp` among the vectors that lies in the past (2024-05-04)."""


@pytest.fixture(scope="module")
def sources(ca: trustme.CA, _recorders: list[Recorder]) -> Iterator[Recorder]:
    """A recorder at the ports that the source vectors name, or at as many of them as can be had."""
    recorder = _first_to_start(ca, (9000, 443), (0, 443), (9000, 0), (0, 0))
    _recorders.append(recorder)
    yield recorder
    _recorders.remove(recorder)
    recorder.stop()


def _first_to_start(ca: trustme.CA, *choices: tuple[int, int]) -> Recorder:
    for port, tls_port in choices:
        with contextlib.suppress(OSError):
            return Recorder(ca.issue_cert(*TLS_NAMES), port=port, tls_port=tls_port).start()
    raise AssertionError("no port at all")


@pytest.fixture(scope="module")
def vector_gateway(module_gateway: MakeGateway, upstream: Recorder, sources: Recorder) -> Mitm:
    """A gateway that knows every connection and every secret of the vectors."""
    connections: dict[str, Any] = {}
    for vector in PRESIGN:
        fresh = bearer_connection(upstream.url, "") | {"signing_keys": []}
        keys = connections.setdefault(vector["connection_id"], fresh)["signing_keys"]
        _add_key(keys, vector["signing_secret"])
    project: dict[str, Any] = {
        "scheme": "source",
        "mode": "signed",
        "allowed_origins": ["https://cdn.acme.com", "http://127.0.0.1:9000"],
        "allow_networks": ["127.0.0.0/8"],
        "formats": ["jpg", "png", "mp4", "webp"],
        "signing_keys": [],
    }
    for vector in SOURCE:
        _add_key(project["signing_keys"], vector["signing_secret"])
        connections[vector["project_key"]] = project
    config = {"gateway": {"hosts": ["presign.click", "motioness.com"]}, "connections": connections}
    return module_gateway(config, dns={"cdn.acme.com": ["127.0.0.1"]})


def _add_key(keys: list[dict[str, Any]], secret: str) -> None:
    # The seeds' own secrets are short, which has to be admitted key by key.
    key = {"id": f"k{len(keys)}", "secret": secret} | ({"weak": True} if len(secret.encode()) < 16 else {})
    if secret not in [known["secret"] for known in keys]:
        keys.append(key)


def fetch(port: int, host: str, url: str, method: str, absolute: bool) -> Response:
    """Send `url` in the raw UTF-8 in which it was published."""
    target = f"http://{host}{url}" if absolute else url
    return parse_response(send_raw(port, f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()))


@pytest.mark.parametrize("absolute", [True, False], ids=["absolute-form", "origin-form"])
@pytest.mark.parametrize("vector", PRESIGN, ids=[f"{number}-{v['path']}" for number, v in enumerate(PRESIGN)])
def test_presign_vector_is_forwarded(
    vector: dict[str, Any], absolute: bool, vector_gateway: Mitm, upstream: Recorder
) -> None:
    methods = ["GET", "DELETE"] if vector["methods"] == ["*"] else vector["methods"]
    for method in methods:
        response = fetch(vector_gateway.port, "presign.click", vector["url"], method, absolute)
        assert response.status == 200, response
    seen = upstream.wait_for(len(methods))
    assert [request.method for request in seen] == methods
    assert {request.target for request in seen} == {"/" + vector["path"].replace("ü", "%C3%BC")}
    assert {request.header("authorization") for request in seen} == {f"Bearer {REAL_SECRET}"}


@pytest.mark.parametrize("vector", PRESIGN, ids=[f"{number}-{v['path']}" for number, v in enumerate(PRESIGN)])
def test_presign_vector_with_another_digit_is_denied(
    vector: dict[str, Any], vector_gateway: Mitm, upstream: Recorder
) -> None:
    url = vector["url"][:-1] + format(int(vector["url"][-1], 16) ^ 1, "x")
    method = "GET" if vector["methods"] == ["*"] else vector["methods"][0]
    response = fetch(vector_gateway.port, "presign.click", url, method, absolute=False)
    assert (response.status, response.header("x-presign-error")) == (403, "invalid")
    assert not upstream.touched


@pytest.mark.parametrize("absolute", [True, False], ids=["absolute-form", "origin-form"])
@pytest.mark.parametrize(
    "vector", SOURCE, ids=[f"{number}-{v['source_url']}" for number, v in enumerate(SOURCE)]
)
def test_source_vector_is_fetched_unless_expired(
    vector: dict[str, Any], absolute: bool, vector_gateway: Mitm, sources: Recorder
) -> None:
    response = fetch(vector_gateway.port, "motioness.com", vector["url"], "GET", absolute)
    if vector["expires"] == LONG_PAST:
        assert (response.status, response.body.strip()) == (403, b"Forbidden")
        assert not sources.touched
        return
    reachable = sources.port == 9000 if ":9000/" in vector["source_url"] else sources.tls_port == 443
    # The two ports are not everybody's to bind: without them the fetch fails, after the signature was good.
    assert response.status == (200 if reachable else 502), response
    if reachable:
        (request,) = sources.wait_for(1)
        assert request.method == "GET"
        assert request.header("authorization") is None
        assert request.sni == ("cdn.acme.com" if request.tls else None)


@pytest.mark.parametrize(
    "vector", SOURCE, ids=[f"{number}-{v['source_url']}" for number, v in enumerate(SOURCE)]
)
def test_source_vector_with_another_expiry_is_denied(
    vector: dict[str, Any], vector_gateway: Mitm, sources: Recorder
) -> None:
    url = vector["url"].replace(f"exp={vector['expires']}", "exp=1893456001")
    response = fetch(vector_gateway.port, "motioness.com", url, "GET", absolute=True)
    assert (response.status, response.body.strip()) == (403, b"Forbidden")
    assert not sources.touched
