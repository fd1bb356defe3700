"""Who changes a connection by the options with which it was added gets what the keys would have done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from presign_proxy.cli import connection_settings, setting_schema
from presign_proxy.cli.connections_set import set_
from presign_proxy.cli.main import main
from presign_proxy.cli.setting_options import setting_options
from presign_proxy.config.schema.connections import PresignConnection, SourceConnection
from support.shell import Shell

SCHEMAS = {"presign": PresignConnection.model_json_schema(), "source": SourceConnection.model_json_schema()}
BY_ROTATE = {"signing_keys", "scheme", "auth.type"}
"""What no option sets: secrets, and what a connection is."""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    found = Shell(tmp_path)
    assert found.presign("init").code == 0
    added = found.presign(
        "connections", "add", "conn_a", "--preset", "github", stdin="ghp_0123456789abcdef\n"
    )
    assert added.code == 0, added.err
    return found


def entry(shell: Shell) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shell.presign("decrypt").out)["connections"]["conn_a"]
    return found


@pytest.mark.parametrize(("options", "settings"), [
    (["--paths", "repos/*,user"], ["allow.paths=repos/*,user"]),
    (["--methods", "get,post"], ["allow.methods=get,post"]),
    (["--max-lifetime", "7d"], ["max_lifetime=7d"]),
    (["--limit", "60/minute", "--limit", "concurrency 20"], ["limits=60/minute,concurrency 20"]),
    (["--max-uses", "5", "--upstream", "https://a.example"], ["max_uses=5", "upstream=https://a.example"]),
    (["--header", "X-A=1", "--header", "X-B=2=3"], ["default_headers.X-A=1", "default_headers.X-B=2=3"]),
])  # fmt: skip
def test_an_option_does_what_its_key_does(options: list[str], settings: list[str], shell: Shell) -> None:
    before = entry(shell)
    done = shell.presign("connections", "set", "conn_a", *options, "--yes")
    assert done.code == 0, done.err
    by_option = entry(shell)
    assert by_option != before
    assert shell.presign("connections", "set", "conn_a", *settings, "--yes").out.endswith(
        "nothing was changed.\n"
    )
    assert entry(shell) == by_option


def test_nothing_to_change_and_a_bad_value_are_told(shell: Shell) -> None:
    before = entry(shell)
    nothing = shell.presign("connections", "set", "conn_a", "--yes")
    assert (nothing.code, "give KEY=VALUE" in nothing.err) == (2, True)
    bad = shell.presign("connections", "set", "conn_a", "--max-lifetime", "soon", "--yes")
    assert bad.code == 2
    assert "Error: --max-lifetime: " in bad.err
    assert entry(shell) == before


def keys(schema: dict[str, Any]) -> set[str]:
    """All keys of a schema, with dots, without the members of lists and of what users name."""
    found = set()
    for name, node in schema["properties"].items():
        several = [node, *node.get("anyOf", ()), *node.get("oneOf", ())]
        several += [inner for one in several[1:] for inner in one.get("oneOf", ())]
        there = [schema["$defs"][one["$ref"].rpartition("/")[2]] for one in several if "$ref" in one]
        below = {f"{name}.{member}" for one in there for member in one["properties"]}
        found |= below or {name}
    return found


def test_no_key_of_a_connection_lacks_its_option() -> None:
    """Those of the credential are secrets, which are no arguments, and are compared by name."""
    secrets = {"token", "username", "password", "headers", "params", "client_id", "client_secret"}
    secrets |= {"private_key", "refresh_token", "certificate"}
    secrets |= {"access_key_id", "secret_access_key", "session_token"}
    wanted = keys(SCHEMAS["presign"]) | keys(SCHEMAS["source"])
    wanted -= BY_ROTATE | {f"auth.{name}" for name in secrets}
    assert {key for key, _ in setting_options()} >= wanted
    context = click.Context(set_)
    known = [name for one in set_.get_params(context) for name in one.opts]
    assert len(known) == len(set(known))
    assert {option.opts[0] for _, option in setting_options()} <= set(known)


def test_every_option_says_what_it_is_for_in_one_line_of_the_schema() -> None:
    for key, option in setting_options():
        assert option.help, key
        assert not option.help.startswith("Sets "), key
        scheme = "presign" if key in setting_schema.keys_of("presign") else "source"
        node = setting_schema.keys_of(scheme)[key]
        said = node["description"]
        assert said.endswith("."), key
        assert len(said) <= 90, key
        if "array" in setting_schema.kinds_of(node, scheme):
            assert option.help.endswith("Replaces the list."), key


def test_who_replaces_a_list_sees_what_goes_and_what_comes(shell: Shell) -> None:
    assert changed(shell, "--cors-origins", "https://a.example")["cors"]["origins"] == ["https://a.example"]
    done = shell.presign("connections", "set", "conn_a", "--cors-origins", "https://b.example", "--yes")
    assert "- cors.origins: [https://a.example]" in done.out
    assert "+ cors.origins: [https://b.example]" in done.out


def changed(shell: Shell, *options: str, name: str = "conn_a") -> dict[str, Any]:
    done = shell.presign("connections", "set", name, *options, "--yes")
    assert done.code == 0, done.all
    found: dict[str, Any] = json.loads(shell.presign("decrypt").out)["connections"][name]
    return found


def test_each_kind_of_key_is_set_by_its_option_and_removed_by_unset(shell: Shell) -> None:
    before = entry(shell)
    options = {
        "enabled": (["--no-enabled"], False),
        "pool": (["--no-pool"], False),
        "cookies": (["--cookies", "pass"], "pass"),
        "on_client_credentials": (["--on-client-credentials", "reject"], "reject"),
        "insecure_upstream": (["--insecure-upstream"], True),
        "timeouts": (
            ["--timeouts-response", "5m", "--timeouts-connect", "2s"],
            {"response": "5m", "connect": "2s"},
        ),
        "also": (
            ["--also", "b.example,a.example", "--also", "c.example"],
            [*map("{}.example".format, "abc")],
        ),
        "allow_networks": (["--allow-networks", "10.0.0.0/8"], ["10.0.0.0/8"]),
        "url_headers": (["--url-headers", "X-Next"], ["X-Next"]),
        "allow_no_expiry": (["--no-allow-no-expiry"], False),
        "head_as_get": (["--head-as-get"], True),
        "challenge": (["--challenge", "basic"], "basic"),
    }
    done = changed(shell, *(word for words, _ in options.values() for word in words))
    assert {key: done.get(key) for key in options} == {key: value for key, (_, value) in options.items()}
    one_less = changed(shell, "--unset", "timeouts.connect")
    assert one_less["timeouts"] == {"response": "5m"}
    assert changed(shell, *(word for key in options for word in ("--unset", key))) == before


def test_what_is_no_secret_of_the_credential_is_set_too(shell: Shell) -> None:
    where = ("--upstream", "https://a.test", "--auth", "oauth2", "--token-url", "https://id.test/token")
    added = shell.presign("connections", "add", "c", *where, stdin="client\nsecret-0123456789\n")
    assert added.code == 0, added.all
    found = changed(shell, "--auth-scope", "read write", "--auth-extra", "resource.id=a=b", name="c")
    assert found["auth"]["scope"] == "read write"
    assert found["auth"]["extra"] == {"resource.id": "a=b"}
    assert found["auth"]["client_secret"] == "secret-0123456789"
    assert "scope" not in changed(shell, "--unset", "auth.scope", name="c")["auth"]


def test_a_source_has_its_own_keys_and_is_told_of_others(shell: Shell) -> None:
    where = ("--origin", "https://cdn.example", "--format", "png", "--intercept", "--port", "443,8443")
    assert shell.presign("connections", "add", "pk_a", *where).code == 0
    found = changed(shell, "--mode", "allowlist", "--format", "png,jpg", "--no-intercept", name="pk_a")
    assert (found["mode"], found["formats"], found["ports"]) == ("allowlist", ["jpg", "png"], [443, 8443])
    assert found["intercept"] is False
    for name, option, said in (
        ("pk_a", "--head-as-get", "head_as_get is a key of connections of scheme presign"),
        ("conn_a", "--intercept", "intercept is a key of connections of scheme source"),
    ):
        done = shell.presign("connections", "set", name, option, "--yes")
        assert (done.code, said in done.err) == (2, True), done.all


def test_an_added_connection_takes_the_same_options(shell: Shell) -> None:
    options = (
        "--timeouts-response",
        "20m",
        "--no-allow-no-expiry",
        "--also",
        "objects.example",
        "--cookies",
        "pass",
    )
    done = shell.presign(
        "connections", "add", "conn_b", "--preset", "openai", *options, stdin="sk-KEY-0123456789\n"
    )
    assert done.code == 0, done.all
    found = json.loads(shell.presign("decrypt").out)["connections"]["conn_b"]
    assert found["timeouts"] == {"response": "20m"}
    assert (found["allow_no_expiry"], found["also"], found["cookies"]) == (False, ["objects.example"], "pass")
    assert shell.presign("connections", "show", "conn_b").code == 0


SECRET = "sk-do-not-print-0123456789abcdef"


@pytest.mark.parametrize("option", [option.opts[0] for _, option in setting_options() if not option.is_flag])
def test_a_secret_that_was_typed_in_the_wrong_place_is_not_printed(option: str) -> None:
    done = CliRunner().invoke(main, ["connections", "set", "no_such", option, SECRET, "--yes"])
    assert done.exit_code != 0
    assert SECRET not in done.output


@pytest.mark.parametrize("node", [
    {"oneOf": [{"type": "string"}, {"type": "object", "properties": {"env": {}}}]},
    {"anyOf": [{"$ref": "#/$defs/Secret"}, {"type": "null"}]},
], ids=["in place", "by reference"])  # fmt: skip
def test_a_key_that_holds_a_secret_takes_the_place_of_it_only(
    node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that a later schema has: nothing but its place may be an argument."""
    secret = {"oneOf": [{"type": "string"}, {"type": "object", "properties": {"env": {}}}]}
    tls = {"type": "object", "properties": {"client_key": node, "ca": {"type": "string"}}}
    monkeypatch.setattr(
        setting_schema, "root_of", lambda _: {"properties": {"tls": tls}, "$defs": {"Secret": secret}}
    )
    monkeypatch.setattr(connection_settings, "root_of", setting_schema.root_of)
    found = connection_settings.setting_of("tls.client_key={file: key.pem}", "", "presign")
    assert found == (("tls", "client_key"), {"file": "key.pem"})
    for text in (SECRET, f"{{token: {SECRET}}}"):
        with pytest.raises(click.UsageError, match="never an argument") as refused:
            connection_settings.setting_of(f"tls.client_key={text}", "", "presign")
        assert SECRET not in str(refused.value)
    assert connection_settings.setting_of("tls.ca=a.pem", "", "presign").value == "a.pem"


