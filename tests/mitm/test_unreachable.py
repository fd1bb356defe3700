"""An upstream that cannot be reached: the audit log says which name, and what DNS said of it."""

from __future__ import annotations

import socketserver
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
import trustme

from presign_proxy.gateway import unreachable
from support.asking import SECRET, Grant, wire
from support.audit_log import audit_lines
from support.gateways import MakeGateway
from support.lab import bearer_connection
from support.process import free_port
from support.proxy import Mitm
from support.raw import parse_response, send_raw
from support.recorder import Recorder


@pytest.fixture(scope="module")
def untrusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """An upstream with a certificate of an authority that nobody knows, for the name `private.test`."""
    upstream = Recorder(trustme.CA().issue_cert("private.test")).start()
    yield upstream
    upstream.stop()


class Plainly(socketserver.BaseRequestHandler):
    """Answers whatever comes in plain HTTP."""

    def handle(self) -> None:
        self.request.recv(65536)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


@pytest.fixture(scope="module")
def plain() -> Iterator[int]:
    """The port of a server without TLS."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Plainly) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def gateway(module_gateway: MakeGateway, untrusted: Recorder, tls_upstream: Recorder, plain: int) -> Mitm:
    connections = {
        "conn_untrusted": bearer_connection(f"https://private.test:{untrusted.tls_port}", SECRET),
        "conn_other_name": bearer_connection(f"https://other.test:{tls_upstream.tls_port}", SECRET),
        "conn_plain": bearer_connection(f"https://plain.test:{plain}", SECRET),
        "conn_nowhere": bearer_connection("https://nowhere.invalid", SECRET),
        "conn_dead": bearer_connection(f"http://127.0.0.1:{free_port()}", SECRET),
    }
    config = {"gateway": {"hosts": ["presign.local"]}, "connections": connections}
    names = {name: ["127.0.0.1"] for name in ("private.test", "other.test", "plain.test")}
    return module_gateway(config | {"audit": {"file": "audit.jsonl"}}, dns=names)


@pytest.mark.parametrize("path", ["lane", "flow"])
@pytest.mark.parametrize(("name", "said"), [
    ("conn_nowhere", "the upstream nowhere.invalid does not resolve ("),
    ("conn_dead", "the upstream 127.0.0.1 cannot be connected to (connection refused)"),
    ("conn_untrusted", "the certificate of the upstream private.test is not trusted ("),
    ("conn_other_name", "the certificate of the upstream other.test is for other names"),
    ("conn_plain", "the upstream plain.test speaks no TLS, or none that fits (wrong version number)"),
])  # fmt: skip
def test_the_audit_log_names_what_could_not_be_reached(
    name: str, said: str, path: str, gateway: Mitm
) -> None:
    grant = Grant(name, "POST")
    # The lane leaves a request with `Expect` to the flow path.
    headers = grant.headers | ({"Expect": "100-continue"} if path == "flow" else {})
    before = len(audit_lines(gateway.directory / "audit.jsonl"))
    raw = send_raw(gateway.port, wire(f"/api/proxy/{name}/v1/a", headers, "POST", body=b"x"))
    answer = parse_response(raw.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
    assert (answer.status, b"nowhere" in answer.body) == (502, False)
    deadline = time.monotonic() + 30
    while len(lines := audit_lines(gateway.directory / "audit.jsonl")) == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert lines[-1]["detail"].startswith(said), lines[-1]
    assert "Error" not in lines[-1]["detail"]


@pytest.mark.parametrize(("text", "said"), [
    ("[Errno -2] Name or service not known", "a.test does not resolve (name or service not known)"),
    ("[Errno -3] Temporary failure in name resolution", "(temporary failure in name resolution)"),
    ("[Errno 111] Connect call failed ('10.0.0.9', 443)", "cannot be connected to (connection refused)"),
])  # fmt: skip
def test_the_text_of_an_error_becomes_a_reason_without_addresses(text: str, said: str) -> None:
    found = unreachable.of_text("a.test", text)
    assert found
    assert said in found
    assert "10.0.0.9" not in found


@pytest.mark.parametrize(("error", "said"), [
    (ConnectionResetError(), "(connection reset)"),
    (TimeoutError(), "(not in time)"),
    (OSError(), "(it failed)"),
    (ssl.SSLEOFError(8, "[SSL: UNEXPECTED_EOF] of 10.0.0.9"), "speaks no TLS, or none that fits ("),
])  # fmt: skip
def test_an_error_of_python_is_told_in_words(error: OSError, said: str) -> None:
    found = unreachable.of_error("a.test", error)
    assert said in found
    assert "Error" not in found
    assert "10.0.0.9" not in found


@pytest.mark.parametrize("text", ["this host is not allowed", "", "[Errno x]"])
def test_a_text_without_a_number_is_no_reason(text: str) -> None:
    assert unreachable.of_text("a.test", text) is None
