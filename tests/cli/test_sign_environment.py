"""`presign sign --as env`: what a shell makes of it, and what the programs that it starts find there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.presets.builtin import providers
from support.config import write_config
from support.shell import Shell

KEYS = [{"secret": "sk_0123456789abcdef0123456789abcdef"}]
BASE = "https://gateway.example:8443"
OPENAI = {"preset": "openai", "auth": {"token": "sk-KEY-0123456789"}}
CONNECTIONS: dict[str, dict[str, Any]] = {
    "twilio": {"auth": {"username": "AC0123", "password": "tw-KEY-0123456789"}},
    "langfuse": {"auth": {"username": "pk-lf-1", "password": "lf-KEY-0123456789"}},
    "datadog": {"auth": {"headers": {"DD-API-KEY": "dd-KEY-01", "DD-APPLICATION-KEY": "dd-APP-01"}}},
    "algolia": {
        "vars": {"app": "ABC123DEF4"},
        "auth": {"headers": {"X-Algolia-Application-Id": "ABC123DEF4", "X-Algolia-API-Key": "al-KEY"}},
    },
}  # fmt: skip


def shell_with(tmp_path: Path, connection: dict[str, Any]) -> Shell:
    shell = Shell(tmp_path)
    write_config({"connections": {"conn": {"signing_keys": KEYS, **connection}}}, shell.directory)
    return shell


def environment(
    tmp_path: Path, connection: dict[str, Any], *more: str, quoted: bool = True, **before: str
) -> dict[str, str]:
    """The variables of a program that is started by a shell which has read the lines."""
    shell = shell_with(tmp_path, connection)
    sign = f"presign sign conn --paths 'v1/*' --as env --base {BASE} {' '.join(more)}"
    lines = f'"$({sign})"' if quoted else f"$({sign})"
    given = "".join(f"export {name}={value}; " for name, value in before.items())
    shown = "python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    done = shell.bash(f"{given}eval {lines} && {shown}")
    assert done.code == 0, done.out
    found: dict[str, str] = json.loads(done.out.splitlines()[-1])
    return found


@pytest.mark.needs("bash")
@pytest.mark.parametrize("quoted", [True, False])
def test_programs_that_read_either_case_find_the_proxy(tmp_path: Path, quoted: bool) -> None:
    """A company's own lower-case variables win over the upper-case ones in curl, requests and Node."""
    found = environment(
        tmp_path, OPENAI, quoted=quoted, https_proxy="http://corp:3128", no_proxy="api.openai.com"
    )
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        assert found[name] == BASE
    for name in ("NO_PROXY", "no_proxy"):
        assert found[name] == "localhost,127.0.0.1,::1,gateway.example"
    assert found["OPENAI_API_KEY"].startswith("ps1_")


@pytest.mark.needs("bash")
def test_an_sdk_that_reads_no_proxy_finds_its_base_url(tmp_path: Path) -> None:
    """Node's fetch before Node 24 reads no proxy variable at all."""
    assert environment(tmp_path, OPENAI)["OPENAI_BASE_URL"] == f"{BASE}/v1"


@pytest.mark.needs("bash")
def test_each_spelling_of_a_key_holds_the_token(tmp_path: Path) -> None:
    """gh prefers GH_TOKEN: with the owner's real token there, it would not be presigned."""
    github = {"preset": "github", "auth": {"token": "ghp_KEY"}}
    found = environment(tmp_path, github, GH_TOKEN="ghp_mine")
    assert found["GH_TOKEN"] == found["GITHUB_TOKEN"]
    assert found["GH_TOKEN"].startswith("ps1_")


@pytest.mark.needs("bash")
def test_an_api_on_this_machine_is_asked_through_the_proxy_too(tmp_path: Path) -> None:
    local = {"upstream": "http://127.0.0.1:9000", "auth": {"type": "bearer", "token": "k"}}
    found = environment(tmp_path, local, NO_PROXY="127.0.0.1")
    assert found["NO_PROXY"] == found["no_proxy"] == ""


@pytest.mark.needs("bash")
def test_every_program_finds_its_authorities_from_any_directory(tmp_path: Path) -> None:
    found = environment(tmp_path, OPENAI, "--ca", "ca.pem")
    for name in [
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "NODE_EXTRA_CA_CERTS",
        "DENO_CERT",
        "AWS_CA_BUNDLE",
        "PIP_CERT",
        "npm_config_cafile",
        "CARGO_HTTP_CAINFO",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        "HTTPLIB2_CA_CERTS",
        "PERL_LWP_SSL_CA_FILE",
    ]:
        assert found[name] == str(tmp_path / "here/ca.pem"), name


@pytest.mark.needs("bash")
@pytest.mark.parametrize(
    ("preset", "secret", "public"),
    [
        ("twilio", ["TWILIO_AUTH_TOKEN"], ["TWILIO_ACCOUNT_SID"]),
        ("langfuse", ["LANGFUSE_SECRET_KEY"], ["LANGFUSE_PUBLIC_KEY"]),
        ("algolia", ["ALGOLIA_API_KEY"], ["ALGOLIA_APPLICATION_ID"]),
        ("datadog", ["DD_API_KEY", "DD_APP_KEY"], []),
    ],
)
def test_the_token_takes_the_place_of_the_secret_and_of_nothing_else(
    preset: str, secret: list[str], public: list[str], tmp_path: Path
) -> None:
    connection = {"preset": preset, **CONNECTIONS[preset]}
    found = environment(tmp_path, connection, **dict.fromkeys(public, "mine"))
    assert all(found[name].startswith("ps1_") for name in secret)
    assert {name: found[name] for name in public} == dict.fromkeys(public, "mine")
    assert set(secret) | set(public) == set(providers()[preset]["env"])


def test_what_no_variable_says_is_said_in_comments_behind_all_exports(tmp_path: Path) -> None:
    shell = shell_with(tmp_path, OPENAI)
    lines = shell.presign("sign", "conn", "v1/models", "--as", "env", "--base", BASE).out.splitlines()
    remarks = [line for line in lines if line.startswith("#")]
    assert lines[-len(remarks) :] == remarks
    text = "\n".join(remarks)
    for word in (
        "keytool",
        "-Dhttps.proxyHost=gateway.example -Dhttps.proxyPort=8443",
        "openssl.cafile",
        "wget",
    ):
        assert word in text
    assert "ps1_" not in text
