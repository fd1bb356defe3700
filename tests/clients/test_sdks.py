"""The SDKs of OpenAI, Anthropic and Google, unchanged, through a real gateway."""

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import anthropic
import openai
import pytest
import requests
from google import genai
from google.genai.errors import ClientError

from support.apis import BAGGAGE, BEARER, OWN_KEY, Credential, check_sent, trust_only, with_password
from support.asking import Grant
from support.lab import REAL_SECRET
from support.llm import TEXT
from support.proxy import Mitm
from support.recorder import Recorder

HELLO: Any = [{"role": "user", "content": "Hello"}]
Client = Any


@dataclass(frozen=True)
class Sdk(ABC):
    """One SDK: where its requests go, what its variables are called, and how a user calls it."""

    connection: str
    target: str
    credential: Credential
    key: str
    base_url: str
    """The variables for the API key and for the base URL."""
    path: str = ""
    """What its base URL holds after the host."""
    streamed: str = ""
    """The target of a stream, where it is another."""

    @property
    def grant(self) -> Grant:
        paths = {target.partition("?")[0] for target in (self.target, self.streamed) if target}
        return Grant(self.connection, "POST", ",".join(sorted(path[1:] for path in paths)))

    @abstractmethod
    def client(self, **options: Any) -> Client: ...

    @abstractmethod
    def complete(self, client: Client) -> str: ...

    @abstractmethod
    def stream(self, client: Client) -> Iterator[str]: ...

    @abstractmethod
    def stream_async(self) -> AsyncIterator[str]:
        """With the asynchronous client, made from the environment alone."""


class OpenAI(Sdk):
    def client(self, **options: Any) -> Client:
        return openai.OpenAI(**options)

    def complete(self, client: Client) -> str:
        return str(client.chat.completions.create(model="gpt-4", messages=HELLO).choices[0].message.content)

    def stream(self, client: Client) -> Iterator[str]:
        for chunk in client.chat.completions.create(model="gpt-4", messages=HELLO, stream=True):
            yield chunk.choices[0].delta.content or ""

    async def stream_async(self) -> AsyncIterator[str]:
        async with openai.AsyncOpenAI() as client:
            chunks = await client.chat.completions.create(model="gpt-4", messages=HELLO, stream=True)
            async for chunk in chunks:
                yield chunk.choices[0].delta.content or ""


class Anthropic(Sdk):
    def client(self, **options: Any) -> Client:
        return anthropic.Anthropic(**options)

    def complete(self, client: Client) -> str:
        return str(client.messages.create(model="claude", max_tokens=9, messages=HELLO).content[0].text)

    def stream(self, client: Client) -> Iterator[str]:
        with client.messages.stream(model="claude", max_tokens=9, messages=HELLO) as events:
            yield from events.text_stream

    async def stream_async(self) -> AsyncIterator[str]:
        async with (
            anthropic.AsyncAnthropic() as client,
            client.messages.stream(model="claude", max_tokens=9, messages=HELLO) as events,
        ):
            async for word in events.text_stream:
                yield word


class Google(Sdk):
    def client(self, **options: Any) -> Client:
        names = {"base_url": "base_url", "default_headers": "headers"}
        http = {names[name]: value for name, value in options.items() if name in names}
        return genai.Client(api_key=options.get("api_key"), http_options=http or None)

    def complete(self, client: Client) -> str:
        return str(client.models.generate_content(model="gemini", contents="Hello").text)

    def stream(self, client: Client) -> Iterator[str]:
        for chunk in client.models.generate_content_stream(model="gemini", contents="Hello"):
            yield chunk.text

    async def stream_async(self) -> AsyncIterator[str]:
        async with genai.Client().aio as client:
            chunks = await client.models.generate_content_stream(model="gemini", contents="Hello")
            async for chunk in chunks:
                yield chunk.text or ""


SDKS: dict[str, Sdk] = {
    "openai": OpenAI(
        "conn_openai", "/v1/chat/completions", BEARER, "OPENAI_API_KEY", "OPENAI_BASE_URL", path="/v1"
    ),
    "anthropic": Anthropic(
        "conn_anthropic",
        "/v1/messages",
        ("x-api-key", REAL_SECRET),
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
    ),
    "google": Google(
        "conn_gemini",
        "/v1/models/gemini:generateContent",
        ("x-goog-api-key", REAL_SECRET),
        "GEMINI_API_KEY",
        "GOOGLE_GEMINI_BASE_URL",
        streamed="/v1/models/gemini:streamGenerateContent?alt=sse",
    ),
}


class Way(NamedTuple):
    """How a user gave an SDK the presign: environment variables, and arguments of its client."""

    env: Mapping[str, str]
    options: Mapping[str, Any]


