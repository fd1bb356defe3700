"""`presign ca`: what clients of a gateway have to trust, as programs find it."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.asking import SECRET
from support.config import write_config
from support.documents import DOCS, block
from support.serving import Serve
from support.shell import Shell

CONNECTIONS = {
    "conn_openai": {
        "preset": "openai",
        "auth": {"token": "sk-KEY-0123456789"},
        "signing_keys": [{"secret": SECRET}],
    }
}


def text_of(authority: trustme.CA) -> str:
    return authority.cert_pem.bytes().decode()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def confdir(shell: Shell, ca: trustme.CA) -> Path:
    """As mitmproxy leaves it: the key with the certificate, and the certificate alone."""
    made = shell.home / ".mitmproxy"
    made.mkdir()
    (made / "mitmproxy-ca.pem").write_bytes(ca.private_key_pem.bytes() + ca.cert_pem.bytes())
    (made / "mitmproxy-ca-cert.pem").write_bytes(ca.cert_pem.bytes())
    return made


def test_the_certificate_is_printed_alone(shell: Shell, confdir: Path, ca: trustme.CA) -> None:
    done = shell.presign("ca")
    assert (done.code, done.out.strip()) == (0, text_of(ca).strip())
    assert f"Its file is {confdir / 'mitmproxy-ca-cert.pem'}" in done.err


@pytest.mark.parametrize("how", ["by file", "by directory"])
def test_a_key_beside_the_certificate_is_never_printed(
    how: str, shell: Shell, confdir: Path, ca: trustme.CA
) -> None:
    """An operator's own authority may have no file but the one with its key."""
    (confdir / "mitmproxy-ca-cert.pem").unlink()
    where = ("--ca", str(confdir / "mitmproxy-ca.pem")) if how == "by file" else ("--confdir", str(confdir))
    for more in ((), ("--json",), ("--bundle", "-"), ("--instructions",)):
        done = shell.presign("ca", *where, *more)
        assert done.code == 0, done.all
        assert "PRIVATE" not in done.all
        assert text_of(ca).splitlines()[3] in done.out or "--instructions" in more


def test_programs_read_its_fingerprint(shell: Shell, confdir: Path, ca: trustme.CA) -> None:
    found = json.loads(shell.presign("ca", "--json").out)
    assert found["file"] == str(confdir / "mitmproxy-ca-cert.pem")
    [one] = found["authorities"]
    assert one["pem"].strip() == text_of(ca).strip()
    der = ssl.PEM_cert_to_DER_cert(one["pem"])
    asked = ["openssl", "x509", "-inform", "DER", "-noout", "-fingerprint", "-sha256"]
    printed = subprocess.run(asked, input=der, capture_output=True, check=True).stdout.decode()
    assert printed.strip().rpartition("=")[2].replace(":", "").lower() == one["sha256"]


def test_a_gateway_that_never_ran_has_none_yet(shell: Shell) -> None:
    done = shell.presign("ca", "--confdir", "nowhere")
    assert (done.code, done.out) == (1, "")
    assert "nowhere/mitmproxy-ca-cert.pem does not exist: the gateway makes it at its first start" in done.err


def test_a_file_that_is_no_certificate_is_refused(shell: Shell) -> None:
    (shell.directory / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n")
    done = shell.presign("ca", "--ca", "key.pem")
    assert (done.code, done.out) == (1, "")
    assert "holds no certificate" in done.err
    assert "QUJD" not in done.all


def test_a_bundle_is_written_for_every_user_and_renewed(shell: Shell, confdir: Path, ca: trustme.CA) -> None:
    for _ in range(2):
        done = shell.presign("ca", "--bundle", "bundle.pem")
        assert done.code == 0, done.all
    path = shell.directory / "bundle.pem"
    assert path.read_text().count("BEGIN CERTIFICATE") > 50
    assert text_of(ca) in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in shell.directory.iterdir()] == ["bundle.pem"]


def test_a_bundle_holds_what_the_user_trusts_already(shell: Shell, confdir: Path) -> None:
    """SSL_CERT_FILE replaces the system's authorities, as for all other programs."""
    company = text_of(trustme.CA(organization_name="Company"))
    (shell.directory / "company.pem").write_text(company)
    done = shell.presign("ca", "--bundle", "-", SSL_CERT_FILE="company.pem")
    assert done.out.count("BEGIN CERTIFICATE") == 2
    assert company.strip() in done.out


