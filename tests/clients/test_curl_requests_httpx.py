"""Real clients, unchanged, through a real proxy, to an API that takes its one real key over TLS."""

import asyncio
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import requests

from support.apis import API, BAGGAGE, OWN_KEY, PLACES, check_sent, trust_only, with_password
from support.asking import Grant
from support.http2_first import http2_first
from support.llm import WORDS
from support.proxy import Mitm
from support.recorder import Recorder

pytestmark = pytest.mark.usefixtures("environment")
needs_curl = pytest.mark.needs("curl")


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
        ["curl", "-qsS", "--max-time", "20", "-T", "-", proxy.url + API.target("v1/pipes")],
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


# A line of somebody's script, and the environment that makes it work.
CHAT = (
    'curl -qsSN "${OPENAI_BASE_URL:-https://api.openai.com/v1}/chat/completions" '
    '-H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" '
    """-d '{"model": "gpt-4", "stream": true, "messages": []}'"""
)
CHAT_GRANT = Grant("conn_openai", "POST", "v1/chat/completions")
CHAT_WAYS: dict[str, Callable[[Mitm], dict[str, str]]] = {
    "a key and a proxy": lambda proxy: {
        "HTTPS_PROXY": with_password(proxy),
        "OPENAI_API_KEY": CHAT_GRANT.token,
    },
    "a token in the base URL": lambda proxy: {
        "OPENAI_BASE_URL": f"{proxy.url}/p/{CHAT_GRANT.token}/v1",
        "OPENAI_API_KEY": OWN_KEY,
    },
}


@needs_curl
@pytest.mark.parametrize("way", CHAT_WAYS)
def test_curl_prints_each_event_of_a_stream_as_it_happens(
    way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust_only("CURL_CA_BUNDLE", monkeypatch)
    with subprocess.Popen(
        ["sh", "-c", CHAT], env=os.environ | CHAT_WAYS[way](proxy), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        events = [(line, time.monotonic()) for line in process.stdout if line.startswith("data:")]
    assert [word for word in WORDS for line, _ in events if f'"{word}"' in line] == list(WORDS)
    assert events[1][1] - events[0][1] > 0.1  # the upstream pauses for 0.5 s
    (request,) = api.wait_for(1)
    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    check_sent(request)


# -- requests and httpx ---------------------------------------------------------------------------------


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


def test_requests_with_nothing_but_its_environment(
    proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", with_password(proxy))
    headers = {"Authorization": f"Bearer {API.token}"} | BAGGAGE
    with requests.get("https://api.tls.test/v1/sse", headers=headers, stream=True) as response:
        times = [time.monotonic() for line in response.iter_lines(16) if line.startswith(b"data:")]
    assert len(times) == 5
    assert times[-1] - times[0] > 0.5  # the upstream takes 0.8 s
    check_sent(*api.wait_for(1))


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
    assert api.connections <= 1  # the gateway keeps connections for whoever comes next


def http_options(proxy: Mitm, http2: bool) -> dict[str, Any]:
    own = {"Authorization": f"Bearer {OWN_KEY}"} | BAGGAGE
    trust = http2_first(proxy.ca)
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
