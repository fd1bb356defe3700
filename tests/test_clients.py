"""Real clients, unchanged, through a real proxy, to an API that takes its one real key over TLS."""

import asyncio
import hashlib
import json
import os
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import httpx
import openai
import pytest
import requests
import trustme

from conftest import MakeGateway
from support.answers import BEHAVIOURS
from support.asking import SECRET, Grant
from support.lab import REAL_SECRET, bearer_connection
from support.llm import LLM, TEXT
from support.proxy import Mitm
from support.recorder import Recorder
from support.seen import Seen

NODE = Path(__file__).parent / "support" / "node"
NAMES = ("api.openai.com", "api.anthropic.com", "api.tls.test")

# What every client here sends along, and no upstream may see.
BAGGAGE = {
    "Cookie": "session=sk-client-cookie",
    "X-Forwarded-For": "192.0.2.7",
    "X-Forwarded-Host": "client.test",
}
OWN_KEY = "sk-client-own-key"
LEAKS = re.compile(rb"presign|ps1_|sk-client|sk_signing|proxy-|cookie|forwarded", re.IGNORECASE)
CREDENTIALS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
BEARER = ("authorization", f"Bearer {REAL_SECRET}")

needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
needs_node = pytest.mark.skipif(not shutil.which("node"), reason="no node here")

API = Grant("conn_api")


@pytest.fixture(scope="module")
def api(ca: trustme.CA, _recorders: list[Recorder]) -> Iterator[Recorder]:
    """All the APIs of these tests, under their real names, as far as an SDK can tell."""
    recorder = Recorder(ca.issue_cert(*NAMES)).start()
    _recorders.append(recorder)
    with pytest.MonkeyPatch.context() as patch:
        for segment, behaviour in LLM.items():
            patch.setitem(BEHAVIOURS, segment, behaviour)
        yield recorder
    _recorders.remove(recorder)
    recorder.stop()


@pytest.fixture(scope="module")
def proxy(module_gateway: MakeGateway, api: Recorder) -> Mitm:
    """Leads each real name to the recorder; `presign.local` resolves nowhere."""
    keys = {"auth": {"token": REAL_SECRET}, "signing_keys": [{"secret": SECRET}]}
    connections = {
        "conn_api": bearer_connection("https://api.tls.test", SECRET),
        "conn_openai": {"preset": "openai"} | keys,
        "conn_anthropic": {"preset": "anthropic"} | keys,
    }
    return module_gateway(
        {"connections": connections}, dns={name: [f"127.0.0.1#{api.tls_port}"] for name in NAMES}
    )


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, proxy: Mitm) -> None:
    """Of the environment, a client here sees what its test puts there, and the gateway's CA."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith(("OPENAI_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(proxy.ca))


def with_password(proxy: Mitm) -> str:
    """The proxy's URL with a user and a password, so that clients send Proxy-Authorization."""
    return proxy.url.replace("http://", "http://client:sk-client-proxy@")


def check_sent(request: Seen, credential: tuple[str, str] = BEARER) -> None:
    """The upstream saw its one real key, under its own name, and nothing of the client's secrets."""
    sent = [(name.lower(), value) for name, value in request.headers if name.lower() in CREDENTIALS]
    assert sent == [credential]
    assert not LEAKS.search(request.raw), request.raw
    assert request.tls
    assert [request.sni] == request.all("host")


# -- curl ---------------------------------------------------------------------------------------------


class Fetched(NamedTuple):
    """What curl wrote."""

    status: int
    version: str
    body: str


