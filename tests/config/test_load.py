"""The configuration file: what is accepted, and how everything else is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from presign_proxy.config.auth_types import AUTH_TYPES, AuthName
from presign_proxy.config.forms import FORMS
from presign_proxy.config.load import load
from presign_proxy.config.path import locate
from presign_proxy.config.presets.model import PresetsFile
from presign_proxy.config.schema.config import Config
from presign_proxy.config.schema.connections import Auth
from presign_proxy.config.schema.registry import RegistryFile
from presign_proxy.config.strict_yaml import parse
from presign_proxy.config_problems import ConfigError
from presign_proxy.core.connection import Connection
from presign_proxy.core.credentials import BasicCredential, HeaderCredential, QueryCredential
from support.places import ROOT

SECRET = "sk_0123456789abcdef0123456789abcdef"
KEY = "sk-REALSECRET-0123456789"


def api(**changes: Any) -> dict[str, Any]:
    plain = {
        "upstream": "https://api.example.com",
        "auth": {"type": "bearer", "token": KEY},
        "signing_keys": [{"secret": SECRET}],
    }
    return {**plain, **changes}


@pytest.fixture
def write(tmp_path: Path):
    tmp_path.chmod(0o700)

    def write(content: str | dict[str, Any], name: str = "config.yaml", mode: int = 0o600) -> Path:
        path = tmp_path / name
        path.touch(mode=0o600)
        path.write_text(
            content
            if isinstance(content, str)
            else yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False)
        )
        path.chmod(mode)
        return path

    return write


def problems(path: Path, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(path, environ or {})
    found = [str(problem) for problem in error.value.problems]
    assert not any(KEY in line or SECRET in line for line in found)
    return [line.removeprefix(f"{path}:") for line in found]


def one(write, connection: dict[str, Any], environ: dict[str, str] | None = None) -> Connection:
    return load(write({"connections": {"conn": connection}}), environ or {}).registry.connections["conn"]


def test_a_connection_in_five_lines(write) -> None:
    found = one(write, api())
    assert str(found.upstream.origin) == "https://api.example.com"
    assert (found.ceiling.methods, found.ceiling.allow_no_expiry, found.enabled) == (("*",), True, True)


def test_everything_wrong_is_told_at_once_with_its_place(write) -> None:
    path = write(
        """\
gateway:
  hosts: [presign.local, "bad host"]
  unsigned: maybe
connections:
  conn_a:
    upstream: http://api.example.com
    auth: {type: bearer, token: {env: MISSING}}
    signing_keys: [{secret: short}]
    colour: blue
  conn_b:
    upstream: ftp://x
    auth: {type: bearer, token: {env: MISSING}}
    signing_keys: [{secret: short}]
  "bad id":
    upstream: https://x.example
