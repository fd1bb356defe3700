"""The first minute, with everything real: the command, a shell, mitmdump, and an API that wants its key."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from support.proxy import Mitm
from support.recorder import Recorder
from support.shell import Done, Shell

KEY = "sk-KEY-OF-THE-WALK"
# Changes are noticed within a second; a loaded machine may take a little longer.
PATIENCE = 5.0


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def presign(shell: Shell) -> Callable[..., str]:
    """Runs a line as somebody would type it; returns what it prints."""

    def presign(line: str, stdin: str = "") -> str:
        done = shell.presign(*line.split(), stdin=stdin)
        assert done.code == 0, done.all
        return done.out.strip()

    return presign


@pytest.fixture
def walked(shell: Shell, presign: Callable[..., str], upstream: Recorder) -> Iterator[Mitm]:
    """`presign init`, one connection, and a gateway started in that directory."""
    presign("init")
    presign(f"connections add conn_api --upstream {upstream.url} --auth bearer", stdin=f"{KEY}\n")
    with Mitm(shell.directory, shell.directory / "config.yaml") as gateway:
        yield gateway


def answers(url: str, status: int) -> bool:
    """Whether a URL gets this answer, if not at once, then soon."""
    deadline = time.monotonic() + PATIENCE
    while requests.get(url, timeout=10).status_code != status:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def keys(upstream: Recorder) -> list[str | None]:
    return [seen.header("Authorization") for seen in upstream.requests]


@pytest.mark.needs("bash", "curl")
def test_what_was_signed_works_until_it_is_taken_back(
    shell: Shell, presign: Callable[..., str], walked: Mitm, upstream: Recorder
) -> None:
    def sign(path: str) -> str:
        return presign(f"sign conn_api {path} --base {walked.url}")

    one, two = sign("v1/one"), sign("v1/two")
    curl = shell.bash(f"curl -s -o /dev/null -w '%{{http_code}}' '{one}'")
    assert curl.out == "200"
    assert [(seen.target, seen.header("Authorization")) for seen in upstream.requests] == [
        ("/v1/one", f"Bearer {KEY}")
    ]
    assert requests.get(one.replace("v1/one?", "v1/other?"), timeout=10).status_code == 403
    assert len(upstream.requests) == 1

    presign("connections disable conn_api")
    assert answers(one, 403)
    assert answers(two, 403)
    presign("connections enable conn_api")
    assert answers(one, 200)

    presign(f"revoke {one}")
    assert answers(one, 403)
    assert requests.get(one, timeout=10).json()["error"]["code"] == "revoked"
    assert answers(two, 200)

    presign("connections rotate conn_api")
    three = sign("v1/three")
    assert answers(three, 200)
    assert answers(two, 200)

    walked.stop()
    with Mitm(shell.directory, shell.directory / "config.yaml", port=walked.port):
        assert requests.get(one, timeout=10).status_code == 403
        assert answers(two, 200)
        assert answers(three, 200)
    assert set(keys(upstream)) == {f"Bearer {KEY}"}
    lines = [json.loads(line) for line in (shell.directory / "audit.jsonl").read_text().splitlines()]
    assert {"revoked", "path_not_allowed"} <= {line.get("code") for line in lines}
    everything = (shell.directory / "audit.jsonl").read_text() + walked.log()
    assert KEY not in everything


def test_a_key_and_a_base_url_carry_the_same_grant(
    presign: Callable[..., str], walked: Mitm, upstream: Recorder
) -> None:
    grant = f"sign conn_api --paths v1/* --base {walked.url} --as"
    token = presign(f"{grant} key")
    through = {"http": walked.url}
    at_home = f"{upstream.url}/v1/models"
    sent = requests.get(at_home, headers={"Authorization": f"Bearer {token}"}, proxies=through, timeout=10)
    assert sent.status_code == 200
    headers = dict(line.split(": ") for line in presign(f"{grant} headers").splitlines())
    assert requests.get(at_home, headers=headers, proxies=through, timeout=10).status_code == 200
    assert requests.get(presign(f"{grant} base-url") + "v1/models", timeout=10).status_code == 200
    assert keys(upstream) == [f"Bearer {KEY}"] * 3
    assert {seen.target for seen in upstream.requests} == {"/v1/models"}
    assert not any(token.encode() in seen.everything for seen in upstream.requests)
    outside = requests.get(at_home.replace("v1", "v2"), headers=headers, proxies=through, timeout=10)
    assert outside.status_code == 403
    assert len(upstream.requests) == 3


@pytest.mark.needs("bash", "curl")
def test_the_environment_that_a_shell_gets_is_all_that_a_client_needs(
    shell: Shell, walked: Mitm, upstream: Recorder
) -> None:
    """curl reads the proxy and the certificate authority of it, and is told the key."""
    done: Done = shell.bash(
        f'eval "$(presign sign conn_api --paths "v1/*" --as env --base {walked.url} --ca "{walked.ca}")"'
        f' && env && curl -s -o /dev/null -w "%{{http_code}}" -H "Authorization: Bearer $API_KEY"'
        f" --noproxy '' http://127.0.0.1:{upstream.port}/v1/models -x \"$HTTP_PROXY\""
    )
    assert done.code == 0, done.out
    got = dict(line.split("=", 1) for line in done.out.splitlines() if "=" in line)
    assert got["API_KEY"].startswith("ps1_")
    assert (got["HTTPS_PROXY"], got["HTTP_PROXY"], got["NODE_USE_ENV_PROXY"]) == (walked.url, walked.url, "1")
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        assert walked.ca.read_text() in Path(got[name]).read_text()
        assert Path(got[name]).read_text().count("BEGIN CERTIFICATE") > 50
    assert done.out.splitlines()[-1] == "200"
    assert keys(upstream) == [f"Bearer {KEY}"]
