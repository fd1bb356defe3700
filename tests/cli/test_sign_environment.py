"""`presign sign --as env`: what a shell makes of it, and what the programs that it starts find there."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from presign_proxy.config.presets.builtin import providers
from support.asking import SECRET
from support.config import write_config
from support.recorder import Recorder
from support.serving import Serve
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
def test_a_program_of_no_preset_finds_the_key_in_the_variables_that_are_named(tmp_path: Path) -> None:
    crm = {"upstream": "https://crm.example.com", "auth": {"type": "bearer", "token": "k"}}
    found = environment(tmp_path, crm, "--env", "CRM_KEY,CRM_TOKEN")
    assert found["CRM_KEY"].startswith("ps1_")
    assert found["CRM_KEY"] == found["CRM_TOKEN"]
    assert "API_KEY" not in found


def test_a_variable_for_another_form_or_that_is_none_is_refused(tmp_path: Path) -> None:
    shell = shell_with(tmp_path, OPENAI)
    for more, said in ((("--env", "A"), "--env needs --as env"), (("--env", "A B", "--as", "env"), "--env")):
        done = shell.presign("sign", "conn", "v1/models", *more)
        assert (done.code, said in done.err) == (2, True), done.all
    done = shell.presign("sign", "conn", "v1/models", "--as", "env", "--env", "A")
    assert "No preset says" not in done.err


@pytest.mark.needs("bash")
def test_an_api_on_this_machine_is_asked_through_the_proxy_too(tmp_path: Path) -> None:
    local = {"upstream": "http://127.0.0.1:9000", "auth": {"type": "bearer", "token": "k"}}
    found = environment(tmp_path, local, NO_PROXY="127.0.0.1")
    assert found["NO_PROXY"] == found["no_proxy"] == ""


@pytest.mark.needs("bash")
def test_an_authority_of_another_machine_is_exported_by_an_absolute_path(tmp_path: Path) -> None:
    """The file is not here, so nothing can be put into it."""
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


# -- the authorities that programs trust ------------------------------------------------------------------


def count(path: str) -> int:
    return Path(path).read_text("ascii").count("BEGIN CERTIFICATE")


def exported(out: str) -> str:
    """The file that the printed lines name."""
    [line] = [line for line in out.splitlines() if line.startswith("export SSL_CERT_FILE=")]
    return line.partition("=")[2].strip("'")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    config = {"connections": {"conn": {"signing_keys": KEYS, **OPENAI}}}
    with Serve(tmp_path_factory.mktemp("gateway"), config) as served:
        yield served


@pytest.mark.needs("bash", "curl")
@pytest.mark.parametrize("named", [True, False])
def test_a_shell_trusts_the_gateway_and_still_everything_else(
    named: bool, gateway: Serve, tls_upstream: Recorder, ca: trustme.CA, tmp_path: Path
) -> None:
    """With the gateway's authority alone, each request that needs no proxy would fail."""
    shell = Shell(tmp_path)
    ca.cert_pem.write_to_path(str(shell.directory / "company.pem"))
    if not named:
        (shell.home / ".mitmproxy").symlink_to(gateway.confdir)
    more = f"--config {gateway.config} --base http://127.0.0.1:{gateway.port}"
    more += f" --ca {gateway.ca}" if named else ""
    asked = "curl -sS -o /dev/null -w '%{ssl_verify_result} %{http_code}\\n'"
    done = shell.bash(
        f"eval \"$(presign sign conn --paths 'v1/*' --as env {more})\" &&"
        f" {asked} https://localhost:{tls_upstream.tls_port}/ && {asked} https://api.openai.com/",
        SSL_CERT_FILE="company.pem",
    )
    assert done.out.splitlines() == ["0 200", "0 403"], done.out


def test_the_same_file_serves_every_shell_and_is_mended(gateway: Serve, tmp_path: Path) -> None:
    shell = shell_with(tmp_path, OPENAI)
    sign = ("sign", "conn", "v1/models", "--as", "env", "--ca", str(gateway.ca))
    file = exported(shell.presign(*sign).out)
    assert Path(file).is_relative_to(shell.home / ".local/share/presign")
    assert Path(file).stat().st_mode & 0o777 == 0o644
    whole = Path(file).read_text("ascii")
    assert gateway.ca.read_text("ascii") in whole
    assert count(file) > 50
    Path(file).write_text("something else", "ascii")
    # As a shell does that has read the exports already.
    assert exported(shell.presign(*sign).out) == file
    assert exported(shell.presign(*sign, SSL_CERT_FILE=file, REQUESTS_CA_BUNDLE=file).out) == file
    assert Path(file).read_text("ascii") == whole
    moved = exported(shell.presign(*sign, XDG_DATA_HOME=str(tmp_path / "data")).out)
    assert Path(moved).is_relative_to(tmp_path / "data/presign")


