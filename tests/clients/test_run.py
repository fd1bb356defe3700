"""Programs of other people that `presign run` starts: unchanged, with nothing set by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import CLIENT_VARIABLES
from support import git
from support.apis import CA_VARIABLES, Credential, check_sent
from support.lab import REAL_SECRET
from support.llm import TEXT
from support.proxy import _UNWANTED, Mitm
from support.recorder import Recorder
from support.shell import ADDON, MODULE

ANTHROPIC: Credential = ("x-api-key", REAL_SECRET)
GEMINI: Credential = ("x-goog-api-key", REAL_SECRET)
VIA = ("base-url", "proxy")


def started(proxy: Mitm, *arguments: str, base: str = "", cwd: Path | None = None, **env: str) -> str:
    """What a program printed that was run with keys for these connections."""
    unwanted = (*_UNWANTED, *CLIENT_VARIABLES, *CA_VARIABLES, "JAVA_TOOL_OPTIONS")
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(unwanted)}
    argv = [*MODULE, "run", "--config", str(proxy.config), "--base", base or proxy.url, "--ca", str(proxy.ca)]
    done = subprocess.run(
        [*argv, *arguments],
        capture_output=True,
        cwd=cwd,
        text=True,
        timeout=120,
        env=kept | {"PYTHONPATH": str(ADDON)} | env,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(script: str) -> tuple[str, ...]:
    return ("--", sys.executable, "-c", script)


# -- curl and git -------------------------------------------------------------------------------------------


@pytest.mark.needs("curl")
@pytest.mark.parametrize(
    ("via", "url"), [("proxy", "https://api.openai.com/v1/models"), ("base-url", "$OPENAI_BASE_URL/models")]
)
def test_curl_sends_the_key_of_its_environment(via: str, url: str, proxy: Mitm, api: Recorder) -> None:
    script = f'curl -qsSf -H "Authorization: Bearer $OPENAI_API_KEY" "{url}"'
    assert started(proxy, "conn_openai", "--via", via, "--", "sh", "-c", script) == '{"ok": true}'
    (request,) = api.wait_for(1)
    assert (request.method, request.target) == ("GET", "/v1/models")
    check_sent(request)


@pytest.mark.needs("curl")
def test_the_rest_of_the_world_is_trusted_as_before(
    proxy: Mitm, tls_upstream: Recorder, ca_pem: Path
) -> None:
    """A variable that named the gateway's authority alone would cut a program off from everything else."""
    script = f"curl -qsSf https://localhost:{tls_upstream.tls_port}/v1/models"
    env = {"CURL_CA_BUNDLE": str(ca_pem)}
    started(proxy, "conn_openai", "--via", "proxy", "--", "sh", "-c", script, **env)
    (request,) = tls_upstream.wait_for(1)
    assert request.tls
    assert b"presign" not in request.raw


@pytest.mark.needs("git")
def test_git_clones(proxy: Mitm, api: Recorder, tmp_path: Path) -> None:
    script = 'git clone --quiet "https://x-access-token:$GIT_TOKEN@github.com/o/r.git" clone'
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    env = ("--env", "GIT_TOKEN")
    started(proxy, "conn_git", *env, "--", "sh", "-c", script, cwd=tmp_path, **quiet)
    assert git.run("-C", tmp_path / "clone", "log", "--format=%s").split() == ["first"]
    assert api.requests
    assert not [request for request in api.requests if b"ps2_" in request.everything]


# -- Python -------------------------------------------------------------------------------------------------

