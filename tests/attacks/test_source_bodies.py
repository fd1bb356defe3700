"""Sources are asked for with GET and HEAD, which have no body: one that comes all the same is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from support.asking import in_an_hour
from support.audit_log import audit_lines
from support.byhand import Wire
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lanes import GATEWAY, WAYS
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import connect
from support.recorder import Recorder
from support.serving import Serve
from support.signing import sign, source_url

SOURCE_SECRET = "sk_signing_secret_of_sources_0123456789"
BODIES = {
    "a length": (b"Content-Length: 5\r\n", b"hello"),
    "chunks": (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    "a last chunk alone": (b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
}


def sources(upstream: Recorder) -> dict[str, Any]:
    project = {
        "scheme": "source",
        "mode": "signed",
        "allowed_origins": [upstream.url],
        "allow_networks": ["127.0.0.0/8"],
        "formats": ["png"],
        "intercept": True,
        "signing_keys": [{"secret": SOURCE_SECRET}],
    }
    return {
        "gateway": {"hosts": [GATEWAY]},
        "connections": {"pk": project},
        "audit": {"file": "audit.jsonl"},
    }


@pytest.fixture(scope="module", params=[*WAYS, "served"])
def source_gateway(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    upstream: Recorder,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mitm | Serve]:
    with ExitStack() as started:
        if request.param != "served":
            yield module_gateway(sources(upstream), *WAYS[request.param])
            return
        served = Serve(tmp_path_factory.mktemp("served"), sources(upstream)).start()
        started.callback(served.stop)
        yield served


def source(upstream: Recorder) -> str:
    return source_url(SOURCE_SECRET, "pk", f"{upstream.url}/a", in_an_hour(), "png")


def last_line(gateway: Mitm | Serve) -> dict[str, Any]:
    path = gateway.directory / "audit.jsonl"
    lines: list[dict[str, Any]] = []

    def found() -> bool:
        lines[:] = audit_lines(path)
        return bool(lines)

    assert eventually(found)
    return lines[-1]


def get(
    gateway: Mitm | Serve,
    target: str,
    fields: bytes = b"",
    body: bytes = b"",
    method: str = "GET",
    host: str = GATEWAY,
) -> int:
    """The status of the answer."""
    with Wire(connect(gateway.port)) as client:
        client.send(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n".encode() + fields + b"\r\n" + body)
        return int(client.read_head()[9:12])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("how", BODIES)
def test_a_source_that_is_asked_for_with_a_body_is_refused(
    how: str, method: str, source_gateway: Mitm | Serve, upstream: Recorder
) -> None:
    target = source(upstream)
    assert get(source_gateway, target, *BODIES[how], method=method) == 403
    assert eventually(lambda: last_line(source_gateway)["code"] == "malformed")
    assert last_line(source_gateway)["detail"] == "a source is asked for without a body"
    assert not upstream.touched
    assert get(source_gateway, target, b"Content-Length: 0\r\n", method=method) == 200


@pytest.mark.parametrize("length", [True, False])
def test_a_source_that_is_asked_for_with_a_body_over_http2_is_refused(
    length: bool, source_gateway: Mitm | Serve, upstream: Recorder
) -> None:
    head = [(":method", "GET"), (":scheme", "https"), (":path", source(upstream)), (":authority", GATEWAY)]
    with H2Client.through(source_gateway.port, GATEWAY, cafile=source_gateway.ca) as client:
        fields = [("content-length", "5")] if length else []
        assert client.request([*head, *fields], b"hello").outcome == "403"
        assert eventually(lambda: last_line(source_gateway)["code"] == "malformed")
        assert not upstream.touched
        assert client.request(head).outcome == "200"


def test_a_source_at_its_own_origin_is_asked_for_without_a_body(
    source_gateway: Mitm | Serve, upstream: Recorder
) -> None:
    url, exp = f"{upstream.url}/b", in_an_hour()
    target = f"{url}?sig={sign(SOURCE_SECRET, f'pk:{url}:{exp}')}&exp={exp}"
    host = upstream.url.removeprefix("http://")
    assert get(source_gateway, target, *BODIES["a length"], host=host) == 403
    assert not upstream.touched
    assert get(source_gateway, target, host=host) == 200
