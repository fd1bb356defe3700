"""HTTP/2 from end to end: clients that speak it reach an upstream that offers it, in both forms."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.asking import SECRET, Grant
from support.gateways import MakeGateway
from support.http2_first import http2_first
from support.lab import REAL_SECRET, bearer_connection
from support.lanes import WAYS
from support.places import TESTS
from support.proxy import Mitm
from support.recorder import Recorder
from support.seen import Seen

GATEWAY = "localhost"
LONG_AGO = 1714808400
API = Grant("conn_api")
LATE = Grant("conn_api", expires=LONG_AGO)
FORMS = ("its real name", "the gateway")


@pytest.fixture(scope="module", params=["flows", "flows as served"])
def proxy(request: pytest.FixtureRequest, module_gateway: MakeGateway, h2_upstream: Recorder) -> Mitm:
    config = {
        "connections": {"conn_api": bearer_connection(f"https://api.tls.test:{h2_upstream.tls_port}", SECRET)}
    }
    return module_gateway(config, *WAYS[request.param], dns={"api.tls.test": ["127.0.0.1"]})


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, proxy: Mitm) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        monkeypatch.setenv(name, str(proxy.ca))


Placed = tuple[str, str, dict[str, str]]


def place(proxy: Mitm, h2_upstream: Recorder, form: str, grant: Grant, path: str = "v1/models") -> Placed:
    """The origin, the target and the headers of a request."""
    if form == "the gateway":
        return f"https://{GATEWAY}:{proxy.port}", grant.target(path), {}
    key = {"authorization": f"Bearer {grant.token}"}
    return f"https://api.tls.test:{h2_upstream.tls_port}", f"/{path}", key


def check(h2_upstream: Recorder, count: int = 1) -> None:
    """What was sent upstream was HTTP/2, with the credential and nothing of the client's."""
    found: list[Seen] = h2_upstream.wait_for(count)
    assert len(found) == count
    for seen in found:
        assert seen.alpn == "h2"
        assert b"HTTP/2" in seen.raw
        assert seen.all("authorization") == [f"Bearer {REAL_SECRET}"]
        assert "presign" not in str(seen.headers).lower()
        assert "ps1_" not in str(seen.headers)


def told(grant: Grant) -> int:
    return 200 if grant is API else 403


BOTH = pytest.mark.parametrize("grant", [API, LATE], ids=["granted", "expired"])