LIBRARIES = {
    "urllib": """
import os, urllib.request
ask = urllib.request.Request(URL, headers={"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
print(urllib.request.urlopen(ask).read().decode())
""",
    "requests": """
import os, requests
print(requests.get(URL, headers={"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}).text)
""",
    "httpx": """
import os, httpx
print(httpx.get(URL, headers={"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}).text)
""",
}
PLACES = {
    "proxy": "'https://api.openai.com/v1/models'",
    "base-url": "os.environ['OPENAI_BASE_URL'] + '/models'",
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("via", VIA)
def test_python_libraries_send_the_key_of_their_environment(
    via: str, library: str, proxy: Mitm, api: Recorder
) -> None:
    script = LIBRARIES[library].replace("URL", PLACES[via], 1)
    assert started(proxy, "conn_openai", "--via", via, *python(script)) == '{"ok": true}\n'
    check_sent(*api.wait_for(1))


SDKS: dict[str, tuple[str, str, tuple[Credential, ...]]] = {
    "openai": (
        "conn_openai",
        """
from openai import OpenAI
ask = [{"role": "user", "content": "Hello"}]
print(OpenAI().chat.completions.create(model="gpt-4", messages=ask).choices[0].message.content)
""",
        (),
    ),
    "anthropic": (
        "conn_anthropic",
        """
from anthropic import Anthropic
ask = [{"role": "user", "content": "Hello"}]
print(Anthropic().messages.create(model="claude", max_tokens=9, messages=ask).content[0].text)
""",
        (ANTHROPIC,),
    ),
    "google-genai": (
        "conn_gemini",
        """
from google import genai
client = genai.Client()
print(client.models.generate_content(model="gemini", contents="Hello").text)
""",
        (GEMINI,),
    ),
}


@pytest.mark.parametrize("sdk", SDKS)
@pytest.mark.parametrize("via", VIA)
def test_sdks_of_python_are_told_nothing(via: str, sdk: str, proxy: Mitm, api: Recorder) -> None:
    connection, script, credential = SDKS[sdk]
    assert started(proxy, connection, "--via", via, *python(script)) == f"{TEXT}\n"
    check_sent(*api.wait_for(1), *credential)


def test_one_program_uses_several_connections(proxy: Mitm, api: Recorder) -> None:
    script = SDKS["openai"][1] + SDKS["anthropic"][1]
    assert started(proxy, "conn_openai", "conn_anthropic", *python(script)) == f"{TEXT}\n{TEXT}\n"
    first, second = api.wait_for(2)
    check_sent(first)
    check_sent(second, ANTHROPIC)


# -- node ---------------------------------------------------------------------------------------------------


@pytest.mark.needs("node")
def test_fetch_of_any_node_reaches_the_gateway(proxy: Mitm, api: Recorder) -> None:
    """Before Node 24, fetch reads no proxy variable: the base URL is what works."""
    script = """
    const headers = { authorization: `Bearer ${process.env.OPENAI_API_KEY}` }
    fetch(`${process.env.OPENAI_BASE_URL}/models`, { headers }).then(async (r) => console.log(await r.text()))
    """
    assert started(proxy, "conn_openai", "--", "node", "-e", script) == '{"ok": true}\n'
    check_sent(*api.wait_for(1))


@pytest.mark.needs("node")
def test_https_of_node_trusts_a_gateway_with_tls(proxy: Mitm, api: Recorder) -> None:
    script = """
    const headers = { authorization: `Bearer ${process.env.OPENAI_API_KEY}` }
    require('https').get(`${process.env.OPENAI_BASE_URL}/models`, { headers }, (answer) => {
      answer.on('data', (data) => console.log(String(data)))
    })
    """
    base = proxy.url.replace("http://127.0.0.1", "https://localhost")
    assert started(proxy, "conn_openai", "--", "node", "-e", script, base=base) == '{"ok": true}\n'
    check_sent(*api.wait_for(1))


# -- Java ---------------------------------------------------------------------------------------------------

JAVA = """
import java.net.*;
import java.net.http.*;

public class Ask {
  public static void main(String[] args) throws Exception {
    String key = "Bearer " + System.getenv("OPENAI_API_KEY");
    URI place = URI.create("https://api.openai.com/v1/models");
    HttpRequest ask = HttpRequest.newBuilder(place).header("Authorization", key).build();
    System.out.println(HttpClient.newHttpClient().send(ask, HttpResponse.BodyHandlers.ofString()).body());
    URLConnection old = place.toURL().openConnection();
    old.setRequestProperty("Authorization", key);
    System.out.println(new String(old.getInputStream().readAllBytes()));
  }
}
"""


@pytest.mark.needs("javac")
def test_java_reads_its_trust_store_and_its_proxy(proxy: Mitm, api: Recorder, tmp_path: Path) -> None:
    (tmp_path / "Ask.java").write_text(JAVA)
    printed = started(proxy, "conn_openai", "--via", "proxy", "--", "java", str(tmp_path / "Ask.java"))
    assert printed == '{"ok": true}\n' * 2
    for request in api.wait_for(2):
        check_sent(request)