def test_instructions_name_every_system_and_change_none(shell: Shell, confdir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in confdir.iterdir()}
    done = shell.presign("ca", "--instructions")
    assert done.code == 0
    for word in (
        "update-ca-certificates",
        "update-ca-trust",
        "add-trusted-cert",
        "certutil",
        "keytool",
        "Firefox",
    ):
        assert word in done.out
    assert str(confdir / "mitmproxy-ca-cert.pem") in done.out
    assert {path: path.stat().st_mtime_ns for path in confdir.iterdir()} == before


@pytest.mark.parametrize("pair", [("--bundle", "x", "--instructions"), ("--ca", "x", "--confdir", "y")])
def test_options_that_exclude_each_other_are_refused(pair: tuple[str, ...], shell: Shell) -> None:
    assert shell.presign("ca", *pair).code == 2


# -- a gateway with a certificate of its own --------------------------------------------------------------


def with_certificate(directory: Path, chain: list[bytes], key: bytes) -> dict[str, Any]:
    directory.mkdir(mode=0o700, exist_ok=True)
    for name, raw in (("cert.pem", b"".join(chain)), ("key.pem", key)):
        (directory / name).touch(mode=0o600)
        (directory / name).write_bytes(raw)
    tls = {"cert": "cert.pem", "key": "key.pem"}
    return {"gateway": {"hosts": ["localhost"], "tls": tls}, "connections": CONNECTIONS}


def self_signed(*more: str) -> tuple[bytes, bytes]:
    """As `openssl req -x509` makes one, for `localhost`."""
    names = [*more, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        "/dev/stdout",
    ]
    text = subprocess.run([*argv, *names], capture_output=True, check=True).stdout.decode()
    at = text.index("-----BEGIN CERTIFICATE")
    return text[at:].encode(), text[:at].encode()


