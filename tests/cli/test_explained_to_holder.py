"""`presign explain` and `verify` in the hands of somebody who has a URL, and no configuration."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from support.shell import Done, Shell
from support.signing import sign, source_url

SECRET = "sk_holder_0123456789abcdef0123456789"
BASE = "https://gateway.example.com"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, SIGNING_SECRET=SECRET)


def minted(shell: Shell, *options: str) -> str:
    """Mint a grant elsewhere: nothing of a configuration is where the holder is."""
    done = shell.presign(
        *("sign", "conn_a", "v1/models", "--secret-env", "SIGNING_SECRET", "--base", BASE), *options
    )
    assert done.code == 0, done.all
    return done.out.strip()


def test_a_pattern_of_another_upstream_is_held_against_the_host(shell: Shell) -> None:
    token = minted(shell, "--paths", "@uploads/repos/*", "--as", "key")
    curl = f"curl -H 'Authorization: Bearer {token}' https://uploads.example.com/repos/x"
    done = shell.presign("explain", "--secret-env", "SIGNING_SECRET", curl)
    assert done.code == 0, done.all
    assert "That holds if https://uploads.example.com is the upstream @uploads" in done.out
    other = shell.presign("explain", curl.replace("/repos/x", "/other"))
    assert other.code == 1
    assert "path_not_allowed" in other.out


def told(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.out)
    return found


def steps(found: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["outcome"] for step in found["steps"]}


def test_a_url_says_what_it_grants_and_what_only_the_gateway_knows(shell: Shell) -> None:
    url = minted(shell, "--methods", "GET,POST", "--paths", "v1/*", "--max-uses", "3", "--id", "nightly")
    done = shell.presign("explain", url)
    assert done.code == 1  # it is not known to be granted
    assert done.out.startswith("Cannot be verified without the secret. Nothing else speaks against")
    for text in ('"conn_a"', "Methods GET,POST; paths v1/*.", "Version 2", "3 uses in all", "nightly"):
        assert text in done.out, text
    assert "59 min left" in done.out or "1 hour left" in done.out
    assert "how many of the 3 uses are left" in done.out
    assert "/v1/models matches the signed" in done.out
    assert url.rpartition("=")[2] not in done.out  # the signature
    said = told(shell.presign("explain", url, "--json"))
    assert said["verdict"]["decision"] == "unknown"
    assert said["presign"]["methods"] == ["GET", "POST"]
    assert said["presign"]["paths"] == ["v1/*"]
    assert said["presign"]["version"] == 2
    assert said["presign"]["policy"] == {"X-Presign-Max-Uses": "3", "X-Presign-Id": "nightly"}
    assert said["presign"]["expired"] is False
    assert abs(said["presign"]["expires"] - time.time() - 3600) < 120
    assert steps(said)["signature"] == "note"


@pytest.mark.parametrize("form", ["url", "token", "headers", "curl"])
def test_every_form_can_be_pasted(shell: Shell, form: str) -> None:
    text = minted(shell, "--as", form, "--paths", "v1/*")
    done = shell.presign("verify", "-", "--secret-env", "SIGNING_SECRET", stdin=text)
    assert (done.code, done.out) == (
        0,
        "Good: the given secret made the signature, and it covers this request.\n",
    ), done.all
    unknown = shell.presign("verify", "-", stdin=text)
    assert unknown.code == 1
    assert unknown.out.startswith("Cannot be verified without the secret.")


def test_a_secret_from_a_file_says_that_the_signature_is_right(shell: Shell) -> None:
    (shell.directory / "secret").write_text(SECRET + "\n")
    said = told(shell.presign("explain", minted(shell), "--secret-file", "secret", "--json"))
    assert said["verdict"]["decision"] == "good"
    assert steps(said)["signature"] == "ok"
    assert not any("signature is right" in text for text in said["unknown"])


def test_another_secret_is_told_apart_and_never_printed(shell: Shell) -> None:
    other = "sk_other_0123456789abcdef0123456789"
    for flags in ((), ("--json",)):
        done = shell.presign("explain", minted(shell), "--secret-env", "OTHER", *flags, OTHER=other)
        assert done.code == 1
        assert "did not make this signature" in done.out
        assert "No usual mistake explains the signature" in done.out
        assert other not in done.all


def test_the_usual_mistake_with_a_secret_is_named(shell: Shell) -> None:
    fields = ("conn_a", "0", "GET", "v1/models")
    signature = sign(SECRET + "\n", "\n".join(("PRESIGN-HMAC-SHA256", *fields)))
    names = ("Connection", "Expires", "Methods", "Paths")
    headers = "\n".join(f"X-Presign-{name}: {value}" for name, value in zip(names, fields, strict=True))
    text = f"{headers}\nX-Presign-Signature: {signature}"
    said = told(shell.presign("explain", "-", "--secret-env", "SIGNING_SECRET", "--json", stdin=text))
    assert [finding["name"] for finding in said["findings"]] == ["secret_newline"]


def test_all_that_is_wrong_is_said_at_once(shell: Shell) -> None:
    url = minted(shell, "--paths", "v1/chat/*")
    done = shell.presign("explain", url, "--method", "DELETE", "--at", "2040-01-01T00:00:00Z", "--json")
    said = told(done)
    assert {name for name, outcome in steps(said).items() if outcome == "refused"} == {
        "expiry",
        "methods",
        "path",
    }
    assert said["verdict"]["code"] == "expired"
    assert said["verdict"]["detail"].startswith("it expired 4")  # days, in words
    assert "days" in said["verdict"]["detail"]
    assert said["presign"]["expired"] is True
    assert "connection allows" not in done.out


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda url: url.partition("?")[0], "query_lost"),
        (lambda url: url.partition("&")[0], "cut_at_ampersand"),
        (lambda url: url[:-9], "signature_cut"),
        (lambda url: url + "/v1/models", "path_glued"),
        (lambda url: url.replace("Methods=GET", "Methods=get%2CPOST"), "lower_case_methods"),
    ],
)
def test_what_is_wrong_with_it_shows_without_the_secret(shell: Shell, change: Any, finding: str) -> None:
    done = shell.presign("explain", change(minted(shell)), "--json")
    assert done.code == 1
    assert finding in [found["name"] for found in told(done)["findings"]], done.out
    assert "unexplained" not in done.out


def test_a_url_of_the_api_itself_names_the_base_path_it_needs(shell: Shell) -> None:
    token = minted(shell, "--as", "token", "--paths", "models")
    line = f"GET /v1/models HTTP/1.1\nHost: api.example.com\nAuthorization: Bearer {token}"
    done = shell.presign("explain", "-", "--secret-env", "SIGNING_SECRET", stdin=line)
    assert done.code == 0, done.all
    assert "That holds if the API's paths begin at /v1." in done.out


def test_a_presign_that_names_no_connection_is_verified_with_its_name(shell: Shell) -> None:
    fields = ("conn_a", "0", "GET", "v1/*")
    signature = sign(SECRET, "\n".join(("PRESIGN-HMAC-SHA256", *fields)))
    url = (
        "https://api.example.com/v1/models?X-Presign-Expires=0&X-Presign-Methods=GET"
        f"&X-Presign-Paths=v1/*&X-Presign-Signature={signature}"
    )
    asked = ("verify", url, "--secret-env", "SIGNING_SECRET")
    assert "--connection ID" in shell.presign(*asked).out
    assert shell.presign(*asked).code == 1
    assert shell.presign(*asked, "--connection", "conn_a").code == 0
    assert shell.presign(*asked, "--connection", "conn_b").code == 1
    alone = shell.presign("verify", url, "--connection", "conn_a")
    assert alone.code == 2
    assert "--secret-env" in alone.err


def test_a_source_url_is_explained_too(shell: Shell) -> None:
    exp = int(time.time()) + 600
    url = BASE + source_url(SECRET, "pk_a", "https://cdn.example.com:8443/a.png", exp, "png")
    said = told(shell.presign("explain", url, "--json"))
    assert said["verdict"]["decision"] == "unknown"
    assert said["presign"]["url"] == "https://cdn.example.com:8443/a.png"
    assert shell.presign("verify", url, "--secret-env", "SIGNING_SECRET").code == 0
    late = shell.presign("verify", url, "--at", "2040-01-01T00:00:00Z")
    assert late.code == 1
    assert "Refused: 403 expired" in late.out


def test_a_text_without_presign_is_no_grant(shell: Shell) -> None:
    done = shell.presign("explain", "https://example.com/a?b=c")
    assert (done.code, done.out) == (1, "")
    assert "carries no presign" in done.err
    encoded = base64.b64encode(b"user:password").decode()
    assert "no presign" in shell.presign("explain", "curl", "-H", f"Authorization: Basic {encoded}", BASE).err


def test_a_configuration_that_was_named_must_be_there(shell: Shell) -> None:
    url = minted(shell)
    for how in ({"PRESIGN_CONFIG": "gone.yaml"}, {}):
        options = () if how else ("--config", "gone.yaml")
        done = shell.presign("explain", url, *options, **how)
        assert (done.code, done.out) == (1, "")
        assert "gone.yaml: no such file" in done.err
    (shell.directory / "config.yaml").symlink_to("nowhere")
    assert shell.presign("verify", url).code == 1
    assert "config.yaml" in shell.presign("verify", url).err


def test_with_a_configuration_the_gateway_decides_unless_a_secret_is_given(shell: Shell) -> None:
    assert shell.presign("init").code == 0
    url = minted(shell)
    done = shell.presign("verify", url)
    assert done.code == 1
    assert done.out.startswith("Refused: 403 invalid") or done.out.startswith("Refused: 404")
    assert shell.presign("verify", url, "--secret-env", "SIGNING_SECRET").code == 0


def test_a_missing_secret_is_named_and_verifies_nothing(shell: Shell) -> None:
    done = shell.presign("verify", minted(shell), "--secret-env", "NOT_SET")
    assert (done.code, done.out) == (1, "")
    assert "NOT_SET is not set or empty" in done.err


def test_what_was_not_signed_is_not_explained(shell: Shell) -> None:
    """A policy with uses alone says nothing of a first moment, of networks or of a body."""
    done = shell.presign("explain", minted(shell, "--max-uses", "1"))
    assert "1 use in all" in done.out
    assert "whether its only use is left" in done.out
    for text in ("None", "1970", "networks", "1 uses"):
        assert text not in done.out, text
    assert (
        not {"not_before", "client", "body"}
        & steps(told(shell.presign("explain", minted(shell), "--json"))).keys()
    )