def _as_lines(headers: dict[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in headers.items())


def _gateway(sdk: Sdk, origin: str) -> str:
    return f"{origin}/api/proxy/{sdk.connection}{sdk.path}"


def _path_token(sdk: Sdk, origin: str) -> str:
    return f"{origin}/p/{sdk.grant.token}{sdk.path}"


# Nothing but the environment of a program that nobody changed.
ENV_WAYS: dict[str, Callable[[Mitm, Sdk], Mapping[str, str]]] = {
    "a key and a proxy": lambda proxy, sdk: {"HTTPS_PROXY": with_password(proxy), sdk.key: sdk.grant.token},
    "a token in the base URL": lambda proxy, sdk: {
        sdk.base_url: _path_token(sdk, proxy.url),
        sdk.key: OWN_KEY,
    },
    "a token in the base URL, through the proxy": lambda proxy, sdk: {
        "HTTPS_PROXY": with_password(proxy),
        sdk.base_url: _path_token(sdk, "https://presign.local") + "/",
        sdk.key: OWN_KEY,
    },
    "a gateway URL and a key": lambda proxy, sdk: {
        sdk.base_url: _gateway(sdk, proxy.url),
        sdk.key: sdk.grant.token,
    },
}

SDK_WAYS: dict[str, Callable[[Mitm, Sdk], Way]] = {
    "default headers at the real API": lambda proxy, sdk: Way(
        {"HTTPS_PROXY": with_password(proxy)},
        {"api_key": OWN_KEY, "default_headers": BAGGAGE | sdk.grant.headers},
    ),
    "gateway URL through the proxy": lambda proxy, sdk: Way(
        {"HTTP_PROXY": with_password(proxy)},
        {
            "api_key": OWN_KEY,
            "base_url": _gateway(sdk, "http://presign.local"),
            "default_headers": BAGGAGE | sdk.grant.headers,
        },
    ),
    "https gateway URL through the proxy": lambda proxy, sdk: Way(
        {"HTTPS_PROXY": with_password(proxy)},
        {
            "api_key": OWN_KEY,
            "base_url": _gateway(sdk, "https://presign.local"),
            "default_headers": BAGGAGE | sdk.grant.headers,
        },
    ),
    "direct gateway URL": lambda proxy, sdk: Way(
        {},
        {
            "api_key": OWN_KEY,
            "base_url": _gateway(sdk, proxy.url),
            "default_headers": BAGGAGE | sdk.grant.headers,
        },
    ),
    "direct gateway URL and a key": lambda proxy, sdk: Way(
        {}, {"api_key": sdk.grant.token, "base_url": _gateway(sdk, proxy.url)}
    ),
    "a token in the base URL": lambda proxy, sdk: Way(
        {}, {"api_key": OWN_KEY, "base_url": _path_token(sdk, proxy.url)}
    ),
}
# What the SDKs of OpenAI and Anthropic have in common, and Google's has not.
STAINLESS_WAYS: dict[str, Callable[[Mitm, Sdk], Way]] = {
    "custom headers in the environment": lambda proxy, sdk: Way(
        {
            "HTTPS_PROXY": with_password(proxy),
            sdk.key: OWN_KEY,
            sdk.key.replace("API_KEY", "CUSTOM_HEADERS"): _as_lines(BAGGAGE | sdk.grant.headers),
        },
        {},
    ),
    "default query at the real API": lambda proxy, sdk: Way(
        {"HTTPS_PROXY": with_password(proxy)}, {"api_key": OWN_KEY, "default_query": sdk.grant.unnamed}
    ),
}


@pytest.fixture(autouse=True)
def trust(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    trust_only("SSL_CERT_FILE", monkeypatch)


@pytest.fixture(params=SDKS)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    return SDKS[request.param]


def prepare(monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str]) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)


def check_completes(sdk: Sdk, api: Recorder, options: Mapping[str, Any]) -> None:
    with sdk.client(**options) as client:
        assert sdk.complete(client) == TEXT
    (request,) = api.wait_for(1)
    assert (request.method, request.target) == ("POST", sdk.target)
    assert "Hello" in (request.body or b"").decode()
    check_sent(request, sdk.credential)


def check_streamed(sdk: Sdk, api: Recorder, words: list[tuple[str, float]]) -> None:
    """The words came one by one, each with its time."""
    assert "".join(word for word, _ in words) == TEXT
    assert words[-1][1] - words[0][1] > 0.1  # the upstream pauses for 0.5 s
    (request,) = api.wait_for(1)
    assert request.target == (sdk.streamed or sdk.target)
    check_sent(request, sdk.credential)


@pytest.mark.parametrize("way", ENV_WAYS)
def test_sdk_completes_with_nothing_but_its_environment(
    sdk: Sdk, way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch, ENV_WAYS[way](proxy, sdk))
    check_completes(sdk, api, {})


