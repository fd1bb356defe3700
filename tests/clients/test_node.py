"""Node, its fetch and the SDK of OpenAI, through a real gateway."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from support.apis import API, BAGGAGE, OWN_KEY, PLACES, check_sent, trust_only, with_password
from support.asking import Grant
from support.llm import TEXT, WORDS
from support.places import TESTS
from support.programs import find
from support.proxy import Mitm
from support.recorder import Recorder

NODE = TESTS / "support" / "node"
PROGRAM, CHANGED, PRELOAD = NODE / "chat.mjs", NODE / "chat_by_code.mjs", NODE / "env_proxy.mjs"
GRANT = Grant("conn_openai", "POST", "v1/chat/completions")


def _version() -> tuple[int, ...]:
    if not find("node"):
        return (0,)
    printed = subprocess.run(["node", "--version"], capture_output=True, check=False, text=True).stdout
    return tuple(map(int, printed.strip().removeprefix("v").split("."))) if printed else (0,)


VERSION = _version()
pytestmark = pytest.mark.needs("node")
needs_packages = pytest.mark.needs("node packages")
# From Node 24 on, and in late versions of 22, fetch honours HTTPS_PROXY when it is told to.
needs_env_proxy = pytest.mark.skipif(
    (0,) < VERSION < (22, 21) or (23,) <= VERSION < (24,), reason="this node has no NODE_USE_ENV_PROXY"
)


@pytest.fixture(autouse=True)
def trust(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    trust_only("NODE_EXTRA_CA_CERTS", monkeypatch)


# -- fetch --------------------------------------------------------------------------------------------

FETCH = """
const [url, headers] = process.argv.slice(-2)
const answer = await fetch(url, { method: 'POST', headers: JSON.parse(headers), body: 'hello' })
console.log(answer.status, await answer.text())
"""


def fetch(*options: str | Path, url: str, headers: dict[str, str], env: dict[str, str]) -> str:
    argv = ["node", *options, "--input-type=module", "-e", FETCH, "--", url, json.dumps(BAGGAGE | headers)]
    done = subprocess.run(argv, env=os.environ | env, capture_output=True, check=False, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("place", [place for place in PLACES if PLACES[place][0].startswith("https")])
def test_node_fetch_reaches_the_api_through_the_proxy(place: str, proxy: Mitm, api: Recorder) -> None:
    url, headers = PLACES[place]
    preload = ("--import", NODE / "proxy_fetch.mjs")
    output = fetch(*preload, url=url, headers=headers, env={"HTTPS_PROXY": proxy.url})
    assert output == '200 {"ok": true}\n'
    (request,) = api.wait_for(1)
    assert (request.method, request.target, request.body) == ("POST", "/v1/models", b"hello")
    check_sent(request)


def test_node_fetch_reaches_the_api_by_the_gateway_url(proxy: Mitm, api: Recorder) -> None:
    own = {"Authorization": f"Bearer {OWN_KEY}"}
    output = fetch(url=proxy.url + API.target("v1/models"), headers=own, env={})
    assert output == '200 {"ok": true}\n'
    check_sent(*api.wait_for(1))


# -- the SDK of OpenAI ----------------------------------------------------------------------------------


def _key(proxy: Mitm) -> dict[str, str]:
    return {"HTTPS_PROXY": with_password(proxy), "OPENAI_API_KEY": GRANT.token}


def _base_url(origin: str) -> dict[str, str]:
    return {"OPENAI_BASE_URL": f"{origin}/p/{GRANT.token}/v1", "OPENAI_API_KEY": OWN_KEY}


# How the program is started; but for the last, it is a program that nobody changed.
WAYS: dict[str, tuple[Path, Callable[[Mitm], Mapping[str, str]]]] = {
    "a token in the base URL": (PROGRAM, lambda proxy: _base_url(proxy.url)),
    "a token in the base URL, through the proxy": (
        PROGRAM,
        lambda proxy: (
            _base_url("https://presign.local")
            | {"HTTPS_PROXY": with_password(proxy), "NODE_OPTIONS": f"--import={PRELOAD}"}
        ),
    ),
    "a key and a proxy, with a preloaded agent": (
        PROGRAM,
        lambda proxy: _key(proxy) | {"NODE_OPTIONS": f"--import={PRELOAD}"},
    ),
    "a key and a proxy, by code": (CHANGED, _key),
}


def chat(program: Path, env: Mapping[str, str], *args: str) -> list[tuple[str, float]]:
    """The lines that the program printed, each with its time."""
    argv = ["node", program, *args]
    with subprocess.Popen(
        argv, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        lines = [(line.rstrip("\n"), time.monotonic()) for line in process.stdout]
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    return lines


def check_streamed(api: Recorder, lines: list[tuple[str, float]]) -> None:
    assert [word for word, _ in lines] == list(WORDS)
    assert lines[-1][1] - lines[0][1] > 0.1  # the upstream pauses for 0.5 s
    check_sent(*api.wait_for(1))


@needs_packages
@pytest.mark.parametrize("way", WAYS)
def test_node_openai_streams_word_by_word(way: str, proxy: Mitm, api: Recorder) -> None:
    program, env = WAYS[way]
    check_streamed(api, chat(program, env(proxy), "stream"))


@needs_packages
@pytest.mark.parametrize("way", [way for way in WAYS if WAYS[way][0] == PROGRAM])
def test_node_openai_completes(way: str, proxy: Mitm, api: Recorder) -> None:
    program, env = WAYS[way]
    assert [line for line, _ in chat(program, env(proxy))] == [TEXT]
    check_sent(*api.wait_for(1))


@needs_packages
@needs_env_proxy
def test_node_openai_with_nothing_but_its_environment(proxy: Mitm, api: Recorder) -> None:
    check_streamed(api, chat(PROGRAM, _key(proxy) | {"NODE_USE_ENV_PROXY": "1"}, "stream"))