@pytest.mark.parametrize(("words", "said"), [
    (["--max-duration", "1h"], "--max-duration needs --websocket"),
    (["--max-duration", "1h", "--no-websocket"], "--max-duration needs --websocket"),
    (["max_duration=1h"], "max_duration needs websocket=true"),
])  # fmt: skip
def test_a_limit_of_websockets_needs_websockets(words: list[str], said: str, shell: Shell) -> None:
    before = entry(shell)
    done = shell.presign("connections", "set", "conn_a", *words, "--yes")
    assert (done.code, entry(shell)) == (2, before)
    assert said in done.err
    done = shell.presign("connections", "set", "conn_a", "--max-duration", "1h", "--websocket", "--yes")
    assert done.code == 0, done.err
    assert shell.presign("connections", "set", "conn_a", "--max-duration", "2h", "--yes").code == 0
    assert shell.presign("connections", "set", "conn_a", "--no-websocket", "--yes").code == 0
    assert shell.presign("connections", "set", "conn_a", "max_duration=", "--yes").code == 0


def test_a_limit_of_websockets_is_refused_before_the_key_is_asked_for(shell: Shell) -> None:
    more = ("--max-duration", "1h")
    done = shell.presign("connections", "add", "conn_b", "--preset", "github", *more)
    assert (done.code, "--max-duration needs --websocket" in done.err) == (2, True)
    # This preset has WebSockets.
    added = shell.presign(
        "connections", "add", "conn_b", "--preset", "openai", *more, stdin="sk-0123456789ab\n"
    )
    assert added.code == 0, added.err