@pytest.mark.parametrize("way", SDK_WAYS)
def test_sdk_completes_with_arguments_of_its_client(
    sdk: Sdk, way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, options = SDK_WAYS[way](proxy, sdk)
    prepare(monkeypatch, env)
    check_completes(sdk, api, options)


@pytest.mark.parametrize("way", STAINLESS_WAYS)
@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_sdk_completes_with_headers_and_parameters_of_its_own(
    name: str, way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = SDKS[name]
    env, options = STAINLESS_WAYS[way](proxy, sdk)
    prepare(monkeypatch, env)
    check_completes(sdk, api, options)


@pytest.mark.parametrize("way", ENV_WAYS)
def test_sdk_streams_word_by_word(
    sdk: Sdk, way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch, ENV_WAYS[way](proxy, sdk))
    with sdk.client() as client:
        words = [(word, time.monotonic()) for word in sdk.stream(client) if word]
    check_streamed(sdk, api, words)


@pytest.mark.parametrize("way", ["a key and a proxy", "a token in the base URL"])
def test_async_sdk_streams_word_by_word(
    sdk: Sdk, way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def collect() -> list[tuple[str, float]]:
        return [(word, time.monotonic()) async for word in sdk.stream_async() if word]

    prepare(monkeypatch, ENV_WAYS[way](proxy, sdk))
    check_streamed(sdk, api, asyncio.run(collect()))


@pytest.mark.parametrize("way", ["a key and a proxy", "a token in the base URL"])
def test_sdk_raises_its_own_permission_error_with_our_message(
    sdk: Sdk, way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = type(sdk)(sdk.connection, "/v1/models", sdk.credential, sdk.key, sdk.base_url, sdk.path)
    prepare(monkeypatch, ENV_WAYS[way](proxy, other))
    errors = (openai.PermissionDeniedError, anthropic.PermissionDeniedError, ClientError)
    with sdk.client() as client, pytest.raises(errors) as info:
        sdk.complete(client)
    response: Any = info.value.response
    error = response.json()["error"]
    assert response.status_code == 403
    assert error["code"] == response.headers["X-Presign-Error"] == "path_not_allowed"
    assert error["message"] in str(info.value)
    assert not api.touched


# -- one SDK's own ways --------------------------------------------------------------------------------


def test_openai_that_glues_its_path_onto_the_signature_is_refused(proxy: Mitm, api: Recorder) -> None:
    sdk = SDKS["openai"]
    base_url = f"{_gateway(sdk, proxy.url)}?{sdk.grant.query}"
    with (
        openai.OpenAI(api_key=OWN_KEY, base_url=base_url) as client,
        pytest.raises(openai.APIStatusError) as info,
    ):
        sdk.complete(client)
    assert info.value.status_code in (400, 403)
    assert not api.touched


def test_anthropic_with_the_token_as_auth_token(
    proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = SDKS["anthropic"]
    prepare(monkeypatch, {"HTTPS_PROXY": with_password(proxy), "ANTHROPIC_AUTH_TOKEN": sdk.grant.token})
    check_completes(sdk, api, {})


def test_google_prefers_its_other_variable(
    proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = SDKS["google"]
    prepare(monkeypatch, {"HTTPS_PROXY": with_password(proxy), "GOOGLE_API_KEY": sdk.grant.token})
    check_completes(sdk, api, {})


def test_google_key_in_a_header_for_an_api_that_takes_it_as_a_parameter(
    proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = Grant("conn_gemini_query")
    base_url = f"{proxy.url}/p/{grant.token}"
    prepare(monkeypatch, {"GEMINI_API_KEY": OWN_KEY, "GOOGLE_GEMINI_BASE_URL": base_url})
    with genai.Client() as client:
        words = [(word, time.monotonic()) for word in SDKS["google"].stream(client) if word]
    assert "".join(word for word, _ in words) == TEXT
    (request,) = api.wait_for(1)
    assert request.target == f"/v1/models/gemini:streamGenerateContent?alt=sse&key={REAL_SECRET}"
    check_sent(request, ("?key", REAL_SECRET))


def test_google_key_as_a_parameter_as_its_old_examples_have_it(
    proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", with_password(proxy))
    url = "https://generativelanguage.googleapis.com/v1beta/models/gemini:generateContent"
    key = Grant("conn_gemini_query", "POST").token
    query = {"key": key, "alt": "json"}
    response = requests.post(url, params=query, json={}, headers=BAGGAGE, verify=str(proxy.ca))
    assert response.status_code == 200
    (request,) = api.wait_for(1)
    assert request.target.partition("?")[2] == f"alt=json&key={REAL_SECRET}"
    check_sent(request, ("?key", REAL_SECRET))


def test_openai_uploads_a_file(proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    grant = Grant("conn_openai", "POST", "v1/files")
    prepare(monkeypatch, {"HTTPS_PROXY": with_password(proxy), "OPENAI_API_KEY": grant.token})
    with openai.OpenAI() as client:
        client.files.create(file=("data.jsonl", b'{"a": 1}\n' * 1000), purpose="batch")
    (request,) = api.wait_for(1)
    assert (request.body or b"").count(b'{"a": 1}\n') == 1000
    check_sent(request)


def test_two_requests_of_one_client_each_carry_the_token(
    sdk: Sdk, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch, ENV_WAYS["a key and a proxy"](proxy, sdk))
    with sdk.client() as client:
        assert [sdk.complete(client), sdk.complete(client)] == [TEXT, TEXT]
    for request in api.wait_for(2):
        check_sent(request, sdk.credential)
        assert json.loads(request.body or b"")