@pytest.fixture(scope="module", params=["self-signed", "own authority"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    directory = tmp_path_factory.mktemp("served")
    if request.param == "self-signed":
        cert, key = self_signed()
        chain = [cert]
    else:
        authority = trustme.CA()
        leaf = authority.issue_cert("localhost")
        chain = [*(one.bytes() for one in leaf.cert_chain_pems), authority.cert_pem.bytes()]
        key = leaf.private_key_pem.bytes()
    with Serve(directory, with_certificate(directory, chain, key)) as gateway:
        yield gateway


@pytest.mark.needs("openssl")
def test_a_bundle_verifies_the_certificate_of_the_gateway(served: Serve, shell: Shell) -> None:
    """Also where it is nobody's but the gateway's, and beside that what the gateway makes for an API."""
    made = shell.presign(
        "ca", "--config", str(served.config), "--confdir", str(served.confdir), "--bundle", "bundle.pem"
    )
    assert made.code == 0, made.all
    assert "gateway.tls" not in made.err
    context = ssl.create_default_context(cafile=str(shell.directory / "bundle.pem"))
    for tunnel, code in ((None, "not_found"), ("api.openai.com", "unsigned")):
        client = HTTPSConnection("localhost", served.port, context=context, timeout=20)
        if tunnel:
            client.set_tunnel(tunnel, 443)
        client.request("GET", "/")
        assert client.getresponse().getheader("X-Presign-Error") == code
        client.close()


@pytest.mark.needs("openssl")
def test_a_program_is_run_through_a_gateway_with_a_certificate_of_its_own(
    served: Serve, shell: Shell
) -> None:
    base = f"https://localhost:{served.port}"
    more = ("--config", str(served.config), "--base", base, "--ca", str(served.ca))
    asked = 'curl -sS "$OPENAI_BASE_URL/models" -o /dev/null -w "%{http_code} %{ssl_verify_result}"'
    done = shell.presign("run", "conn_openai", *more, "--", "sh", "-c", asked)
    assert done.code == 0, done.all
    assert done.out.endswith(" 0")
    stranger = shell.directory / "stranger.pem"
    stranger.write_text(text_of(trustme.CA()))
    holder = ("--secret-env", "MINE", "--preset", "openai", "--base", base, "--ca", str(stranger))
    refused = shell.presign("run", "conn_openai", *holder, "--", "touch", "started", MINE=SECRET)
    assert (refused.code, refused.out) == (1, "")
    assert f"the certificate of {base} is not trusted" in refused.err
    assert not (shell.directory / "started").exists()


@pytest.mark.needs("bash", "curl", "openssl")
def test_curl_reaches_a_gateway_with_tls_as_its_proxy_with_the_option_that_a_comment_names(
    served: Serve, shell: Shell
) -> None:
    """curl uses CURL_CA_BUNDLE for servers, and no variable for the TLS of its proxy."""
    base = f"https://localhost:{served.port}"
    more = ("--config", str(served.config), "--base", base, "--ca", str(served.ca))
    done = shell.presign("sign", "conn_openai", "--paths", "v1/*", "--as", "env", *more)
    [remark] = [line for line in done.out.splitlines() if line.startswith("# curl: ")]
    option = remark.removeprefix("# curl: ").partition(",")[0]
    (shell.directory / "exports.sh").write_text(done.out)
    asked = "curl -sS -o /dev/null -w '%{ssl_verify_result} %{http_code}' https://api.openai.com/"
    assert shell.bash(f". ./exports.sh; {asked} {option}").out == "0 403"
    assert shell.bash(f". ./exports.sh; {asked}").code == 60
    (shell.home / ".curlrc").write_text(option.removeprefix("--"))
    assert shell.bash(f". ./exports.sh; {asked}").out == "0 403"


@pytest.mark.needs("openssl")
def test_an_authority_of_the_system_with_a_serial_of_zero_brings_no_warning(tmp_path: Path) -> None:
    """The library printed a line of its own source, also beside JSON."""
    cert, key = self_signed("-set_serial", "0")
    shell = Shell(tmp_path)
    write_config(with_certificate(shell.directory, [cert], key), shell.directory)
    (shell.directory / "system.pem").write_bytes(self_signed("-set_serial", "0")[0])
    (shell.directory / "ca.pem").write_bytes(cert)
    done = shell.presign("ca", "--ca", "ca.pem", "--json", SSL_CERT_FILE="system.pem")
    assert (done.code, done.err) == (0, ""), done.err


def of_the_page(directory: Path, without: str = "\0") -> list[bytes]:
    """Make an authority, and a certificate for `localhost`, as the page about running shows it.

    Args:
        without: a part of the commands that is left out.
    """
    section = DOCS["running.md"].partition("\n## TLS\n")[2]
    script = block(section, "sh").replace("presign.example.com", "localhost").replace("rsa:3072", "rsa:2048")
    script = script.replace(without, "")
    subprocess.run(["bash", "-ec", script], cwd=directory, check=True, capture_output=True)
    return [(directory / name).read_bytes() for name in ("ca.pem", "cert.pem", "key.pem")]


@pytest.mark.needs("bash", "openssl")
def test_the_authority_of_the_page_is_accepted_where_all_is_checked(shell: Shell, tmp_path: Path) -> None:
    authority, cert, key = of_the_page(shell.directory)
    with Serve(tmp_path / "gateway", with_certificate(tmp_path / "gateway", [cert], key)) as gateway:
        base = ("--base", f"https://localhost:{gateway.port}", "--ca", "ca.pem")
        holder = ("conn_openai", "--secret-env", "MINE", "--preset", "openai", *base)
        done = shell.presign("run", *holder, "--", "true", MINE=SECRET)
        assert (done.code, "not trusted" in done.err) == (0, False), done.err
        context = ssl.create_default_context(cadata=authority.decode())
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        HTTPSConnection("localhost", gateway.port, context=context, timeout=20).connect()


@pytest.mark.needs("openssl")
def test_an_authority_without_a_key_usage_is_told_from_one_that_nobody_named(
    shell: Shell, tmp_path: Path
) -> None:
    """The user had named it, and was told to name it."""
    _, cert, key = of_the_page(shell.directory, "-addext keyUsage=critical,keyCertSign,cRLSign")
    with Serve(tmp_path / "gateway", with_certificate(tmp_path / "gateway", [cert], key)) as gateway:
        base = ("--base", f"https://localhost:{gateway.port}", "--ca", "ca.pem")
        holder = ("conn_openai", "--secret-env", "MINE", "--preset", "openai", *base)
        done = shell.presign("run", *holder, "--", "true", MINE=SECRET)
    # Python before 3.13 accepts it.
    strict = bool(ssl.create_default_context().verify_flags & ssl.VERIFY_X509_STRICT)
    assert done.code == int(strict)
    assert "name its authority" not in done.err
    for said in ("requires (CA cert does not include key usage extension)", "keyUsage=critical,keyCertSign"):
        assert (said in done.err) is strict


def test_an_authority_that_is_nowhere_is_said(shell: Shell, confdir: Path) -> None:
    leaf = trustme.CA().issue_cert("localhost")
    chain = [leaf.cert_chain_pems[0].bytes()]
    write_config(with_certificate(shell.directory, chain, leaf.private_key_pem.bytes()), shell.directory)
    done = shell.presign("ca")
    assert done.code == 0
    assert "The authority that signed" in done.err
    assert "(gateway.tls.cert) is neither in that file nor in the system" in done.err