"""
    )
    text = "\n".join(problems(path))
    for expected in (
        "3:3: gateway.unsigned: ",
        "2:26: gateway.hosts.1: is not a host name or address",
        "9:5: connections.conn_a.colour: is not a key that is known here",
        "11:5: connections.conn_b.upstream: is not an http(s) URL",
        "12:26: connections.conn_b.auth.token: the environment variable MISSING is not set or empty",
        "13:21: connections.conn_b.signing_keys.0.secret: is shorter than 16 bytes",
        "connections.bad id",
    ):
        assert expected in text, text


YAML = {
    "a: 1\na: 2\n": "2:1: a: this key is given twice",
    "gateway: {hosts: &x [a]}\n": "anchors are not allowed",
    "a: &x 1\nb: *x\n": "aliases are not allowed",
    "a: !!python/object/apply:os.system [id]\n": "tags are not allowed",
    "a: !secret x\n": "tags are not allowed",
    "a: {<<: {b: 1}}\n": "merge keys are not allowed",
    "connections: {c: {enabled: no}}\n": "is ambiguous",
    "connections: {c: {enabled: Yes}}\n": "is ambiguous",
    "a: 1\n---\nb: 2\n": "more than one document",
    "? [a, b]\n: 1\n": "a key is not plain text",
    'key: "sk-REALSECRET-0123456789\n': "is not valid YAML",
    "key: [sk-REALSECRET-0123456789\n": "is not valid YAML",
    "a: b: sk-REALSECRET-0123456789\n": "is not valid YAML",
    "[" * 5000: "is not",
    "a: \x00": "is not valid YAML",
    "- 1\n": "has to be a mapping",
    "text\n": "has to be a mapping",
}


@pytest.mark.parametrize("content", YAML, ids=lambda content: repr(content[:30]))
def test_yaml_that_could_mean_two_things_is_refused(write, content: str) -> None:
    text = "\n".join(problems(write(content)))
    assert YAML[content] in text
    assert "REALSECRET" not in text


def test_a_billion_laughs_are_not_even_read(write) -> None:
    bomb = "a: &a [x]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "aliases are not allowed" in "\n".join(problems(write(bomb)))


def test_numbers_and_words_mean_what_they_look_like() -> None:
    data = parse(
        b"{a: 1, b: 012, c: 1e3, d: 0x1f, e: 60:30, f: null, g: '1', h: -5, i: 2027-01-01}", "f"
    ).data
    assert data == {
        "a": 1,
        "b": "012",
        "c": "1e3",
        "d": "0x1f",
        "e": "60:30",
        "f": None,
        "g": "1",
        "h": -5,
        "i": "2027-01-01",
    }


WRONG = {
    "http towards the world": (api(upstream="http://api.example.com"), "is not https"),
    "user name in the URL": (api(upstream="https://u:p@api.example.com"), "without user name"),
    "query in the URL": (api(upstream="https://api.example.com/?a=1"), "without user name, query"),
    "dots in the URL": (api(upstream="https://api.example.com/a/../b"), "its path has segments"),
    "no keys": (api(signing_keys=[]), "is required: nothing can be signed"),
    "five keys": (api(signing_keys=[{"secret": SECRET}] * 5), "at most 4"),
    "a weak secret": (api(signing_keys=[{"secret": "sk_your_secret"}]), "is shorter than 16 bytes"),
    "an empty secret": (api(signing_keys=[{"secret": ""}]), "has to be a secret"),
    "a key twice": (api(signing_keys=[{"id": "k", "secret": SECRET}] * 2), "another key has this id"),
    "a time without zone": (
        api(signing_keys=[{"secret": SECRET, "not_after": "2027-01-01"}]),
        "with its zone",
    ),
    "no auth type": (api(auth={"token": KEY}), "auth.type"),
    "an unknown auth type": (api(auth={"type": "magic"}), "is not one of bearer"),
    "a header that frames": (
        api(auth={"type": "header", "headers": {"Content-Length": "9"}}),
        "only the gateway",
    ),
    "a header of ours": (api(auth={"type": "header", "headers": {"X-Presign-Key": "9"}}), "only the gateway"),
    "a strange header": (
        api(auth={"type": "header", "headers": {"X-Token-": "9"}}),
        "has to be the name of a header",
    ),
    "a header twice": (
        api(auth={"type": "header", "headers": {"X-T": "9", "x-t": "9"}}),
        "names a header twice",
    ),
    "a parameter with a blank": (
        api(auth={"type": "query", "params": {"a b": "9"}}),
        "name of a query parameter",
    ),
    "a line break in a key": (api(auth={"type": "bearer", "token": "a\nb"}), "line break"),
    "a key no header carries": (api(auth={"type": "bearer", "token": "☃"}), "no header can carry"),
    "a pasted key for a variable": (api(auth={"type": "bearer", "token": {"env": KEY}}), "not a value"),
    "two sources": (api(auth={"type": "bearer", "token": {"env": "A", "file": "b"}}), "has to be a secret"),
    "a method in lower case": (api(allow={"methods": ["get"]}), "has to be a method in capitals, as in GET"),
    "a wildcard beside methods": (api(allow={"methods": ["GET", "*"]}), "'*' means all methods"),
    "a number for a duration": (api(max_lifetime=60), "has to be a duration"),
    "no time at all": (api(max_lifetime="0s"), "has to be greater than zero"),
    "an unknown preset": (api(preset="nope"), "there is no such preset"),
    "an unknown scheme": (api(scheme="magic"), "has to be presign or source"),
    "a rate without a period": (api(limits=[{"rate": "60"}]), "has to be a rate, as in 60/minute"),
    "a rate beyond what can be counted": (api(limits=[{"rate": "20000/second"}]), "more than 10000 a second"),
    "a quota by the hour": (api(limits=[{"quota": "5/hour"}]), "has to be a quota, as in 1000/month"),
    "nobody at the same time": (api(limits=[{"concurrency": 0}]), "has to be 1 or more"),
    "a burst of nothing": (api(limits=[{"rate": "1/second", "burst": 0}]), "has to be 1 or more"),
    "a limit of two kinds": (api(limits=[{"rate": "1/second", "quota": "5/day"}]), "not a key that is known"),
    "a limit of no kind": (api(limits=[{"per": "url"}]), "rate: is required"),
    "a limit per nobody": (
        api(limits=[{"concurrency": 1, "per": "planet"}]),
        "limits.0.per: has to be connection, url or client",
    ),
    "two limits that count the same": (
        api(limits=[{"rate": "1/second"}, {"rate": "9/second", "burst": 2}]),
        "limits.1: another limit counts the same thing (rate-1s-connection)",
    ),
    "no uses at all": (api(max_uses=0), "has to be 1 or more"),
    "text for a boolean": (api(enabled="true"), "has to be true or false"),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_connection_is_explained(write, how: str) -> None:
    connection, expected = WRONG[how]
    assert expected in "\n".join(problems(write({"connections": {"conn": connection}})))


SOURCE = {"scheme": "source", "mode": "signed", "formats": ["png"], "signing_keys": [{"secret": SECRET}]}
WRONG_SOURCES = {
    "allowlist with a credential": (
        {"mode": "allowlist", "auth": {"type": "bearer", "token": KEY}},
        "need mode: signed",
    ),
    "allowlist of nothing": ({"mode": "allowlist"}, "is required in allowlist mode"),
    "signed without keys": ({"signing_keys": []}, "is required in signed mode"),
    "an origin with a path": ({"allowed_origins": ["https://a.example/x"]}, "leave the path out"),
    "51 origins": ({"allowed_origins": [f"https://{n}.example" for n in range(51)]}, "at most 50"),
    "a strange network": ({"allow_networks": ["10.0.0.1/8"]}, "is not a network"),
    "a port over 65535": ({"ports": [65536]}, "has to be 65535 or less"),
    "intercept nothing": ({"intercept": True}, "needs allowed_origins"),
    "a credential in the clear": (
        {"allowed_origins": ["http://a.example"], "auth": {"type": "bearer", "token": KEY}},
        "is not https",
    ),
}


@pytest.mark.parametrize("how", WRONG_SOURCES)
def test_a_wrong_project_is_explained(write, how: str) -> None:
    changes, expected = WRONG_SOURCES[how]
    assert expected in "\n".join(problems(write({"connections": {"pk": {**SOURCE, **changes}}})))


def test_secrets_come_from_the_environment_and_from_files(write, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    found = one(
        write,
        api(auth={"type": "bearer", "token": {"file": "key"}}, signing_keys=[{"secret": {"env": "S"}}]),
        {"S": SECRET},
    )
    assert found.injector.rendered() == (KEY.encode(),)


FILES = {"missing": None, "empty": b"", "binary": b"\xff\xfe", "two lines": b"a\nb\n", "huge": b"a" * 70_000}


@pytest.mark.parametrize("how", FILES)
def test_a_secret_file_that_holds_no_secret_is_named(write, tmp_path: Path, how: str) -> None:
    if FILES[how] is not None:
        (tmp_path / "key").write_bytes(FILES[how])
    found = problems(write({"connections": {"conn": api(auth={"type": "bearer", "token": {"file": "key"}})}}))
    assert "connections.conn.auth.token" in found[0]
    assert "key" in found[0]


@pytest.mark.parametrize("name", ["a\0b", ".", "/dev/null"])
def test_a_secret_file_that_is_none_is_no_traceback(write, name: str) -> None:
    assert problems(write({"connections": {"conn": api(auth={"type": "bearer", "token": {"file": name}})}}))


def test_an_environment_that_is_not_utf8_is_no_traceback(write) -> None:
    connection = api(
        auth={"type": "basic", "username": {"env": "A"}}, signing_keys=[{"secret": {"env": "B"}}]
    )
    found = problems(write({"connections": {"conn": connection}}), {"A": "\udcff" * 40, "B": "\udcff" * 40})
    assert all("is not UTF-8" in line for line in found)


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_file_that_others_can_change_is_refused(write, tmp_path: Path) -> None:
    assert (
        "is writable by others: chmod go-w"
        in problems(write({"connections": {"conn": api()}}, mode=0o666))[0]
    )
    tmp_path.chmod(0o777)
    assert "the directory is writable by others" in problems(write({"connections": {"conn": api()}}))[0]
    tmp_path.chmod(0o1777)
    load(write({"connections": {"conn": api()}}), {})


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_link_into_a_directory_that_others_can_change_is_refused(write, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    real = write({"connections": {"conn": api()}}).rename(shared / "real.yaml")
    (tmp_path / "config.yaml").symlink_to(real)
    load(tmp_path / "config.yaml", {})
    shared.chmod(0o777)
    with pytest.raises(ConfigError, match="writable by others"):
        load(tmp_path / "config.yaml", {})


def test_a_missing_file_is_no_traceback(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(ConfigError):
            load(path, {})


def test_which_file_is_meant(tmp_path: Path) -> None:
    assert locate("a.yaml", {"PRESIGN_CONFIG": "b.yaml"}) == Path("a.yaml").absolute()
    assert locate("", {"PRESIGN_CONFIG": "b.yaml"}) == Path("b.yaml").absolute()
    assert locate("", {}) == Path("config.yaml").absolute()


PRESETS = {
    "openai": ("https://api.openai.com", b"Authorization", b"Bearer "),
    "github": ("https://api.github.com", b"Authorization", b"Bearer "),
    "anthropic": ("https://api.anthropic.com", b"x-api-key", b""),
    "gemini": ("https://generativelanguage.googleapis.com", b"x-goog-api-key", b""),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_puts_the_token_where_the_provider_wants_it(write, name: str) -> None:
    upstream, header, prefix = PRESETS[name]
    found = one(write, {"preset": name, "auth": {"token": KEY}, "signing_keys": [{"secret": SECRET}]})
    assert str(found.upstream.origin) == upstream
    assert isinstance(found.injector, HeaderCredential)
    assert found.injector.headers[0][:2] == (header, prefix)


def test_stripe_takes_the_key_as_user_name_and_anthropic_wants_a_version(write) -> None:
    stripe = one(write, {"preset": "stripe", "auth": {"token": KEY}, "signing_keys": [{"secret": SECRET}]})
    assert isinstance(stripe.injector, BasicCredential)
    anthropic = one(
        write, {"preset": "anthropic", "auth": {"token": KEY}, "signing_keys": [{"secret": SECRET}]}
    )
    assert anthropic.conduct.default_fields == ((b"anthropic-version", b"2023-06-01"),)


def test_what_a_connection_says_goes_before_its_preset(write) -> None:
    mine = {
        "preset": "openai",
        "upstream": "https://proxy.example/v9",
        "auth": {"type": "query", "params": {"k": KEY}},
    }
    found = one(write, {**mine, "signing_keys": [{"secret": SECRET}]})
    assert (str(found.upstream.origin), found.upstream.base) == ("https://proxy.example", b"/v9")
    assert isinstance(found.injector, QueryCredential)


def test_a_short_secret_is_warned_of(write) -> None:
    loaded = load(write({"connections": {"conn": api(signing_keys=[{"secret": "a" * 16}])}}), {})
    assert "is shorter than 32 bytes" in str(loaded.warnings[0])


@pytest.mark.parametrize(
    ("clients", "expected"), [(0, "has to be 1 or more"), (30_001, "30000 or less"), ("9", "number")]
)
def test_a_number_of_clients_that_cannot_be_is_told(write, clients: object, expected: str) -> None:
    (problem,) = problems(write({"gateway": {"max_clients": clients}}))
    assert "gateway.max_clients" in problem
    assert expected in problem


def test_the_option_goes_before_the_file(write) -> None:
    path = write({"gateway": {"unsigned": "deny"}})
    assert load(path, {}).registry.deny_unsigned
    assert not load(path, {}, "pass").registry.deny_unsigned


def test_an_editor_says_what_each_key_of_the_configuration_is_for() -> None:
    """Only those of a connection were described."""
    schema = Config.model_json_schema()
    sections = {name: model for name, model in schema["$defs"].items() if name.endswith("Config")}
    models = {"": schema} | sections
    assert len(models) >= 8
    silent = [
        f"{name}.{key}"
        for name, model in models.items()
        for key, node in model["properties"].items()
        if not node.get("description")
    ]
    assert silent == []


def test_the_schema_for_editors_is_the_model() -> None:
    """Generated: .venv/bin/presign schema > docs/config.schema.json"""
    written = json.loads((ROOT / "docs/config.schema.json").read_text("utf-8"))
    assert written == Config.model_json_schema()


def test_a_registry_file_adds_its_connections(write) -> None:
    write({"connections": {"conn_b": api()}}, "registry.yaml")
    path = write({"registry": {"file": "registry.yaml"}, "connections": {"conn_a": api()}})
    loaded = load(path, {})
    assert sorted(loaded.registry.connections) == ["conn_a", "conn_b"]
    assert [file.name for file in loaded.record.files] == ["config.yaml", "registry.yaml"]
    write(json.dumps({"connections": {"conn_c": api()}}), "registry.json")
    assert "conn_c" in load(write({"registry": {"file": "registry.json"}}), {}).registry.connections


def test_a_registry_file_that_is_wrong_is_explained(write) -> None:
    path = write({"registry": {"file": "registry.yaml"}, "connections": {"conn": api()}})
    assert "no such file" in problems(path)[0]
    write({"connections": {"conn": api()}}, "registry.yaml")
    assert "has this id too" in problems(path)[0]
    write({"connections": {"conn_b": api()}}, "registry.yaml", mode=0o644)
    assert "is readable by others: chmod go-r" in problems(path)[0]
    write("connections: {conn_b: {upstream: x}}\ngateway: {}\n", "registry.yaml")
    text = "\n".join(problems(path))
    assert "registry.yaml:1:15: connections.conn_b.auth: is required" in text
    assert "registry.yaml:2:1: gateway: is not a key that is known here" in text
    assert "needs a key" in "\n".join(problems(write({"registry": {"file": "connections.enc"}})))


@pytest.mark.parametrize("listen", ["0.0.0.0:9464", "[::]:9464", "10.0.0.1:9464", "presign:9464"])
def test_an_admin_listener_for_everybody_is_warned_of(write, listen: str) -> None:
    warnings = [str(warning) for warning in load(write({"admin": {"listen": listen}}), {}).warnings]
    assert len(warnings) == 1
    assert "admin.listen: answers everybody who reaches this address" in warnings[0]


@pytest.mark.parametrize("listen", ["127.0.0.1:9464", "[::1]:9464", "localhost:9464", "127.8.8.8:1"])
def test_an_admin_listener_on_loopback_is_not(write, listen: str) -> None:
    assert load(write({"admin": {"listen": listen}}), {}).warnings == ()


@pytest.mark.parametrize(
    "listen",
    ["9464", ":9464", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "::1:9464", "a b:1", "127.1:9464", 9464],
)
def test_an_admin_listener_that_is_nowhere_is_refused(write, listen: str) -> None:
    assert "admin.listen: has to be HOST:PORT" in problems(write({"admin": {"listen": listen}}))[0]


@pytest.mark.parametrize("name", ["Authorization", "authorization", "X_Api_Key"])
def test_default_headers_carry_no_credential(write, name: str) -> None:
    found = problems(write({"connections": {"conn": api(default_headers={name: "x"})}}))
    assert "is a header for credentials" in found[0]
    assert (
        "is given twice"
        in problems(write({"connections": {"conn": api(default_headers={"X-A": "1", "x_a": "2"})}}))[0]
    )


@pytest.mark.parametrize("unsigned", ["Deny", "maybe", ""])
def test_an_unknown_word_for_unsigned_denies(write, unsigned: str) -> None:
    assert load(write({"gateway": {"unsigned": "pass"}}), {}, unsigned).registry.deny_unsigned


@pytest.mark.parametrize("name", ["Refresh", "set-cookie", "Transfer-Encoding", "X Next", "X-Next:", "", "*"])
def test_a_header_with_a_meaning_of_its_own_is_no_url_header(write, name: str) -> None:
    path = write({"connections": {"conn": api(url_headers=["X-Next", name])}})
    with pytest.raises(ConfigError, match="url_headers"):
        load(path, {})


SYNTAX = {
    "a: [b\nc: d\n": (
        "2:2: is not valid YAML: did not find expected ',' or ']', in the part that begins at 1:4"
    ),
    "a: {b: ${C}}\n": "1:9: is not valid YAML: did not find expected ',' or '}'",
    "a: b\n...  # the end\nc: d\n": "3:1: this is below the end mark `...`: move it above that line",
    "'a'\nb: c\n": "2:1: is not valid YAML: nothing may follow the value above it",
    "# keys\n\nexport K='sk-LEAK'\nB: c\n": "3:1: is a list of NAME=VALUE lines, and no configuration",
    "OPENAI_API_KEY=sk-LEAK\n": "1:1: is a list of NAME=VALUE lines, and no configuration",
    "%YAML 1.1\na: b\n": "2:1: is not valid YAML: did not find expected <document start>",
    'a: "b\nc: d\n': "3:1: is not valid YAML: found unexpected end of stream, in the part that begins at 1:4",
}


@pytest.mark.parametrize("text", SYNTAX)
def test_who_forgot_a_bracket_is_told_which(write, text: str) -> None:
    found = problems(write(text))
    assert any(problem.startswith(SYNTAX[text]) for problem in found), found
    assert not any("LEAK" in problem for problem in found)


def patterns_of(schema: object) -> set[str]:
    """Every regular expression that pydantic itself holds a text against."""
    if isinstance(schema, list | tuple):
        return {found for one in schema for found in patterns_of(one)}
    if not isinstance(schema, dict):
        return set()
    own = {schema["pattern"]} if schema.get("type") == "str" and "pattern" in schema else set()
    return own | {found for one in schema.values() for found in patterns_of(one)}


def test_no_regular_expression_is_shown_to_who_mistyped_a_text() -> None:
    schemas = [
        Config.__pydantic_core_schema__,
        RegistryFile.__pydantic_core_schema__,
        PresetsFile.__pydantic_core_schema__,
    ]
    assert patterns_of(schemas) == {f"^{form}$" for form in FORMS}


def test_each_type_of_auth_that_a_file_may_name_stands_in_the_table_and_no_other() -> None:
    """Messages, presets, choices of the command and what is hidden of an entry are taken from the table."""
    models = {get_args(one.model_fields["type"].annotation)[0]: one for one in get_args(get_args(Auth)[0])}
    assert models.keys() == AUTH_TYPES.keys() == set(get_args(AuthName))
    for name, kind in AUTH_TYPES.items():
        members = {*kind.places, *kind.plain, *filter(None, [kind.group])}
        assert models[name].model_fields.keys() - {"type"} == members
