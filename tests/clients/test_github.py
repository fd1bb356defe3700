"""GitHub as people reach it: curl with a token, requests, and git over https, through a real gateway."""

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest
import requests

from support import git
from support.apis import CA_VARIABLES, Credential, check_sent, connections, with_password
from support.asking import Grant
from support.gateways import MakeGateway
from support.lab import REAL_SECRET
from support.proxy import Mitm
from support.recorder import Recorder
from support.seen import Seen

pytestmark = pytest.mark.usefixtures("environment")
needs_curl = pytest.mark.needs("curl")
needs_git = pytest.mark.needs("git")

GRANT = Grant("conn_github", "GET,POST", "graphql,repos/*/issues")
GIT_GRANT = Grant("conn_git", "GET,POST", "o/r.git/*")
BASIC: Credential = (
    "authorization",
    "Basic " + base64.b64encode(f"x-access-token:{REAL_SECRET}".encode()).decode(),
)


@pytest.fixture(autouse=True)
def token(environment: None, proxy: Mitm, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user of the token sets, and nothing else."""
    monkeypatch.setenv("HTTPS_PROXY", with_password(proxy))
    monkeypatch.setenv("GITHUB_TOKEN", GRANT.token)


# -- the API ------------------------------------------------------------------------------------------


def shell(script: str) -> str:
    """What a script prints, as somebody has it."""
    argv = ["sh", "-euc", script]
    done = subprocess.run(argv, capture_output=True, check=False, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


ISSUES = "https://api.github.com/repos/o/r/issues?state=open"


@needs_curl
@pytest.mark.parametrize(
    "options",
    [
        '-H "Authorization: Bearer $GITHUB_TOKEN"',
        '-H "Authorization: token $GITHUB_TOKEN"',
        '-H "Authorization: TOKEN $GITHUB_TOKEN"',
        '--oauth2-bearer "$GITHUB_TOKEN"',
        '-u "somebody:$GITHUB_TOKEN"',
        '-u "$GITHUB_TOKEN:"',
    ],
)
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_with_the_token_of_the_environment(
    version: str, options: str, proxy: Mitm, api: Recorder
) -> None:
    printed = shell(f'curl -qsSf {version} {options} -H "Accept: application/vnd.github+json" "{ISSUES}"')
    assert json.loads(printed) == {"ok": True}
    (request,) = api.wait_for(1)
    assert (request.method, request.target) == ("GET", "/repos/o/r/issues?state=open")
    assert request.all("x-github-api-version") == ["2022-11-28"]
    assert request.all("accept") == ["application/vnd.github+json"]
    check_sent(request)


@needs_curl
def test_token_as_a_user_name_stands_beside_the_password_that_github_knows_and_no_other(
    proxy: Mitm, api: Recorder
) -> None:
    printed = shell(f'curl -qsS -u "$GITHUB_TOKEN:anything" "{ISSUES}"')
    assert json.loads(printed)["error"]["code"] == "malformed"
    assert not api.touched
    printed = shell(f'curl -qsSf -u "$GITHUB_TOKEN:x-oauth-basic" "{ISSUES}"')
    assert json.loads(printed) == {"ok": True}
    check_sent(*api.wait_for(1))


@needs_curl
def test_curl_with_the_header_of_gh(proxy: Mitm, api: Recorder) -> None:
    """As gh writes it, for its GraphQL."""
    headers = ("Authorization: token $GITHUB_TOKEN", "X-Github-Api-Version: 2022-11-28", "Time-Zone: Etc/UTC")
    options = " ".join(f'-H "{header}"' for header in headers)
    printed = shell(f'curl -qsSf {options} -d \'{{"query": "{{}}"}}\' https://api.github.com/graphql')
    assert json.loads(printed) == {"ok": True}
    (request,) = api.wait_for(1)
    assert (request.method, request.target) == ("POST", "/graphql")
    assert request.all("x-github-api-version") == ["2022-11-28"]
    check_sent(request)


@needs_curl
def test_curl_streams_what_it_downloads(proxy: Mitm, api: Recorder, tmp_path: Path) -> None:
    grant = Grant("conn_github", "GET", "repos/o/r/tarball/download")
    url = "https://api.github.com/repos/o/r/tarball/download?bytes=3000000"
    shell(f'curl -qsSf -o {tmp_path}/it -H "Authorization: Bearer {grant.token}" "{url}"')
    assert (tmp_path / "it").stat().st_size == 3_000_000
    check_sent(*api.wait_for(1))


@pytest.mark.parametrize("word", ["Bearer", "token"])
def test_requests_with_the_token_of_the_environment(word: str, proxy: Mitm, api: Recorder) -> None:
    response = requests.get(ISSUES, headers={"Authorization": f"{word} {os.environ['GITHUB_TOKEN']}"})
    assert response.status_code == 200
    check_sent(*api.wait_for(1))


def test_token_of_one_host_opens_no_other(proxy: Mitm, api: Recorder) -> None:
    headers = {"Authorization": f"token {os.environ['GITHUB_TOKEN']}"}
    response = requests.get("https://api.openai.com/repos/o/r/issues", headers=headers)
    assert (response.status_code, response.headers["X-Presign-Error"]) == (403, "host_mismatch")
    # Another upstream of the same connection, which no signed pattern names.
    response = requests.get("https://github.com/repos/o/r/issues", headers=headers)
    assert (response.status_code, response.headers["X-Presign-Error"]) == (403, "path_not_allowed")
    assert not api.touched


# -- git ----------------------------------------------------------------------------------------------


@pytest.fixture
def git_environment(proxy: Mitm, monkeypatch: pytest.MonkeyPatch) -> None:
    """git reads none of the CA variables of other programs."""
    for name in CA_VARIABLES:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_SSL_CAINFO", str(proxy.ca))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_TERMINAL_PROMPT", "0")


# git asks without a credential first, and brings the one of its URL when the upstream wants one.
IN_THE_URL = f"https://x-access-token:{GIT_GRANT.token}@github.com/o/r.git"
# As the check-out step of CI does it: at once, whoever asks.
_ENCODED = base64.b64encode(f"x-access-token:{GIT_GRANT.token}".encode()).decode()
AT_ONCE = (
    "-c",
    f"http.https://github.com/.extraheader=AUTHORIZATION: basic {_ENCODED}",
)


def check_git(requests: list[Seen], services: list[str]) -> None:
    """The requests with a credential asked for these services; those without carried nothing of ours."""
    asked = [request for request in requests if request.header("authorization")]
    assert [request.target.rpartition("/")[2] for request in asked] == services
    for request in asked:
        check_sent(request, BASIC)
    for request in requests:
        assert b"ps1_" not in request.everything


FETCHING = ["refs?service=git-upload-pack", "git-upload-pack", "git-upload-pack"]


@needs_git
@pytest.mark.parametrize("where", ["in the URL", "at once"])
def test_git_clones(where: str, git_environment: None, proxy: Mitm, api: Recorder, tmp_path: Path) -> None:
    options, url = {
        "in the URL": ((), IN_THE_URL),
        "at once": (AT_ONCE, "https://github.com/o/r.git"),
    }[where]
    git.run(*options, "clone", "--quiet", url, tmp_path / "clone")
    assert git.run("-C", tmp_path / "clone", "log", "--format=%s").split() == ["first"]
    check_git(api.requests, FETCHING)


@needs_git
def test_git_pushes(git_environment: None, proxy: Mitm, api: Recorder, tmp_path: Path) -> None:
    here = tmp_path / "clone"
    git.run("clone", "--quiet", IN_THE_URL, here)
    api.clear()
    # More than http.postBuffer: chunked, after a probe.
    (here / "data").write_bytes(os.urandom(40_000))
    git.run("-C", here, "add", "data")
    git.run("-C", here, *git.AUTHOR, "commit", "--quiet", "-m", "second")
    git.run("-C", here, "-c", "http.postBuffer=1000", "push", "--quiet", "origin", "HEAD:refs/heads/second")
    assert git.run("-C", git.repository(), "log", "--format=%s", "second").split() == ["second", "first"]
    check_git(api.requests, ["refs?service=git-receive-pack", "git-receive-pack", "git-receive-pack"])


@needs_git
def test_git_clones_through_a_gateway_that_denies_what_is_unsigned(
    git_environment: None,
    api: Recorder,
    make_gateway: MakeGateway,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    dns = {"github.com": [f"127.0.0.1#{api.tls_port}"]}
    gateway = {"unsigned": "deny"}
    egress = make_gateway({"gateway": gateway, "connections": connections()}, dns=dns)
    monkeypatch.setenv("HTTPS_PROXY", egress.url)
    monkeypatch.setenv("GIT_SSL_CAINFO", str(egress.ca))
    git.run(*AT_ONCE, "clone", "--quiet", "https://github.com/o/r.git", tmp_path / "clone")
    check_git(api.requests, FETCHING)
    api.clear()
    # The first request, without a credential, gets no challenge: git has to bring it at once.
    with pytest.raises(AssertionError, match="403"):
        git.run("ls-remote", IN_THE_URL)
    assert not api.touched


@needs_git
def test_git_cannot_clone_another_repository(git_environment: None, proxy: Mitm, api: Recorder) -> None:
    with pytest.raises(AssertionError, match="403"):
        git.run(*AT_ONCE, "ls-remote", "https://github.com/o/other.git")
    assert not api.touched
