"""All hosts of GitHub with one presigned key, by the preset: git over https, a release and its assets."""

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import requests

from support import git
from support.answers import BEHAVIOURS, Answer
from support.apis import CA_VARIABLES
from support.asking import SECRET, Grant
from support.gateways import MakeGateway
from support.lab import REAL_SECRET
from support.proxy import Mitm
from support.recorder import Recorder
from support.seen import Seen

needs_git = pytest.mark.needs("git")
pytestmark = pytest.mark.usefixtures("environment")

REPOSITORY = Grant("conn_github", "GET,POST", "@git/o/r.git/*")
RELEASES = Grant("conn_github", "GET,POST", "@assets/*,@uploads/repos/o/r/releases/*,repos/o/r/releases/*")
BASIC = "Basic " + base64.b64encode(f"x-access-token:{REAL_SECRET}".encode()).decode()
HOSTS = ("api.github.com", "uploads.github.com", "github.com", "release-assets.githubusercontent.com")
FETCHING = ["refs?service=git-upload-pack", "git-upload-pack", "git-upload-pack"]
PUSHING = ["refs?service=git-receive-pack", "git-receive-pack"]


@pytest.fixture(scope="module")
def hosts(ca: Any) -> Any:
    """All hosts of GitHub, as far as a client can tell."""
    recorder = Recorder(ca.issue_cert(*HOSTS)).start()
    with pytest.MonkeyPatch.context() as patch:
        for segment, behaviour in git.GIT.items():
            patch.setitem(BEHAVIOURS, segment, behaviour)
        patch.setitem(BEHAVIOURS, "42", _asset)
        yield recorder
    recorder.stop()


def _asset(request: Seen) -> Answer:
    """GET /repos/o/r/releases/assets/42, which leads to a signed URL of another host."""
    return Answer(302, (("Location", f"https://{HOSTS[3]}/store/7?sig=a%2Fb"),))


@pytest.fixture(scope="module")
def github(module_gateway: MakeGateway, hosts: Recorder) -> Mitm:
    key = {"auth": {"token": REAL_SECRET}, "signing_keys": [{"secret": SECRET}]}
    config = {
        "gateway": {"hosts": ["presign.local"]},
        "connections": {"conn_github": {"preset": "github"} | key},
    }
    return module_gateway(config, dns={name: [f"127.0.0.1#{hosts.tls_port}"] for name in HOSTS})


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, github: Mitm, hosts: Recorder) -> None:
    hosts.clear()
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_SSL_CAINFO", str(github.ca))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_TERMINAL_PROMPT", "0")


FORMS = ("gateway form", "key at the gateway", "interception form")


def remote(form: str, github: Mitm, monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[str, ...], str]:
    """The options of git and the URL of the repository."""
    encoded = base64.b64encode(f"x-access-token:{REPOSITORY.token}".encode()).decode()
    header = ("-c", f"http.extraheader=AUTHORIZATION: basic {encoded}")
    match form:
        case "gateway form":
            return (), f"{github.url}/p/{REPOSITORY.token}/@git/o/r.git"
        case "key at the gateway":
            return header, f"{github.url}/@git/o/r.git"
    monkeypatch.setenv("HTTPS_PROXY", github.url)
    return header, "https://github.com/o/r.git"


def check_git(hosts: Recorder, services: list[str]) -> None:
    assert [seen.target.rpartition("/")[2] for seen in hosts.requests][: len(services)] == services
    for seen in hosts.requests:
        assert (seen.sni, seen.header("host"), seen.all("authorization")) == (
            "github.com",
            "github.com",
            [BASIC],
        )
        assert seen.target.startswith("/o/r.git/")
        assert b"ps1_" not in seen.everything


@needs_git
@pytest.mark.parametrize("form", FORMS)
def test_git_clones_and_pushes(
    form: str, github: Mitm, hosts: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options, url = remote(form, github, monkeypatch)
    here = tmp_path / "clone"
    git.run(*options, "clone", "--quiet", url, here)
    assert "first" in git.run("-C", here, "log", "--format=%s").split()
    check_git(hosts, FETCHING)
    hosts.clear()
    (here / "data").write_bytes(os.urandom(40_000))
    git.run("-C", here, "add", "data")
    git.run("-C", here, *git.AUTHOR, "commit", "--quiet", "-m", "pushed")
    branch = form.replace(" ", "-")
    git.run(*options, "-C", here, "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
    assert git.run("-C", git.repository(), "log", "--format=%s", branch).split()[0] == "pushed"
    check_git(hosts, PUSHING)


@needs_git
@pytest.mark.parametrize("form", FORMS)
def test_git_reaches_no_other_repository(
    form: str, github: Mitm, hosts: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, url = remote(form, github, monkeypatch)
    with pytest.raises(AssertionError, match="403"):
        git.run(*options, "ls-remote", url.replace("/o/r.git", "/o/other.git"))
    assert not hosts.touched


def test_an_asset_is_uploaded_to_a_release_and_downloaded_again(github: Mitm, hosts: Recorder) -> None:
    base = f"{github.url}/p/{RELEASES.token}"
    body = os.urandom(20_000)
    url = f"{base}/@uploads/repos/o/r/releases/1/assets?name=a.bin"
    sent = requests.post(url, data=body, headers={"Content-Type": "application/octet-stream"}, timeout=20)
    assert sent.status_code == 200
    (uploaded,) = hosts.wait_for(1)
    assert (uploaded.sni, uploaded.body) == ("uploads.github.com", body)
    assert uploaded.target == "/repos/o/r/releases/1/assets?name=a.bin"
    assert uploaded.all("authorization") == [f"Bearer {REAL_SECRET}"]
    hosts.clear()
    accept = {"Accept": "application/octet-stream"}
    got = requests.get(f"{base}/repos/o/r/releases/assets/42", headers=accept, timeout=20)
    assert got.status_code == 200
    asked, stored = hosts.wait_for(2)
    assert (asked.sni, asked.all("authorization")) == ("api.github.com", [f"Bearer {REAL_SECRET}"])
    # The signed URL of the store is complete: it gets no credential.
    assert (stored.sni, stored.target) == (HOSTS[3], "/store/7?sig=a%2Fb")
    assert stored.all("authorization") == []


def test_an_asset_is_uploaded_in_interception_form(github: Mitm, hosts: Recorder) -> None:
    headers = {"Authorization": f"Bearer {RELEASES.token}", "Content-Type": "application/octet-stream"}
    sent = requests.post(
        "https://uploads.github.com/repos/o/r/releases/1/assets?name=a.bin",
        data=b"x" * 5000,
        headers=headers,
        proxies={"https": github.url},
        verify=str(github.ca),
        timeout=20,
    )
    assert sent.status_code == 200
    (seen,) = hosts.wait_for(1)
    assert (seen.sni, len(seen.body or b"")) == ("uploads.github.com", 5000)
    assert seen.all("authorization") == [f"Bearer {REAL_SECRET}"]
