"""The published recipes, unedited: proxy, CA and a missing package come from outside."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.gateways import MakeGateway
from support.lab import REAL_SECRET, bearer_connection
from support.places import TESTS
from support.proxy import Mitm
from support.recorder import Recorder

RECIPES = TESTS / "data" / "recipes"
NODE = TESTS / "support" / "node"
BODY = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hello"}]}

# SHA-256 of each recipe as published, cut at the headings that the seed's text glues to it. The seed has
# lost all indentation; in presign.py, where it matters, the indentation and nothing else was put back.
PUBLISHED = {
    "presign.js": "620044163a03b9518da408ae4fcc87064757c1aab7755ab9bec4654808f778fc",
    "presign.py": "59e4c4378ba726e7f62f3403b69890e530381b1ed308f8ff9d70c214fdc33644",
    "presign.sh": "063bec5b47548bfc1784d2967565c3b76c794808fbca08a2235d1a4fbc3ca3cf",
    "source.ts": "f200b2b7378c249a7caca7c852046be59e99cfadbd060f4ad3cc8c99cabb6bc8",
}

needs_node = pytest.mark.needs("node")
needs_bash = pytest.mark.needs("bash", "curl", "openssl")


@pytest.fixture(scope="module")
def recipe_gateway(module_gateway: MakeGateway, upstream: Recorder) -> Mitm:
    """Knows the ids and secrets in the recipes. `presign.click` does not resolve here, nor need it."""
    source = {
        "scheme": "source",
        "mode": "signed",
        "allowed_origins": [f"http://img.lab.test:{upstream.port}"],
        "allow_networks": ["127.0.0.0/8"],
        "formats": ["png"],
        "ports": [upstream.port],
        "signing_keys": [{"secret": "sk_your_motion_secret"}],
    }
    presign = bearer_connection(upstream.url, "sk_your_secret")
    presign["signing_keys"][0]["weak"] = True
    config = {
        "gateway": {"hosts": ["presign.click", "motioness.com"]},
        "connections": {"conn_your_id": presign, "pk_your_project": source},
    }
    return module_gateway(config, dns={"img.lab.test": ["127.0.0.1"]})


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_is_the_published_one(name: str) -> None:
    lines = (RECIPES / name).read_bytes().split(b"\n")
    text = b"\n".join(line.lstrip(b" ") for line in lines)
    assert hashlib.sha256(text).hexdigest() == PUBLISHED[name]


@needs_node
def test_javascript_recipe_reaches_the_upstream(recipe_gateway: Mitm, upstream: Recorder) -> None:
    run(recipe_gateway, "node", "--import", NODE / "proxy_fetch.mjs", RECIPES / "presign.js")
    check_chat_request(upstream)


def test_python_recipe_reaches_the_upstream(recipe_gateway: Mitm, upstream: Recorder) -> None:
    run(recipe_gateway, sys.executable, RECIPES / "presign.py")
    check_chat_request(upstream)


@needs_bash
def test_bash_recipe_reaches_the_upstream(recipe_gateway: Mitm, upstream: Recorder) -> None:
    output = run(recipe_gateway, "bash", RECIPES / "presign.sh")
    assert json.loads(output) == {"ok": True}
    check_chat_request(upstream)


@needs_node
def test_source_recipe_is_fetched(recipe_gateway: Mitm, upstream: Recorder, tmp_path: Path) -> None:
    # Node 20 does not strip types: the annotations and the two `!` go, all else is the recipe's own text.
    typed = (RECIPES / "source.ts").read_text("utf-8")
    (tmp_path / "recipe.mjs").write_text(re.sub(r": string\b|!(?=;)", "", typed))
    package = tmp_path / "node_modules" / "@motioness" / "proxy-client"
    package.mkdir(parents=True)
    shutil.copy(NODE / "proxy_client.mjs", package / "index.mjs")
    (package / "package.json").write_text('{"name": "@motioness/proxy-client", "exports": "./index.mjs"}')
    (tmp_path / "use.mjs").write_text(
        "import { motionessSignedUrl } from './recipe.mjs'\n"
        "const answer = await fetch(motionessSignedUrl(process.argv[2]))\n"
        "console.log(answer.status, await answer.text())\n"
    )
    env = {"MOTIONESS_PROJECT_KEY": "pk_your_project", "MOTIONESS_SIGNING_SECRET": "sk_your_motion_secret"}
    src = f"http://img.lab.test:{upstream.port}/a/café.png?w=1&h=%202"
    output = run(
        recipe_gateway, "node", "--import", NODE / "proxy_fetch.mjs", tmp_path / "use.mjs", src, **env
    )
    assert output == '200 {"ok": true}\n'
    (request,) = upstream.wait_for(1)
    assert (request.method, request.target) == ("GET", "/a/caf%C3%A9.png?w=1&h=%202")


def run(gateway: Mitm, *argv: str | Path, **extra: str) -> str:
    """Run a recipe the way its reader would: with the proxy and its CA in the environment."""
    proxy = {"HTTPS_PROXY": gateway.url, "HTTP_PROXY": gateway.url}
    trust = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE")
    inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    env = inherited | proxy | dict.fromkeys(trust, str(gateway.ca)) | extra
    done = subprocess.run(
        [str(arg) for arg in argv], env=env, capture_output=True, check=False, text=True, timeout=30
    )
    assert done.returncode == 0, f"{done.stderr}\n--- gateway:\n{gateway.log()}"
    return done.stdout


def check_chat_request(upstream: Recorder) -> None:
    """The one request of the presign recipes, as the API behind the gateway has to see it."""
    (request,) = upstream.wait_for(1)
    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    assert request.all("authorization") == [f"Bearer {REAL_SECRET}"]
    assert request.header("content-type") == "application/json"
    assert json.loads(request.body or b"") == BODY
    assert b"presign" not in request.raw.lower()