def done(argv: list[str], timeout: float = 60, **env: str) -> str:
    found = subprocess.run(
        argv, env=os.environ | env, capture_output=True, check=False, text=True, timeout=timeout
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def once_or_never(h2_upstream: Recorder, grant: Grant, count: int) -> None:
    if grant is API:
        check(h2_upstream, count)
    else:
        assert not h2_upstream.touched


@pytest.mark.needs("curl")
@BOTH
def test_curl_speaks_http2_to_the_upstream(
    proxy: Mitm, h2_upstream: Recorder, form: str, grant: Grant
) -> None:
    origin, target, headers = place(proxy, h2_upstream, form, grant)
    argv = ["curl", "-sS", "--http2", "-o", os.devnull, "-w", "%{http_code} %{http_version}", origin + target]
    argv += [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    argv += [] if form == "the gateway" else ["-x", proxy.url]
    assert done(argv) == f"{told(grant)} 2"
    once_or_never(h2_upstream, grant, 1)


@BOTH
def test_httpx_speaks_http2_to_the_upstream(
    proxy: Mitm, h2_upstream: Recorder, form: str, grant: Grant
) -> None:
    origin, target, headers = place(proxy, h2_upstream, form, grant)
    via: dict[str, Any] = {} if form == "the gateway" else {"proxy": proxy.url}
    with httpx.Client(http2=True, verify=http2_first(proxy.ca), trust_env=False, **via) as client:
        replies = [client.get(origin + target, headers=headers) for _ in range(3)]
    assert [(reply.status_code, reply.http_version) for reply in replies] == [(told(grant), "HTTP/2")] * 3
    once_or_never(h2_upstream, grant, 3)


@pytest.mark.needs("node")
@BOTH
def test_node_speaks_http2_to_the_upstream_and_reads_its_trailers(
    proxy: Mitm, h2_upstream: Recorder, form: str, grant: Grant
) -> None:
    origin, target, headers = place(proxy, h2_upstream, form, grant, "v1/trailers")
    argv = ["node", str(TESTS / "support/node/http2.mjs"), origin, target, json.dumps(headers)]
    argv += [] if form == "the gateway" else [proxy.url]
    found = json.loads(done(argv))
    assert [one["status"] for one in found] == [told(grant)] * 2
    if grant is API:
        expected = {"body": "one two", "trailers": {"x-checksum": "12"}, "status": 200}
        assert found == [expected] * 2
        assert [seen.all("te") for seen in h2_upstream.wait_for(2)] == [["trailers"]] * 2
    once_or_never(h2_upstream, grant, 2)


JAVA = """
import java.io.*;
import java.net.*;
import java.net.http.*;
import java.security.*;
import java.security.cert.*;
import javax.net.ssl.*;

public class Ask {
  public static void main(String[] args) throws Exception {
    KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
    store.load(null, null);
    try (InputStream pem = new FileInputStream(System.getenv("SSL_CERT_FILE"))) {
      store.setCertificateEntry("gateway", CertificateFactory.getInstance("X.509").generateCertificate(pem));
    }
    TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(store);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(null, trust.getTrustManagers(), null);
    HttpClient.Builder builder = HttpClient.newBuilder().sslContext(context);
    if (args.length > 2) {
      builder.proxy(ProxySelector.of(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[2]))));
    }
    HttpRequest.Builder ask = HttpRequest.newBuilder(URI.create(args[0]));
    if (!args[1].isEmpty()) ask.header("Authorization", args[1]);
    HttpClient client = builder.build();
    for (int time = 0; time < 2; time++) {
      HttpResponse<String> answer = client.send(ask.build(), HttpResponse.BodyHandlers.ofString());
      System.out.println(answer.statusCode() + " " + answer.version());
    }
  }
}
"""


@pytest.mark.needs("javac")
@BOTH
def test_java_speaks_http2_to_the_upstream(
    proxy: Mitm, h2_upstream: Recorder, form: str, grant: Grant, tmp_path: Path
) -> None:
    (tmp_path / "Ask.java").write_text(JAVA)
    origin, target, headers = place(proxy, h2_upstream, form, grant)
    argv = ["java", str(tmp_path / "Ask.java"), origin + target, headers.get("authorization", "")]
    argv += [] if form == "the gateway" else [str(proxy.port)]
    assert done(argv) == f"{told(grant)} HTTP_2\n" * 2
    once_or_never(h2_upstream, grant, 2)


@pytest.fixture(scope="module")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program of Go's standard library alone, built without the network."""
    program = str(tmp_path_factory.mktemp("go") / "http2")
    argv = ["go", "build", "-o", program, str(TESTS / "support/go/http2.go")]
    done(argv, timeout=240, GOTOOLCHAIN="local", GOPROXY="off", CGO_ENABLED="0")
    return program


@pytest.mark.needs("go")
@BOTH
def test_go_speaks_http2_to_the_upstream(
    proxy: Mitm, h2_upstream: Recorder, form: str, grant: Grant, go_client: str
) -> None:
    origin, target, headers = place(proxy, h2_upstream, form, grant)
    env = {} if form == "the gateway" else {"HTTPS_PROXY": proxy.url}
    said = done([go_client, origin + target, headers.get("authorization", "")], **env)
    assert said == f"{told(grant)} HTTP/2.0\n" * 2
    once_or_never(h2_upstream, grant, 2)
