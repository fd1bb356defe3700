"""What `presign connections add` takes beside a key: limits, headers, another upstream, sources."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from support.private_keys import pem, rsa_key, service_account
from support.shell import MODULE, Shell

KEY = "sk-KEY-0123456789"
API = ("conn_a", "--upstream", "https://a.test", "--auth", "bearer")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    assert shell.presign("init").code == 0
    return shell


def added(shell: Shell, *options: str, stdin: str = f"{KEY}\n") -> dict[str, Any]:
    """The entry that the options make, without what is always there."""
    done = shell.presign("connections", "add", *options, "--json", stdin=stdin)
    assert done.code == 0, done.all
    name = json.loads(done.out)["id"]
    entry: dict[str, Any] = json.loads(shell.presign("decrypt").out)["connections"][name]
    assert [key["id"] for key in entry.pop("signing_keys")] == ["k1"]
    assert shell.presign("check").code == 0
    return entry


def test_limits_uses_headers_and_ceilings_are_options(shell: Shell) -> None:
    limits = ("--limit", "60/minute burst 10 per url", "--limit", "1000/month", "--limit", "concurrency 20")
    ceiling = ("--methods", "get", "--paths", "v1/*", "--max-lifetime", "7d", "--max-uses", "5")
    assert added(shell, *API, *limits, *ceiling, "--header", "X-Version=2", "--header", "X-Sum=a=b") == {
        "upstream": "https://a.test",
        "auth": {"type": "bearer", "token": KEY},
        "allow": {"methods": ["GET"], "paths": ["v1/*"]},
        "max_lifetime": "7d",
        "limits": [
            {"rate": "60/minute", "burst": 10, "per": "url"},
            {"quota": "1000/month"},
            {"concurrency": 20},
        ],
        "max_uses": 5,
        "default_headers": {"X-Version": "2", "X-Sum": "a=b"},
    }


@pytest.mark.parametrize("preset", ["gitlab", "sentry", "azure-openai"])
def test_the_software_of_a_provider_runs_elsewhere_too(shell: Shell, preset: str) -> None:
    """Where the host has variables, none is asked for: the upstream replaces the host."""
    entry = added(shell, "conn_own", "--preset", preset, "--upstream", "https://own.corp.example/base")
    assert entry == {"preset": preset, "upstream": "https://own.corp.example/base", "auth": {"token": KEY}}
    shown = json.loads(shell.presign("connections", "show", "conn_own", "--json").out)
    assert shown["upstream"] == "https://own.corp.example/base"
    assert KEY not in json.dumps(shown)


def test_sources_need_no_key(shell: Shell) -> None:
    options = ("pk_abc", "--origin", "https://cdn.acme.com", "--format", "png,jpg", "--limit", "9/second")
    assert added(shell, *options, stdin="") == {
        "scheme": "source",
        "mode": "signed",
        "allowed_origins": ["https://cdn.acme.com"],
        "formats": ["jpg", "png"],
        "limits": [{"rate": "9/second"}],
    }
    signed = shell.presign("sign", "pk_abc", "https://cdn.acme.com/hero.png", "--format", "png")
    assert shell.presign("verify", signed.out.strip()).code == 0


def test_a_source_at_an_address_that_is_not_public_is_refused_until_its_network_is_listed(
    shell: Shell,
) -> None:
    where = "http://127.0.0.1:9000"
    done = shell.presign("connections", "add", "pk_abc", "--origin", where, "--format", "png")
    assert f"The gateway refuses {where}: it is no public address" in done.err
    allow = "connections set pk_abc --allow-networks 127.0.0.1"
    assert allow in done.err
    signed = shell.presign("sign", "pk_abc", f"{where}/a.png").out.strip()
    found = shell.presign("explain", signed)
    assert found.code == 1
    assert "Refused: 403 invalid: the source resolves to an address that is not public." in found.out
    assert "Granted" not in found.out
    assert "allow_networks" in found.out
    assert shell.presign("verify", signed).code == 1
    assert shell.presign(*allow.split(), "--yes").code == 0
    found = shell.presign("explain", signed)
    assert found.out.startswith("Granted: the gateway forwards it without a credential.")


def test_sources_take_a_key_where_it_is_said_how_it_is_sent(shell: Shell) -> None:
    options = ("pk_abc", "--origin", "https://cdn.acme.com", "--format", "png", "--auth", "bearer")
    assert added(shell, *options)["auth"] == {"type": "bearer", "token": KEY}


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--limit", "often"), 2, "a limit is 60/minute"),
        (("--limit", "60/fortnight"), 2, "--limit: item 1: has to be a rate"),
        (
            ("--limit", "60/minute", "--limit", "9/minute"),
            2,
            "--limit: item 2: another limit counts the same thing",
        ),
        (("--max-uses", "0"), 2, "--max-uses has to be a whole number from 1"),
        (("--cors-origins", "https://a.test,https://b.test/"), 2, "--cors-origins: item 2: "),
        (("--paths", "v1/x, v1/y"), 2, "--paths has a blank before or behind an item"),
        (("--timeouts-response", "soon"), 2, "--timeouts-response: "),
        (("--header", "X-Version"), 2, "--header needs NAME=VALUE"),
        (("--header", f"Authorization={KEY}"), 2, "--header: Authorization: is a header for credentials"),
        (("--header", f"Authorization: {KEY}"), 2, "--header needs NAME=VALUE"),
        (("--origin", "https://b.test", "--format", "jpg"), 2, "--upstream is for APIs"),
    ],
)
def test_an_option_that_means_nothing_is_refused_and_nothing_is_added(
    shell: Shell, options: tuple[str, ...], code: int, said: str
) -> None:
    before = (shell.directory / "connections.enc").read_bytes()
    done = shell.presign("connections", "add", *API, *options, stdin="")  # before the key is asked for
    assert (done.code, said in done.err) == (code, True), done.all
    assert KEY not in done.all
    assert (shell.directory / "connections.enc").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--origin", "https://a.test"), "--origin and --format"),
        (("--format", "jpg"), "--origin and --format"),
        (("--origin", "https://a.test", "--format", "jpg", "--credential-env", "A"), "a key needs --auth"),
        (("--origin", "https://a.test", "--format", "jpg", "--header", "A=b"), "--header is for APIs"),
        (("--preset", "openai", "--upstream", "https://a.test", "--auth", "basic"), "exclude --preset"),
        (("--preset", "azure-openai", "--upstream", "https://a.test", "--var", "resource=x"), "--var"),
    ],
)
def test_options_that_contradict_are_a_usage_error(shell: Shell, options: tuple[str, ...], said: str) -> None:
    done = shell.presign("connections", "add", "conn_b", *options, stdin=f"{KEY}\n")
    assert (done.code, said in done.err) == (2, True), done.all


def test_a_name_that_is_taken_is_told_how_to_change_it(shell: Shell) -> None:
    added(shell, *API)
    done = shell.presign("connections", "add", *API, stdin=f"{KEY}\n")
    assert done.code == 1
    assert "connections set conn_a" in done.err


@pytest.mark.parametrize(
    ("options", "hinted"),
    [
        (("--methods", "GET"), "user"),
        (("--paths", "repos/acme/app/*"), "repos/acme/app/PATH"),
        (
            ("--methods", "POST", "--paths", "repos/acme/app/releases"),
            "repos/acme/app/releases --methods POST",
        ),
        (("--max-lifetime", "10m"), "user"),
    ],
)
def test_the_next_command_signs_what_the_new_connection_allows(
    options: tuple[str, ...], hinted: str, shell: Shell
) -> None:
    done = shell.presign("connections", "add", "--preset", "github", *options, stdin=f"{KEY}\n")
    (line,) = re.findall(r"^Next: .* (sign .*)$", done.err, re.MULTILINE)
    assert line == f"sign conn_github {hinted}"
    signed = shell.presign(*shlex.split(line.replace("PATH", "issues")))
    assert signed.code == 0, signed.all


def test_a_credential_in_the_path_is_added_shown_and_edited_without_being_seen(shell: Shell) -> None:
    """The stars for members that are no secrets were kept on editing, and nothing could be saved."""
    token = "123456:AAH-secret_of_a_bot"
    where = (
        "conn_bot",
        "--upstream",
        "https://api.telegram.org",
        "--auth",
        "path",
        "--template",
        "/bot{token}",
    )
    entry = added(shell, *where, stdin=f"{token}\n")
    assert entry["auth"] == {"type": "path", "template": "/bot{token}", "token": token}
    shown = shell.presign("connections", "show", "conn_bot")
    assert "/bot{token}" in shown.out
    assert token not in shown.all
    edited = shell.presign("connections", "edit", "conn_bot", "--yes", EDITOR="sed -i 's|/bot|/v2/bot|'")
    assert edited.code == 0, edited.all
    url = shell.presign("sign", "conn_bot", "getMe").out.strip()
    explained = shell.presign("explain", url)
    assert "https://api.telegram.org/v2/botpresign:conn_bot/getMe" in explained.out
    assert token not in explained.all
    new = shell.presign("connections", "rotate", "conn_bot", "--credential", stdin="777:NEW-secret\n")
    assert new.code == 0, new.all
    auth = json.loads(shell.presign("decrypt").out)["connections"]["conn_bot"]["auth"]
    assert auth == {"type": "path", "template": "/v2/bot{token}", "token": "777:NEW-secret"}


@pytest.mark.parametrize(
    ("options", "stdin", "code", "said"),
    [
        (("--auth", "path"), "a", 2, "--template belong together"),
        (("--auth", "bearer", "--template", "/{token}"), "a", 2, "--template belong together"),
        (("--auth", "path", "--template", "/bot"), "a", 1, "has to be a path with {token} once"),
        (("--auth", "path", "--template", "/../{token}"), "a", 1, "has to be a path with {token} once"),
        (("--auth", "path", "--template", "/{token}"), "SECRET/../x", 1, "has to be a part of a path"),
        (("--auth", "path", "--template", "/{token}"), "https://a.test/SECRET", 1, "has to be a part of"),
    ],
)
def test_a_path_that_could_lead_elsewhere_is_not_added(
    shell: Shell, options: tuple[str, ...], stdin: str, code: int, said: str
) -> None:
    done = shell.presign(
        "connections", "add", "c", "--upstream", "https://a.test", *options, stdin=f"{stdin}\n"
    )
    assert (done.code, said in done.err) == (code, True), done.all
    assert "SECRET" not in done.all


def test_a_webhook_is_told_how_its_root_is_signed(shell: Shell) -> None:
    done = shell.presign("connections", "add", "--preset", "slack-webhook", stdin="T0/B0/XXXXXXXXXXXX\n")
    assert done.code == 0, done.all
    words = shlex.split(done.err.rpartition("Next: ")[2])
    assert shell.presign(*words[words.index("sign") :]).code == 0


WITH_TOKENS = ("--upstream", "https://a.test", "--auth", "oauth2", "--token-url", "https://id.test/token")


def test_a_client_of_a_token_endpoint_is_added_and_its_secret_replaced(shell: Shell) -> None:
    entry = added(shell, "conn_o", *WITH_TOKENS, "--scope", "read write", stdin=f"my-client\n{KEY}\n")
    assert entry["auth"] == {
        "type": "oauth2",
        "token_url": "https://id.test/token",
        "scope": "read write",
        "client_id": "my-client",
        "client_secret": KEY,
    }
    shown = shell.presign("connections", "show", "conn_o")
    assert "https://id.test/token" in shown.out
    assert KEY not in shown.all
    explained = shell.presign("explain", shell.presign("sign", "conn_o", "v1/x").out.strip())
    assert explained.code == 0, explained.all
    assert KEY not in explained.all
    replaced = shell.presign("connections", "rotate", "conn_o", "--credential", stdin="NEW-secret-0123\n")
    assert replaced.code == 0, replaced.all
    auth = json.loads(shell.presign("decrypt").out)["connections"]["conn_o"]["auth"]
    assert (auth["client_id"], auth["client_secret"]) == ("my-client", "NEW-secret-0123")


def test_the_file_of_a_service_account_is_named_and_never_copied(shell: Shell) -> None:
    file = shell.directory / "sa.json"
    file.touch(0o600)
    file.write_text(service_account())
    entry = added(shell, "--preset", "vertex", "--var", "location=us-east1", "--credential-file", "sa.json")
    assert entry["auth"] == {"token": {"file": "sa.json"}}
    entry = added(shell, "c", *WITH_TOKENS, "--grant", "jwt_bearer", "--credential-file", "sa.json")
    assert entry["auth"]["private_key"] == {"file": "sa.json"}
    assert "PRIVATE" not in shell.presign("connections", "show", "c").all


def test_a_github_app_is_added_by_its_file_and_its_id_is_asked_for(shell: Shell) -> None:
    file = shell.directory / "app.pem"
    file.touch(0o600)
    file.write_text(pem(rsa_key()))
    preset = ("--preset", "github-app", "--var", "installation=123", "--credential-file", "app.pem")
    entry = added(shell, *preset, stdin="Iv1.client\n")
    assert entry["auth"] == {"type": "oauth2", "client_id": "Iv1.client", "private_key": {"file": "app.pem"}}
    assert "PRIVATE" not in shell.presign("connections", "show", "conn_github_app").all
    rotated = shell.presign("connections", "rotate", "conn_github_app", "--credential", stdin=pem(rsa_key()))
    assert rotated.code == 0, rotated.all
    auth = json.loads(shell.presign("decrypt").out)["connections"]["conn_github_app"]["auth"]
    assert auth["private_key"] == pem(rsa_key()).strip()
    shown = shell.presign("connections", "show", "conn_github_app")
    assert "PRIVATE" not in shown.all
    url = shell.presign("sign", "conn_github_app", "user").out.strip()
    explained = shell.presign("explain", url)
    assert explained.code == 0, explained.all
    assert "PRIVATE" not in explained.all


def test_a_key_of_aws_is_added_shown_without_its_secret_and_replaced_with_its_id(shell: Shell) -> None:
    entry = added(shell, "--preset", "bedrock", "--var", "region=eu-west-1", stdin=f"AKIAFIRST\n{KEY}\n")
    assert entry["auth"] == {"type": "aws_sigv4", "access_key_id": "AKIAFIRST", "secret_access_key": KEY}
    shown = shell.presign("connections", "show", "conn_bedrock")
    assert "aws_sigv4" in shown.out
    assert KEY not in shown.all
    url = shell.presign("sign", "conn_bedrock", "model/m/converse", "--methods", "POST").out.strip()
    explained = shell.presign("explain", url, "--method", "POST")
    assert explained.code == 0, explained.all
    assert "AWS4-HMAC-SHA256 presign:conn_bedrock" in explained.all
    assert KEY not in explained.all
    changed = shell.presign("connections", "set", "conn_bedrock", "auth.region=us-east-1", "--yes")
    assert KEY not in changed.all
    new = "N3W/secret-access-key-0123456789"
    done = shell.presign(
        "connections", "rotate", "conn_bedrock", "--credential", stdin=f"AKIASECOND\n{new}\n"
    )
    assert done.code == 0, done.all
    auth = json.loads(shell.presign("decrypt").out)["connections"]["conn_bedrock"]["auth"]
    assert (auth["access_key_id"], auth["secret_access_key"]) == ("AKIASECOND", new)
    assert new not in done.all


def test_a_host_that_names_no_service_of_aws_needs_options(shell: Shell) -> None:
    where = ("c", "--upstream", "https://minio.test", "--auth", "aws_sigv4")
    done = shell.presign("connections", "add", *where, stdin=f"minio\n{KEY}\n")
    assert (done.code, "cannot be told from the host" in done.err) == (1, True), done.all
    entry = added(shell, *where, "--service", "s3", "--region", "us-east-1", stdin=f"minio\n{KEY}\n")
    assert (entry["auth"]["service"], entry["auth"]["region"]) == ("s3", "us-east-1")
    done = shell.presign("connections", "add", "d", "--upstream", "https://a.test", "--service", "s3")
    assert (done.code, "need --auth aws_sigv4" in done.err) == (2, True), done.all


HARBOR = ("--token-url", "https://harbor.test/service/token", "--service", "harbor-registry")


def test_a_registry_is_added_with_user_and_password(shell: Shell) -> None:
    entry = added(shell, "--preset", "oci", stdin=f"me\n{KEY}\n")
    assert entry == {
        "preset": "oci",
        "auth": {"type": "registry_token", "username": "me", "password": KEY},
    }
    url = shell.presign("sign", "conn_oci", "v2/team/app/manifests/1", "--paths", "v2/team/app/*").out.strip()
    explained = shell.presign("explain", url)
    assert "token: from https://auth.docker.io, for repository:team/app:pull" in explained.all
    assert KEY not in explained.all
    done = shell.presign(
        "connections", "rotate", "conn_oci", "--credential", stdin="another-token-0123456789\n"
    )
    assert done.code == 0, done.all
    auth = json.loads(shell.presign("decrypt").out)["connections"]["conn_oci"]["auth"]
    assert (auth["username"], auth["password"]) == ("me", "another-token-0123456789")


def test_another_registry_is_added_with_its_own_token_service(shell: Shell) -> None:
    where = ("harbor", "--preset", "oci", "--upstream", "https://harbor.test")
    done = shell.presign("connections", "add", *where, stdin=f"me\n{KEY}\n")
    assert done.code != 0
    assert "the token service of harbor.test is not known" in done.err, done.all
    done = shell.presign("connections", "add", *where, *HARBOR[:2], stdin=f"me\n{KEY}\n")
    assert (done.code, "--token-url and --service of a registry belong together" in done.err) == (2, True)
    entry = added(shell, *where, *HARBOR, stdin=f"me\n{KEY}\n")
    assert entry["auth"]["token_url"] == HARBOR[1]
    assert entry["auth"]["service"] == HARBOR[3]
    typed = ("other", "--upstream", "https://harbor.test", "--auth", "registry_token")
    entry = added(shell, *typed, *HARBOR, stdin=f"me\n{KEY}\n")
    assert entry["auth"]["password"] == KEY
    known = added(shell, "hub", "--preset", "oci", "--upstream", "https://ghcr.io", stdin=f"me\n{KEY}\n")
    assert "token_url" not in known["auth"]
    done = shell.presign("connections", "add", "--preset", "openai", *HARBOR)
    assert (done.code, "exclude --preset" in done.err) == (2, True)


def test_a_refresh_token_is_asked_for_where_its_grant_is_said(shell: Shell) -> None:
    entry = added(
        shell, "conn_o", *WITH_TOKENS, "--grant", "refresh_token", stdin=f"my-client\n{KEY}\nrefresh-1\n"
    )
    assert entry["auth"]["grant"] == "refresh_token"
    assert entry["auth"]["refresh_token"] == "refresh-1"
    preset = ("--preset", "salesforce", "--var", "domain=acme")
    assert added(shell, *preset, stdin=f"consumer\n{KEY}\n")["auth"]["client_secret"] == KEY


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--auth", "oauth2"), 2, "--token-url belong together"),
        (("--auth", "bearer", "--token-url", "https://id.test"), 2, "--token-url belong together"),
        (("--auth", "bearer", "--scope", "x"), 2, "need --auth oauth2"),
        (("--auth", "oauth2", "--token-url", "ftp://id.test"), 1, "has to be an http(s) URL"),
        (("--auth", "oauth2", "--token-url", "http://id.test/token"), 1, "is not https"),
        (("--auth", "oauth2", "--token-url", "https://me:pw@id.test/"), 1, "has to be an http(s) URL"),
    ],
)
def test_an_endpoint_that_may_not_be_asked_is_not_added(
    shell: Shell, options: tuple[str, ...], code: int, said: str
) -> None:
    given = ("connections", "add", "c", "--upstream", "https://a.test", *options)
    done = shell.presign(*given, stdin=f"client\n{KEY}\n")
    assert (done.code, said in done.err) == (code, True), done.all
    assert KEY not in done.all


@pytest.mark.parametrize("verb", ["add", "set"])
@pytest.mark.parametrize(
    ("upstream", "said"),
    [
        (
            "http://intranet.example",
            "--upstream is not https: the network could read the credential (--insecure",
        ),
        ("ftp://files.example", "--upstream is not an http(s) URL"),
    ],
)
def test_a_wrong_upstream_is_refused_before_the_key_is_asked_for(
    verb: str, upstream: str, said: str, shell: Shell
) -> None:
    if verb == "set":
        added(shell, "conn_a", "--upstream", "https://api.example", "--auth", "bearer")
    auth = ("--auth", "bearer") if verb == "add" else ()
    done = shell.presign("connections", verb, "conn_a", "--upstream", upstream, *auth, stdin="")
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "insecure_upstream" not in done.err
    assert "API key of" not in done.err


def test_an_upstream_without_tls_is_taken_where_it_is_allowed(shell: Shell) -> None:
    options = ("--upstream", "http://intranet.example", "--auth", "bearer", "--insecure-upstream")
    assert added(shell, "conn_a", *options)["insecure_upstream"] is True


def test_a_value_typed_at_the_question_is_told_of_as_one_and_is_not_repeated(shell: Shell) -> None:
    """The sentence named --var, which nobody had typed."""
    argv = [*MODULE, "connections", "add", "--preset", "azure-openai"]
    done = shell.terminal(argv, ["https://acme.openai.azure.com"])
    assert done.code == 1
    assert "that cannot be the resource: the value is a part of a host name" in done.out
    assert "--var" not in done.out