def curl(*args: str | Path) -> Fetched:
    baggage = [part for name, value in BAGGAGE.items() for part in ("-H", f"{name}: {value}")]
    argv = ["curl", "-qsS", "--max-time", "20", "-w", "\n%{http_code} %{http_version}", *baggage, *args]
    done = subprocess.run(argv, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    body, _, last = done.stdout.rpartition("\n")
    status, version = last.split()
    return Fetched(int(status), version, body)


CURL_WAYS: dict[str, Callable[[Mitm], tuple[str, ...]]] = {
    "direct gateway URL": lambda proxy: (proxy.url + API.target("v1/models"),),
    "direct https gateway URL": lambda proxy: (
        f"https://127.0.0.1:{proxy.port}{API.target('v1/models')}",
        *("-H", f"Authorization: Bearer {OWN_KEY}"),
    ),
    "gateway URL through -x": lambda proxy: (
        *("-x", with_password(proxy)),
        "http://presign.local" + API.target("v1/models"),
    ),
    "https gateway URL through --proxy": lambda proxy: (
        *("--proxy", with_password(proxy)),
        "https://presign.local" + API.target("v1/models"),
    ),
    "https gateway URL through an https proxy": lambda proxy: (
        *("--proxy", with_password(proxy).replace("http://", "https://")),
        *("--proxy-cacert", str(proxy.ca), "https://presign.local" + API.target("v1/models")),
    ),
    "gateway URL through --proxytunnel": lambda proxy: (
        *("-p", "-x", with_password(proxy)),
        "http://presign.local" + API.target("v1/models"),
    ),
    "the API's own URL with a query": lambda proxy: (
        *("-x", with_password(proxy), "-u", f"client:{OWN_KEY}"),
        f"https://api.tls.test/v1/models?{API.query}",
    ),
    "the API's own URL with a token": lambda proxy: (
        *("-x", with_password(proxy), "-H", f"Authorization: Bearer {API.token}"),
        "https://api.tls.test/v1/models",
    ),
    "the token as Basic's user": lambda proxy: (
        *("-x", with_password(proxy), "-u", f"{API.token}:"),
        "https://api.tls.test/v1/models",
    ),
    "a path token": lambda proxy: (f"{proxy.url}/p/{API.token}/v1/models",),
}


@needs_curl
@pytest.mark.parametrize("way", CURL_WAYS)
def test_curl_reaches_the_api(way: str, proxy: Mitm, api: Recorder) -> None:
    fetched = curl(*CURL_WAYS[way](proxy))
    assert (fetched.status, fetched.body) == (200, '{"ok": true}')
    (request,) = api.wait_for(1)
    assert (request.method, request.target) == ("GET", "/v1/models")
    check_sent(request)


@needs_curl
@pytest.mark.parametrize("host", ["presign.local", "api.tls.test"])
def test_curl_speaks_http2_through_connect(host: str, proxy: Mitm, api: Recorder) -> None:
    target = API.target("v1/models") if host == "presign.local" else f"/v1/models?{API.query}"
    fetched = curl("--http2", "-x", with_password(proxy), f"https://{host}{target}")
    assert (fetched.status, fetched.version, fetched.body) == (200, "2", '{"ok": true}')
    check_sent(*api.wait_for(1))


@needs_curl
def test_curl_speaks_http2_to_the_gateway_itself(proxy: Mitm, api: Recorder) -> None:
    resolve = f"presign.local:{proxy.port}:127.0.0.1"
    url = f"https://presign.local:{proxy.port}{API.target('v1/models')}"
    fetched = curl("--http2", "--resolve", resolve, url)
    assert (fetched.status, fetched.version) == (200, "2"), fetched
    check_sent(*api.wait_for(1))


@needs_curl
def test_curl_offers_h2c_and_is_served_in_http1(proxy: Mitm, api: Recorder) -> None:
    fetched = curl("--http2", proxy.url + API.target("v1/models"))
    assert (fetched.status, fetched.version) == (200, "1.1"), fetched
    (request,) = api.wait_for(1)
    check_sent(request)
    assert not request.all("upgrade") and not request.all("http2-settings")


@needs_curl
@pytest.mark.parametrize(
    "path", ["v1/../admin", "../conn_openai/v1/models", "v1/./models", "v1/%2e%2e/admin"]
)
def test_curl_with_path_as_is_cannot_leave_the_signed_path(path: str, proxy: Mitm, api: Recorder) -> None:
    fetched = curl("--path-as-is", proxy.url + API.target(path))
    assert fetched.status == 403
    assert json.loads(fetched.body)["error"]["code"] == "path_not_allowed"
    assert not api.touched


@needs_curl
@pytest.mark.parametrize("size", [3, 3_000_000])
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_uploads_a_file(size: int, version: str, proxy: Mitm, api: Recorder, tmp_path: Path) -> None:
    data = os.urandom(size)
    (tmp_path / "upload").write_bytes(data)
    url = "https://presign.local" + API.target("v1/files")
    # From a megabyte on, curl waits for 100 Continue.
    fetched = curl(version, "-x", proxy.url, "-T", tmp_path / "upload", url)
    assert fetched.status == 200
    (request,) = api.wait_for(1)
    assert (request.method, request.length) == ("PUT", size)
    assert request.sha256 == hashlib.sha256(data).hexdigest()
    check_sent(request)


@needs_curl
def test_curl_uploads_a_pipe_of_unknown_length(proxy: Mitm, api: Recorder) -> None:
    done = subprocess.run(
        ["curl", "-qsS", "--max-time", "20", "-T", "-", proxy.url + API.target("v1/files")],
        input=b"one two three",
        capture_output=True,
        check=True,
    )
    assert done.stdout == b'{"ok": true}'
    (request,) = api.wait_for(1)
    assert request.body == b"one two three"
    check_sent(request)


@needs_curl
def test_curl_posts_a_form(proxy: Mitm, api: Recorder) -> None:
    assert curl("-F", "file=@/dev/null", "-F", "a=b", proxy.url + API.target("v1/files")).status == 200
    (request,) = api.wait_for(1)
    assert (request.header("content-type") or "").startswith("multipart/form-data; boundary=")
    assert b'name="a"\r\n\r\nb\r\n' in (request.body or b"")


# -- requests and httpx ---------------------------------------------------------------------------------


# Where a request is addressed, and what it carries, for any client that speaks URLs and headers.
PLACES: dict[str, tuple[str, dict[str, str]]] = {
    "gateway, query": ("http://presign.local" + API.target("v1/models"), {}),
    "https gateway, query": ("https://presign.local" + API.target("v1/models"), {}),
    "https gateway, headers": ("https://presign.local/api/proxy/conn_api/v1/models", API.headers),
    "API, query": (f"https://api.tls.test/v1/models?{API.query}", {}),
    "API, headers": ("https://api.tls.test/v1/models", API.headers),
    "API, headers without a name": ("https://api.tls.test/v1/models", API.unnamed),
    "API, token": ("https://api.tls.test/v1/models", {"Authorization": f"Bearer {API.token}"}),
}


@pytest.mark.parametrize("place", PLACES)
def test_requests_reaches_the_api(place: str, proxy: Mitm, api: Recorder) -> None:
    url, headers = PLACES[place]
    proxies = {"http": with_password(proxy), "https": with_password(proxy)}
    own = {"Authorization": f"Bearer {OWN_KEY}", "X-Api-Key": OWN_KEY} | BAGGAGE
    response = requests.get(url, headers=own | headers, proxies=proxies, verify=str(proxy.ca))
    assert (response.status_code, response.json()) == (200, {"ok": True})
    assert response.headers["X-Presign-Request-Id"]
    (request,) = api.wait_for(1)
    assert (request.method, request.target) == ("GET", "/v1/models")
    check_sent(request)


def test_requests_uploads_a_generator(proxy: Mitm, api: Recorder) -> None:
    url = proxy.url + API.target("v1/files")
    assert requests.post(url, data=iter([b"one ", b"two"])).status_code == 200
    (request,) = api.wait_for(1)
    assert request.body == b"one two"
    check_sent(request)


def test_requests_session_keeps_its_connection_between_requests(proxy: Mitm, api: Recorder) -> None:
    with requests.Session() as session:
        for _ in range(3):
            assert session.get(proxy.url + API.target("v1/models"), headers=BAGGAGE).status_code == 200
    for request in api.wait_for(3):
        check_sent(request)
    assert api.connections == 1


class Http2First(ssl.SSLContext):
    """httpx offers `http/1.1, h2`, and mitmproxy takes the first: without this it would speak HTTP/1.1."""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        super().set_alpn_protocols(sorted(alpn_protocols))


def http_options(proxy: Mitm, http2: bool) -> dict[str, Any]:
    own = {"Authorization": f"Bearer {OWN_KEY}"} | BAGGAGE
    trust = Http2First(ssl.PROTOCOL_TLS_CLIENT)
    trust.load_verify_locations(proxy.ca)
    return {"proxy": with_password(proxy), "verify": trust, "http2": http2, "headers": own, "timeout": 20}


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
@pytest.mark.parametrize("place", PLACES)
def test_httpx_reaches_the_api(place: str, http2: bool, proxy: Mitm, api: Recorder) -> None:
    url, headers = PLACES[place]
    with httpx.Client(**http_options(proxy, http2)) as client:
        response = client.get(url, headers=headers)
    expected = "HTTP/2" if http2 and url.startswith("https") else "HTTP/1.1"
    assert (response.status_code, response.http_version) == (200, expected), response.text
    (request,) = api.wait_for(1)
    assert (request.method, request.target) == ("GET", "/v1/models")
    check_sent(request)


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
def test_httpx_sees_each_event_of_a_stream_as_it_happens(http2: bool, proxy: Mitm, api: Recorder) -> None:
    with (
        httpx.Client(**http_options(proxy, http2)) as client,
        client.stream("GET", f"https://api.tls.test/v1/sse?{API.query}") as response,
    ):
        times = [time.monotonic() for line in response.iter_lines() if line.startswith("data:")]
    assert len(times) == 5
    assert times[-1] - times[0] > 0.6  # the upstream takes 0.8 s
    check_sent(*api.wait_for(1))


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
def test_async_httpx_sends_many_requests_at_once(http2: bool, proxy: Mitm, api: Recorder) -> None:
    async def fetch_all() -> list[bytes]:
        async with httpx.AsyncClient(**http_options(proxy, http2)) as client:
            urls = [f"https://presign.local{API.target(f'v1/{n}/echo')}" for n in range(10)]
            return [reply.content for reply in await asyncio.gather(*map(client.get, urls))]

    targets = [json.loads(body)["target"] for body in asyncio.run(fetch_all())]
    assert targets == [f"/v1/{n}/echo" for n in range(10)]
    for request in api.wait_for(10):
        check_sent(request)


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
def test_async_httpx_streams_an_upload(http2: bool, proxy: Mitm, api: Recorder) -> None:
    async def pieces() -> Any:
        for _ in range(20):
            yield b"x" * 50_000

    async def upload() -> int:
        async with httpx.AsyncClient(**http_options(proxy, http2)) as client:
            url = f"https://api.tls.test/v1/files?{API.query}"
            return (await client.post(url, content=pieces())).status_code

    assert asyncio.run(upload()) == 200
    (request,) = api.wait_for(1)
    assert request.length == 1_000_000
    check_sent(request)


# -- the SDKs -----------------------------------------------------------------------------------------


class Sdk(NamedTuple):
    """What tells two SDKs apart."""

    client: Callable[..., Any]
    connection: str
    path: str
    """What its base URL holds after the host."""
    environ: str
    """Prefix of its environment variables."""
    credential: tuple[str, str]
    target: str

    @property
    def grant(self) -> Grant:
        return Grant(self.connection, "POST", self.target[1:])


SDKS = {
    "openai": Sdk(openai.OpenAI, "conn_openai", "/v1", "OPENAI", BEARER, "/v1/chat/completions"),
    "anthropic": Sdk(
        anthropic.Anthropic, "conn_anthropic", "", "ANTHROPIC", ("x-api-key", REAL_SECRET), "/v1/messages"
    ),
}


class Way(NamedTuple):
    """How a user gave an SDK the presign: environment variables, and arguments of its client."""

    env: Mapping[str, str]
    options: Mapping[str, Any]


def _as_lines(headers: dict[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in headers.items())


def _gateway(proxy: Mitm, sdk: Sdk, origin: str) -> str:
    return f"{origin}/api/proxy/{sdk.connection}{sdk.path}"


SDK_WAYS: dict[str, Callable[[Mitm, Sdk], Way]] = {
    "a key and a proxy, and nothing else": lambda proxy, sdk: Way(
        {"HTTPS_PROXY": with_password(proxy), f"{sdk.environ}_API_KEY": sdk.grant.token}, {}
    ),
    "default headers at the real API": lambda proxy, sdk: Way(
        {"HTTPS_PROXY": with_password(proxy)},
        {"api_key": OWN_KEY, "default_headers": BAGGAGE | sdk.grant.headers},
    ),
    "custom headers in the environment": lambda proxy, sdk: Way(
        {
            "HTTPS_PROXY": with_password(proxy),
            f"{sdk.environ}_API_KEY": OWN_KEY,
            f"{sdk.environ}_CUSTOM_HEADERS": _as_lines(BAGGAGE | sdk.grant.headers),
        },
        {},
    ),
    "default query at the real API": lambda proxy, sdk: Way(
        {"HTTPS_PROXY": with_password(proxy)}, {"api_key": OWN_KEY, "default_query": sdk.grant.unnamed}
    ),
    "gateway URL through the proxy": lambda proxy, sdk: Way(
        {"HTTP_PROXY": with_password(proxy)},
        {
            "api_key": OWN_KEY,
            "base_url": _gateway(proxy, sdk, "http://presign.local"),
            "default_headers": BAGGAGE | sdk.grant.headers,
        },
    ),
    "https gateway URL through the proxy": lambda proxy, sdk: Way(
        {"HTTPS_PROXY": with_password(proxy)},
        {
            "api_key": OWN_KEY,
            "base_url": _gateway(proxy, sdk, "https://presign.local"),
            "default_headers": BAGGAGE | sdk.grant.headers,
        },
    ),
    "direct gateway URL": lambda proxy, sdk: Way(
        {},
        {
            "api_key": OWN_KEY,
            "base_url": _gateway(proxy, sdk, proxy.url),
            "default_headers": BAGGAGE | sdk.grant.headers,
        },
    ),
    "direct gateway URL and a key": lambda proxy, sdk: Way(
        {}, {"api_key": sdk.grant.token, "base_url": _gateway(proxy, sdk, proxy.url)}
    ),
    "a token in the base URL": lambda proxy, sdk: Way(
        {}, {"api_key": OWN_KEY, "base_url": f"{proxy.url}/p/{sdk.grant.token}{sdk.path}"}
    ),
}

HELLO: Any = [{"role": "user", "content": "Hello"}]


def make_client(sdk: Sdk, way: Way, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in way.env.items():
        monkeypatch.setenv(name, value)
    return sdk.client(max_retries=0, timeout=20, **way.options)


def complete(client: Any) -> str:
    """Ask for a completion and return its text."""
    if isinstance(client, openai.OpenAI):
        return client.chat.completions.create(model="gpt-4", messages=HELLO).choices[0].message.content or ""
    reply = client.messages.create(model="claude", max_tokens=9, messages=HELLO)
    return str(reply.content[0].text)


def stream(client: Any) -> Iterator[str]:
    """The words of a completion as they come."""
    if isinstance(client, openai.OpenAI):
        for chunk in client.chat.completions.create(model="gpt-4", messages=HELLO, stream=True):
            yield chunk.choices[0].delta.content or ""
    else:
        with client.messages.stream(model="claude", max_tokens=9, messages=HELLO) as events:
            yield from events.text_stream


@pytest.mark.parametrize("way", SDK_WAYS)
@pytest.mark.parametrize("sdk", SDKS.values(), ids=SDKS)
def test_sdk_completes(
    sdk: Sdk, way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_client(sdk, SDK_WAYS[way](proxy, sdk), monkeypatch) as client:
        assert complete(client) == TEXT
    (request,) = api.wait_for(1)
    assert (request.method, request.target) == ("POST", sdk.target)
    assert json.loads(request.body or b"")["messages"] == HELLO
    check_sent(request, sdk.credential)


@pytest.mark.parametrize("way", ["a key and a proxy, and nothing else", "direct gateway URL"])
@pytest.mark.parametrize("sdk", SDKS.values(), ids=SDKS)
def test_sdk_streams_word_by_word(
    sdk: Sdk, way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_client(sdk, SDK_WAYS[way](proxy, sdk), monkeypatch) as client:
        words = [(word, time.monotonic()) for word in stream(client) if word]
    assert "".join(word for word, _ in words) == TEXT
    assert words[-1][1] - words[0][1] > 0.1  # the upstream pauses for 0.15 s
    (request,) = api.wait_for(1)
    check_sent(request, sdk.credential)


@pytest.mark.parametrize("way", SDK_WAYS)
@pytest.mark.parametrize("sdk", SDKS.values(), ids=SDKS)
def test_sdk_raises_its_own_permission_error_with_our_message(
    sdk: Sdk, way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sdk._replace(target="/v1/models")
    errors = (openai.PermissionDeniedError, anthropic.PermissionDeniedError)
    with (
        make_client(other, SDK_WAYS[way](proxy, other), monkeypatch) as client,
        pytest.raises(errors) as info,
    ):
        complete(client)
    error = info.value.response.json()["error"]
    assert error["code"] == info.value.response.headers["X-Presign-Error"] == "path_not_allowed"
    assert error["message"] in str(info.value)
    assert not api.touched


def test_sdk_that_glues_its_path_onto_the_signature_is_refused(proxy: Mitm, api: Recorder) -> None:
    sdk = SDKS["openai"]
    base_url = f"{_gateway(proxy, sdk, proxy.url)}?{sdk.grant.query}"
    with (
        openai.OpenAI(api_key=OWN_KEY, base_url=base_url, max_retries=0) as client,
        pytest.raises(openai.APIStatusError) as info,
    ):
        complete(client)
    assert info.value.status_code in (400, 403)
    assert not api.touched


# -- node ---------------------------------------------------------------------------------------------

FETCH = """
const [url, headers] = process.argv.slice(-2)
const answer = await fetch(url, { method: 'POST', headers: JSON.parse(headers), body: 'hello' })
console.log(answer.status, await answer.text())
"""


def node(*options: str | Path, url: str, headers: dict[str, str], env: dict[str, str]) -> str:
    argv = ["node", *options, "--input-type=module", "-e", FETCH, "--", url, json.dumps(BAGGAGE | headers)]
    done = subprocess.run(argv, env=os.environ | env, capture_output=True, check=False, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_node
@pytest.mark.parametrize("place", [place for place in PLACES if PLACES[place][0].startswith("https")])
def test_node_fetch_reaches_the_api_through_the_proxy(place: str, proxy: Mitm, api: Recorder) -> None:
    url, headers = PLACES[place]
    preload = ("--import", NODE / "proxy_fetch.mjs")
    output = node(*preload, url=url, headers=headers, env={"HTTPS_PROXY": proxy.url})
    assert output == '200 {"ok": true}\n'
    (request,) = api.wait_for(1)
    assert (request.method, request.target, request.body) == ("POST", "/v1/models", b"hello")
    check_sent(request)


@needs_node
def test_node_fetch_reaches_the_api_by_the_gateway_url(proxy: Mitm, api: Recorder) -> None:
    own = {"Authorization": f"Bearer {OWN_KEY}"}
    output = node(url=proxy.url + API.target("v1/models"), headers=own, env={})
    assert output == '200 {"ok": true}\n'
    check_sent(*api.wait_for(1))