def test_what_a_shell_has_exported_stays_as_it_is(gateway: Serve, tmp_path: Path) -> None:
    """Another shell has other authorities: the file of the first one is not changed under it."""
    shell = shell_with(tmp_path, OPENAI)
    sign = ("sign", "conn", "v1/models", "--as", "env", "--ca", str(gateway.ca))
    first = exported(shell.presign(*sign).out)
    before = Path(first).read_text("ascii")
    company = shell.directory / "company.pem"
    trustme.CA().cert_pem.write_to_path(str(company))
    second = exported(shell.presign(*sign, SSL_CERT_FILE=str(company)).out)
    assert (second != first, count(second)) == (True, 2)
    assert Path(first).read_text("ascii") == before


def test_a_bundle_is_exported_as_it_is(gateway: Serve, tmp_path: Path) -> None:
    """Also one that was made before the system's authorities changed."""
    shell = shell_with(tmp_path, OPENAI)
    made = shell.presign("ca", "--ca", str(gateway.ca), "--bundle", "all.pem")
    assert made.code == 0, made.all
    path = shell.directory / "all.pem"
    older = path.read_text("ascii").split("-----BEGIN", 3)
    path.write_text("-----BEGIN" + older[3], "ascii")
    done = shell.presign("sign", "conn", "v1/models", "--as", "env", "--ca", "all.pem")
    assert exported(done.out) == str(path)
    assert "keytool" not in done.out  # it would take the first of them alone
    assert "# Java reads no such file: use `presign run`" in done.out
    assert not (shell.home / ".local").exists()


def test_a_file_without_a_certificate_is_refused(tmp_path: Path) -> None:
    shell = shell_with(tmp_path, OPENAI)
    (shell.directory / "ca.pem").touch()
    done = shell.presign("sign", "conn", "v1/models", "--as", "env", "--ca", "ca.pem")
    assert (done.code, done.out) == (1, "")
    assert "holds no certificate" in done.err


def test_without_a_place_for_the_file_it_is_said_how_to_make_one(gateway: Serve, tmp_path: Path) -> None:
    shell = shell_with(tmp_path, OPENAI)
    (shell.home / ".local").touch()
    done = shell.presign("sign", "conn", "v1/models", "--as", "env", "--ca", str(gateway.ca))
    assert (done.code, done.out) == (1, "")
    assert "presign ca --bundle FILE" in done.err
    assert "ps1_" not in done.err


def test_before_the_gateway_has_run_other_programs_still_work(tmp_path: Path) -> None:
    """A file that does not exist would keep most programs from starting."""
    shell = shell_with(tmp_path, OPENAI)
    done = shell.presign("sign", "conn", "v1/models", "--as", "env")
    assert count(exported(done.out)) > 50
    assert "does not exist, so programs will not trust the gateway" in done.err


def test_a_holder_without_a_configuration_gets_the_same(gateway: Serve, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    more = ("--ca", str(gateway.ca), "--as", "env")
    signed = shell.presign("sign", "conn", "v1/models", "--secret-env", "MINE", *more, MINE=SECRET)
    token = next(line for line in signed.out.splitlines() if "API_KEY" in line).partition("=")[2]
    converted = shell.presign("convert", token, *more)
    assert exported(signed.out) == exported(converted.out)
    ssl.create_default_context(cafile=exported(signed.out))


@pytest.mark.needs("javac")
def test_java_finds_a_trust_store_with_all_of_them(gateway: Serve, tmp_path: Path) -> None:
    shell = shell_with(tmp_path, OPENAI)
    done = shell.presign("sign", "conn", "v1/models", "--as", "env", "--ca", str(gateway.ca))
    [line] = [line for line in done.out.splitlines() if line.startswith("# Java: ")]
    store = line.partition("-Djavax.net.ssl.trustStore=")[2].split()[0]
    listed = shell.bash(f"keytool -list -keystore {store} -storepass presign")
    assert listed.out.count("trustedCertEntry") == count(exported(done.out))
