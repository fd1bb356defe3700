"""Presets: every provider as data, host variables that stay in their label, and presets of one's own."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from presign_proxy import Signer
from presign_proxy.config.auth_types import AUTH_TYPES
from presign_proxy.config.file_versions import version_of
from presign_proxy.config.load import Loaded, load
from presign_proxy.config.presets.builtin import providers
from presign_proxy.config.presets.markdown_table import markdown
from presign_proxy.config.presets.model import LABEL, Preset
from presign_proxy.config_problems import ConfigError
from presign_proxy.core.connection import Connection
from presign_proxy.core.credentials import Outgoing, Unsigned
from presign_proxy.core.masking import mask_for
from presign_proxy.http.paths import canonical_path
from presign_proxy.signing.secret import LateSecret, Secret
from support.config import write_config
from support.deciding import NOW, registry
from support.deciding import code as answer
from support.deciding import request as asked
from support.deciding import sent as granted
from support.places import ROOT
from support.private_keys import certificate, pem, rsa_key, service_account
from support.signing import presign_target

SIGNING = "sk_0123456789abcdef0123456789abcdef"
KEY = "sk-REALSECRET-0123456789"
SECOND = "sk-ANOTHERSECRET-9876543210"
MINTED = "eyJ0eXAi-a-token-of-an-endpoint"
PLAIN = Outgoing(b"/v1/x", b"a=1", ((b"X-Kept", b"1"),))

# One good value for each host variable; a preset that brings a new one fails until it is listed.
VALUES = {
    "bucket": "my-bucket",
    "service": "dynamodb",
    "installation": "12345678",
    "account": "MYORG-account1",
    "app": "ABC123DEF4",
    "company": "my-company",
    "dc": "us21",
    "domain": "my-company",
    "location": "europe-west4",
    "org": "my-company",
    "project": "abcdefghijklmnopqrst",
    "region": "eu-central-1",
    "registry": "123456789012",
    "resource": "my-company-2",
    "site": "my-company",
    "stack": "mystack",
    "store": "my-store",
    "subdomain": "my-company",
    "tenant": "01234567-89ab-cdef-0123-456789abcdef",
    "workspace": "dbc-a1b2345c-d6e7",
}


def entry(name: str, auth: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"preset": name, "auth": auth, "signing_keys": [{"secret": SIGNING}], **more}


def complete(name: str) -> dict[str, Any]:
    """A connection of a built-in preset with everything that it needs, and no more."""
    preset = providers()[name]
    auth: dict[str, Any] = {"token": KEY}
    if preset["auth"].get("grant") == "jwt_bearer":
        auth = {"token": service_account()}
    if "asks" in preset["auth"]:
        secrets = dict(zip(preset["auth"]["asks"], (KEY, SECOND), strict=True))
        if "private_key" in secrets:
            secrets["private_key"] = pem(rsa_key()) + certificate(rsa_key())
        group = {"header": "headers", "query": "params"}.get(preset["auth"]["type"])
        auth = {group: secrets} if group else secrets
    values = {variable: VALUES[variable] for variable in preset.get("vars", {})}
    return entry(name, auth, **({"vars": values} if values else {}))


def config(tmp_path: Path, connection: dict[str, Any], own: Any = None) -> Path:
    """A configuration with one connection; `own` becomes its file of presets, text or data."""
    content: dict[str, Any] = {"connections": {"conn": connection}}
    if own is not None:
        content["presets"] = "presets.yaml"
        write_config({} if isinstance(own, str) else {"presets": own}, tmp_path, "presets.yaml")
        if isinstance(own, str):
            (tmp_path / "presets.yaml").write_text(own)
    return write_config(content, tmp_path)


def loaded(tmp_path: Path, connection: dict[str, Any], own: Any = None) -> Loaded:
    return load(config(tmp_path, connection, own), {})


def one(tmp_path: Path, connection: dict[str, Any], own: Any = None) -> Connection:
    return loaded(tmp_path, connection, own).registry.connections["conn"]


def problems(tmp_path: Path, connection: dict[str, Any], own: Any = None) -> list[str]:
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, connection, own)
    found = [str(problem).removeprefix(f"{tmp_path}/") for problem in error.value.problems]
    for line in found:
        assert not any(secret in line for secret in (KEY, SECOND, SIGNING)), line
    return found


# The providers.


def test_there_are_many_and_each_is_there_once() -> None:
    text = (ROOT / "addon/presign_proxy/config/presets/providers.json").read_text("utf-8")
    pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=lambda found: found)
    names = [name for name, _ in pairs]
    assert len(names) >= 45
    assert len(set(names)) == len(names) == len(providers())
    titles = [preset["name"] for preset in providers().values()]
    assert len(set(titles)) == len(titles)
    assert {style["auth"]["type"] for style in providers().values()} == set(AUTH_TYPES)


@pytest.mark.parametrize("name", providers())
def test_a_provider_is_of_the_schema(name: str) -> None:
    data = providers()[name]
    preset = Preset.model_validate(data)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert data.keys() >= {"name", "upstream", "auth", "docs", "sample", "env", "sdk_base"}
    assert preset.upstream.startswith("https://")
    assert preset.docs is not None and preset.docs.startswith("https://")
    assert preset.sample or preset.auth.type == "path"  # a webhook has no path below it
    assert not (preset.sample or "").startswith("/")
    assert canonical_path(b"/" + (preset.sample or "").encode()) == b"/" + (preset.sample or "").encode()
    assert not preset.sdk_base.endswith("/")
    if preset.auth.asks:
        assert len(preset.env) in (0, len(preset.auth.asks))


def expected(name: str) -> Outgoing:
    """`PLAIN` with the secrets exactly where the data says, written without the product."""
    auth = providers()[name]["auth"]
    asks = auth.get("asks")
    fields: list[tuple[str, str]] = []
    params, path = "", PLAIN.path
    if auth["type"] == "bearer":
        fields = [("Authorization", f"Bearer {KEY}")]
    elif auth["type"] == "basic":
        pair = f"{KEY}:{SECOND}" if asks else f"{KEY}:{auth.get('password', '')}"
        if "username" in auth:
            pair = f"{auth['username']}:{KEY}"
        fields = [("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())]
    elif auth["type"] == "header":
        secrets = dict(zip(asks, (KEY, SECOND), strict=True)) if asks else {auth["header"]: KEY}
        fields = [(header, auth.get("prefix", "") + secret) for header, secret in secrets.items()]
    elif auth["type"] in ("oauth2", "registry_token"):
        fields = [("Authorization", f"Bearer {MINTED}")]
    elif auth["type"] == "path":
        path = auth["template"].replace("{token}", KEY).encode() + PLAIN.path
    else:
        secrets = dict(zip(asks, (KEY, SECOND), strict=True)) if asks else {auth["param"]: KEY}
        params = "".join(f"&{param}={secret}" for param, secret in secrets.items())
    added = tuple((header.encode(), value.encode()) for header, value in fields)
    return Outgoing(path, (PLAIN.query or b"") + params.encode(), PLAIN.fields + added)


@pytest.mark.parametrize("name", providers())
def test_a_provider_loads_and_its_key_goes_where_it_is_wanted(tmp_path: Path, name: str) -> None:
    found = one(tmp_path, complete(name))
    preset = providers()[name]
    host = re.sub(r"\{(\w+)\}", lambda variable: VALUES[variable[1]], preset["upstream"]).lower()
    assert found.upstream is not None
    assert (str(found.upstream.origin), found.upstream.base) == (host, b"")
    injector = found.injector.filled(lambda late: Secret(MINTED) if isinstance(late, LateSecret) else late)
    sent = injector.inject(PLAIN)
    if preset["auth"]["type"] == "aws_sigv4":  # `tests/core/test_aws_sigv4.py` checks what it signs
        assert isinstance(sent, Unsigned)
        assert sent.outgoing == PLAIN
        assert [one.reveal() for one in injector.secrets()] == [KEY, SECOND]
    else:
        assert sent == expected(name)
        assert sent != PLAIN
    echoed = (SECOND if "asks" in preset["auth"] else KEY).encode()
    echoed = MINTED.encode() if preset["auth"]["type"] in ("oauth2", "registry_token") else echoed
    assert echoed not in mask_for(injector).mask(b"your key " + echoed)
    defaults = {header.decode(): value.decode() for header, value in found.conduct.default_fields}
    assert defaults == preset.get("headers", {})


@pytest.mark.parametrize("name", ["github", "gitlab", "npm", "gcs"])
def test_an_encoded_slash_is_a_part_of_a_name_where_the_provider_has_such_names(
    tmp_path: Path, name: str
) -> None:
    for given, expected in (({}, "forward"), ({"allow_encoded_slash": False}, "path_not_allowed")):
        known = registry(one(tmp_path, {**complete(name), **given}))
        target = presign_target(SIGNING, "conn", "x/a%2Fb", NOW + 60, "GET", "x/*")
        assert answer(asked(target), known) == expected


def test_a_preset_opens_second_hosts_beside_its_own_upstream_only(tmp_path: Path) -> None:
    hosts = [origin.host for origin in one(tmp_path, complete("github")).also]
    assert "objects.githubusercontent.com" in hosts
    elsewhere = complete("github") | {"upstream": "https://github.corp.example"}
    assert one(tmp_path, elsewhere).also == ()
    assert one(tmp_path, complete("github") | {"also": []}).also == ()
    mine = complete("openai") | {"also": ["files.example.com", "FILES.example.com:8443"]}
    assert [str(origin) for origin in one(tmp_path, mine).also] == [
        "https://files.example.com",
        "https://files.example.com:8443",
    ]


@pytest.mark.parametrize(
    "host", ["*.example.com", "https://files.example.com", "files.example.com/x", "", "a b", "x:0", 7]
)
def test_a_second_host_is_a_name_and_no_pattern(tmp_path: Path, host: Any) -> None:
    assert any("also" in line for line in problems(tmp_path, complete("openai") | {"also": [host]}))


@pytest.mark.parametrize("name", providers())
def test_each_public_part_of_a_credential_has_a_secret_beside_it(name: str) -> None:
    auth = providers()[name]["auth"]
    assert set(auth.get("public", ())) < set(auth.get("asks", {"": ""}))


@pytest.mark.parametrize("name", providers())
def test_the_sample_of_a_provider_can_be_signed_and_is_granted(tmp_path: Path, name: str) -> None:
    sample = providers()[name]["sample"]
    known = registry(one(tmp_path, complete(name)))
    target = presign_target(SIGNING, "conn", sample, NOW + 60, "GET", sample or "*")
    assert answer(asked(target), known) == "forward"


def test_words_before_the_key_are_exactly_those_of_the_provider(tmp_path: Path) -> None:
    """By hand, so that the data is not only compared with itself."""
    wanted = {
        "deepl": f"DeepL-Auth-Key {KEY}",
        "discord": f"Bot {KEY}",
        "pagerduty": f"Token token={KEY}",
        "deepgram": f"Token {KEY}",
        "okta": f"SSWS {KEY}",
        "klaviyo": f"Klaviyo-API-Key {KEY}",
        "assemblyai": KEY,
        "twilio": "Basic " + base64.b64encode(f"{KEY}:{SECOND}".encode()).decode(),
        "mailgun": "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode(),
        "freshdesk": "Basic " + base64.b64encode(f"{KEY}:X".encode()).decode(),
        "stripe": "Basic " + base64.b64encode(f"{KEY}:".encode()).decode(),
    }
    for name, value in wanted.items():
        sent = one(tmp_path, complete(name)).injector.inject(PLAIN)
        assert sent.fields[-1] == (b"Authorization", value.encode()), name


def test_the_placeholder_of_a_prefixed_key_holds_no_key(tmp_path: Path) -> None:
    shown = one(tmp_path, complete("deepl")).injector.placeholder(PLAIN, "[presign:conn]")
    assert shown.fields[-1] == (b"Authorization", b"DeepL-Auth-Key [presign:conn]")


@pytest.mark.parametrize(
    ("name", "before"), [("deepl", "DeepL-Auth-Key "), ("discord", "Bot "), ("assemblyai", "")]
)
def test_a_token_in_the_place_of_the_key_is_taken_behind_the_same_words(
    tmp_path: Path, name: str, before: str
) -> None:
    grant = Signer("conn", SIGNING).sign(["GET"], ["v1/x"], expires_at=NOW + 60)
    host = providers()[name]["upstream"].removeprefix("https://")
    field = (b"Authorization", f"{before}{grant.token}".encode())
    known = registry(one(tmp_path, complete(name)))
    assert answer(asked("/v1/x", field, host=host, scheme="https"), known) == "forward"


@pytest.mark.parametrize(
    ("name", "target", "offer"),
    [
        ("openai", "/v1/realtime", b"realtime, openai-insecure-api-key.%b"),
        ("azure-openai", "/openai/realtime?api-key=%s", b"realtime"),
    ],
)
def test_the_key_of_a_page_is_taken_where_its_realtime_api_takes_one(
    tmp_path: Path, name: str, target: str, offer: bytes
) -> None:
    grant = Signer("conn", SIGNING).sign(["GET"], ["*"], expires_at=NOW + 60)
    offered = offer.replace(b"%b", grant.token.encode())
    fields = ((b"Sec-WebSocket-Version", b"13"), (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="))
    upgrade = ((b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"))
    page = asked(target.replace("%s", grant.token), *upgrade, *fields, (b"Sec-WebSocket-Protocol", offered))
    known = registry(one(tmp_path, complete(name)))
    plain = granted(page, known).plain
    assert (b"Sec-WebSocket-Protocol", b"realtime") in plain.fields
    assert b"ps1_" not in repr(plain).encode()


# What a connection says of the credential.

CREDENTIALS = {
    "one token for two secrets": (
        entry("twilio", {"token": KEY}),
        "conn.auth.token: is one secret, but this preset needs {username: account SID",
    ),
    "one token for two headers": (
        entry("datadog", {"token": KEY}),
        "conn.auth.token: is one secret, but this preset needs headers: {DD-API-KEY: API key, DD-APP",
    ),
    "half of two secrets": (entry("twilio", {"username": KEY}), "conn.auth: needs {username: account SID"),
    "half of two headers": (
        entry("datadog", {"headers": {"dd-api-key": KEY}}),
        "conn.auth.headers: needs headers: {DD-API-KEY",
    ),
    "half of two parameters": (
        entry("trello", {"params": {"key": KEY}}),
        "conn.auth.params: needs params: {",
    ),
    "nothing of two parameters": (entry("trello", {}), "conn.auth.params: needs params: {"),
    "a token beside the header it goes into": (
        entry("anthropic", {"token": KEY, "headers": {"X-API-Key": SECOND}}),
        "conn.auth.token: means the same as x-api-key: give only",
    ),
    "a token beside the parameter it goes into": (
        entry("mapbox", {"token": KEY, "params": {"access_token": SECOND}}),
        "conn.auth.token: means the same as access_token: give only",
    ),
    "a token beside the user name it is": (
        entry("stripe", {"token": KEY, "username": SECOND}),
        "conn.auth.token: means the same as username: give only",
    ),
    "no token": (entry("openai", {}), "conn.auth.token: is required"),
    "headers that are none": (entry("datadog", {"headers": KEY}), "conn.auth.headers: has to be a mapping"),
    "an almost right name": (
        entry("opena", {"token": KEY}),
        "conn.preset: there is no such preset: did you mean openai?",
    ),
    "no name at all": (entry(KEY, {"token": KEY}), "conn.preset: there is no such preset: `"),
    "words for a header that is not sent": (
        {
            "upstream": "https://api.example.com",
            "auth": {"type": "header", "headers": {"X-A": KEY}, "prefix": {"X-B": "Key "}},
            "signing_keys": [{"secret": SIGNING}],
        },
        "conn.auth.prefix.X-B: is not one of the headers",
    ),
    "words that run into the key": (
        {
            "upstream": "https://api.example.com",
            "auth": {"type": "header", "headers": {"X-A": KEY}, "prefix": {"X-A": "Key"}},
            "signing_keys": [{"secret": SIGNING}],
        },
        "conn.auth.prefix.X-A: has to be the text before the key",
    ),
    "words with a line break": (
        {
            "upstream": "https://api.example.com",
            "auth": {"type": "header", "headers": {"X-A": KEY}, "prefix": {"X-A": "a\r\nX-B: "}},
            "signing_keys": [{"secret": SIGNING}],
        },
        "conn.auth.prefix.X-A: has to be the text before the key",
    ),
}


@pytest.mark.parametrize("how", CREDENTIALS)
def test_a_credential_that_does_not_fit_is_explained_once(tmp_path: Path, how: str) -> None:
    connection, message = CREDENTIALS[how]
    (line,) = problems(tmp_path, connection)
    assert f"connections.{message}" in line
    assert re.match(r"config\.yaml:[0-9]+:[0-9]+: ", line)


def test_a_second_header_stands_beside_the_token(tmp_path: Path) -> None:
    auth = {"token": KEY, "headers": {"X-Second": SECOND}}
    sent = one(tmp_path, entry("anthropic", auth)).injector.inject(PLAIN)
    assert dict(sent.fields)[b"x-api-key"] == KEY.encode()
    assert dict(sent.fields)[b"X-Second"] == SECOND.encode()


def test_another_type_of_auth_is_left_as_it_is(tmp_path: Path) -> None:
    sent = one(tmp_path, entry("twilio", {"type": "bearer", "token": KEY})).injector.inject(PLAIN)
    assert sent.fields[-1] == (b"Authorization", f"Bearer {KEY}".encode())


# Host variables.

HOSTILE = [
    "",
    "evil.com/",
    "evil.com#",
    "evil.com?",
    "a.b",
    "a/b",
    "a\\b",
    "user@evil",
    "evil.com:443@x",
    "a%2eb",
    "a%00",
    "-a",
    "a-",
    "a_b",
    "a b",
    " a",
    "a\n",
    "a\n.evil.com",
    "a\t",
    "{resource}",
    "*",
    "é",
    "ａ",
    "a。evil",
    "ⅰ",
    "\u212a",  # Kelvin sign: lower-cases to k
    "a:1",
    "[::1]",
    "a" * 64,
]


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
@pytest.mark.parametrize("name", ["azure-openai", "zendesk", "algolia"])
def test_a_hostile_variable_does_not_get_into_the_host(tmp_path: Path, name: str, value: str) -> None:
    (variable,) = providers()[name]["vars"]
    (line,) = problems(tmp_path, entry(name, complete(name)["auth"], vars={variable: value}))
    assert re.match(
        rf"config\.yaml:[0-9]+:[0-9]+: connections\.conn\.vars\.{variable}: does not match ", line
    )
    assert len(value) < 4 or value.strip() not in line or value == "{resource}"


def test_no_pattern_lets_a_hostile_value_through() -> None:
    assert [value for value in HOSTILE if LABEL.fullmatch(value)] == []
    for name, preset in providers().items():
        for variable, about in preset.get("vars", {}).items():
            assert re.fullmatch(about["pattern"], VALUES[variable]), (name, variable)


def test_a_variable_is_told_where_it_stands(tmp_path: Path) -> None:
    path = config(tmp_path, entry("azure-openai", {"token": KEY}))
    path.write_text(
        "connections:\n  conn:\n    preset: azure-openai\n    vars:\n      resource: my.company\n"
        f"    auth: {{token: {KEY}}}\n    signing_keys: [{{secret: {SIGNING}}}]\n"
    )
    with pytest.raises(ConfigError) as error:
        load(path, {})
    assert str(error.value).startswith(f"{path}:5:7: connections.conn.vars.resource: does not match ")


VARIABLES = {
    "missing": (entry("azure-openai", {"token": KEY}), ["vars.resource: is required: the name of the Azure"]),
    "empty": (entry("azure-openai", {"token": KEY}, vars={}), ["vars.resource: is required"]),
    "unknown": (
        entry("azure-openai", {"token": KEY}, vars={"resource": "a1", "region": "x"}),
        ["vars.region: is not a variable of this preset, which has resource"],
    ),
    "misspelt": (
        entry("azure-openai", {"token": KEY}, vars={"Resource": "a1"}),
        ["vars.Resource: is not a variable", "vars.resource: is required"],
    ),
    "none to have": (
        entry("openai", {"token": KEY}, vars={"resource": "a1"}),
        ["vars.resource: is not a variable of this preset, which has none"],
    ),
    "a number": (
        entry("azure-openai", {"token": KEY}, vars={"resource": 12}),
        ["vars.resource: has to be text"],
    ),
    "a list": (entry("azure-openai", {"token": KEY}, vars=["a1"]), ["vars: has to be a mapping"]),
    "nothing": (
        entry("azure-openai", {"token": KEY}, vars={"resource": None}),
        ["vars.resource: has to be text"],
    ),
    "beside an upstream": (
        entry("azure-openai", {"token": KEY}, vars={"resource": "a1"}, upstream="https://a.example"),
        ["vars.resource: has no effect: the connection has an upstream"],
    ),
    "without a preset": (
        {
            "upstream": "https://a.example",
            "vars": {"resource": "a1"},
            "auth": {"type": "bearer", "token": KEY},
            "signing_keys": [{"secret": SIGNING}],
        },
        ["vars: has no effect without a preset"],
    ),
}


@pytest.mark.parametrize("how", VARIABLES)
def test_wrong_variables_are_explained(tmp_path: Path, how: str) -> None:
    connection, messages = VARIABLES[how]
    found = problems(tmp_path, connection)
    assert len(found) == len(messages)
    for message in messages:
        assert any(f"connections.conn.{message}" in line for line in found), found


def test_a_preset_with_variables_takes_an_upstream_instead(tmp_path: Path) -> None:
    found = one(tmp_path, entry("azure-openai", {"token": KEY}, upstream="https://ai.example.com"))
    assert found.upstream is not None and str(found.upstream.origin) == "https://ai.example.com"


# Presets of one's own.

ACME = {
    "name": "Acme",
    "upstream": "https://{tenant}.api.acme.example/base",
    "auth": {"type": "header", "header": "Authorization", "prefix": "Key "},
    "headers": {"Acme-Version": "3"},
    "vars": {"tenant": {"pattern": "[a-z]+", "about": "the name of the tenant"}},
}


def acme(**changes: Any) -> dict[str, Any]:
    return {"acme": {key: value for key, value in {**ACME, **changes}.items() if value is not None}}


def test_a_preset_of_ones_own_fills_like_a_built_in_one(tmp_path: Path) -> None:
    found = one(tmp_path, entry("acme", {"token": KEY}, vars={"tenant": "blue"}), acme())
    assert found.upstream is not None
    assert (str(found.upstream.origin), found.upstream.base) == ("https://blue.api.acme.example", b"/base")
    assert found.injector.inject(PLAIN).fields[-1] == (b"Authorization", f"Key {KEY}".encode())
    assert found.conduct.default_fields == ((b"Acme-Version", b"3"),)


def test_what_is_left_empty_in_a_preset_is_not_said(tmp_path: Path) -> None:
    own = (
        "presets: {acme: {name: Acme, upstream: https://acme.example, docs: , sample: ,"
        " auth: {type: basic, username: , password: x}}}\n"
    )
    sent = one(tmp_path, entry("acme", {"token": KEY}), own).injector.inject(PLAIN)
    assert sent.fields[-1][1] == b"Basic " + base64.b64encode(f"{KEY}:x".encode())


def test_the_preset_in_the_documentation_works(tmp_path: Path) -> None:
    text = (ROOT / "docs/configuration.md").read_text("utf-8")
    (own,) = re.findall(r"```yaml\n(presets:.*?)```", text, re.DOTALL)
    found = one(tmp_path, entry("tickets", {"token": KEY}, vars={"team": "blue"}), own)
    assert found.upstream is not None
    assert str(found.upstream.origin) == "https://blue.tickets.intranet.example"
    assert found.injector.inject(PLAIN).fields[-1] == (b"Authorization", f"Token {KEY}".encode())


def test_built_in_presets_stay_beside_ones_own(tmp_path: Path) -> None:
    assert one(tmp_path, entry("openai", {"token": KEY}), acme()).upstream is not None


def test_a_registry_file_may_name_presets_of_ones_own(tmp_path: Path) -> None:
    connection = entry("acme", {"token": KEY}, vars={"tenant": "blue"})
    write_config({"connections": {"other": connection}}, tmp_path, "registry.yaml")
    write_config({"presets": acme()}, tmp_path, "presets.yaml")
    path = write_config({"presets": "presets.yaml", "registry": {"file": "registry.yaml"}}, tmp_path)
    found = load(path, {})
    assert list(found.registry.connections) == ["other"]
    names = [file.name for file in found.record.files]
    assert names == ["config.yaml", "registry.yaml", "presets.yaml"]
    assert tuple(found.record.files.values()) == version_of(found.record.files)


def test_a_changed_file_of_presets_is_another_version(tmp_path: Path) -> None:
    found = loaded(tmp_path, entry("acme", {"token": KEY}, vars={"tenant": "blue"}), acme())
    assert [file.name for file in found.record.files] == ["config.yaml", "presets.yaml"]
    assert tuple(found.record.files.values()) == version_of(found.record.files)
    write_config({"presets": acme(upstream="https://{tenant}.acme.example")}, tmp_path, "presets.yaml")
    assert tuple(found.record.files.values()) != version_of(found.record.files)


WRONG: dict[str, tuple[Any, str]] = {
    "the name of a built-in preset": (
        {**acme(), "openai": acme(upstream="https://evil.example", vars=None)["acme"]},
        "presets.openai: is the name of a built-in preset",
    ),
    "a strange name": ({"Acme Inc": acme()["acme"]}, "has to be 1 to 64 of a-z 0-9 -"),
    "an unknown key": (acme(colour="blue"), "acme.colour: is not a key that is known here"),
    "no upstream": (acme(upstream=None), "acme.upstream: is required"),
    "no auth": (acme(auth=None), "acme.auth: is required"),
    "an unknown type": (acme(auth={"type": "magic"}), "acme.auth.type: "),
    "a header for a parameter": (
        acme(auth={"type": "query", "header": "X-A"}),
        "does not belong to its type",
    ),
    "no place": (acme(auth={"type": "header"}), "has to name one place for the key"),
    "two places": (
        acme(auth={"type": "header", "header": "X-A", "asks": {"X-A": "a", "X-B": "b"}}),
        "has to name one place for the key",
    ),
    "one secret asked for": (acme(auth={"type": "header", "asks": {"X-A": "a"}}), "acme.auth.asks: "),
    "one header asked for twice": (
        acme(auth={"type": "header", "asks": {"X-A": "a", "x-a": "b"}}),
        "names a value twice",
    ),
    "a framing header asked for": (
        acme(auth={"type": "header", "asks": {"X-A": "a", "Host": "b"}}),
        "has no place for",
    ),
    "a strange part of basic": (
        acme(auth={"type": "basic", "asks": {"username": "a", "pin": "b"}}),
        "no place",
    ),
    "both parts fixed": (acme(auth={"type": "basic", "username": "a", "password": "b"}), "leaves no place"),
    "a framing header": (
        acme(auth={"type": "header", "header": "Content-Length"}),
        "only the gateway may set",
    ),
    "a credential among the defaults": (acme(headers={"Authorization": "x"}), "one for credentials"),
    "a default twice": (acme(headers={"X-A": "1a", "x_a": "2b"}), "names a header twice"),
    "a default that breaks the line": (acme(headers={"X-A": "x\r\nHost: evil"}), "acme.headers.X-A: "),
    "no URL": (acme(upstream="ftp://a.example", vars=None), "upstream is not an http(s) URL"),
    "a user name in the URL": (
        acme(upstream="https://u@a.example", vars=None),
        "upstream is not an http(s) URL",
    ),
    "a query in the URL": (
        acme(upstream="https://a.example/?a=1", vars=None),
        "upstream is not an http(s) URL",
    ),
    "dots in the URL": (
        acme(upstream="https://a.example/b/../c", vars=None),
        "upstream is not an http(s) URL",
    ),
    "a stray brace": (acme(upstream="https://a.example/{B}", vars=None), "upstream is not an http(s) URL"),
    "a variable that is not told of": (acme(vars=None), "upstream and vars have to name the same variables"),
    "a variable that is not used": (acme(upstream="https://a.example"), "upstream and vars have to name"),
    "a variable used twice": (acme(upstream="https://{tenant}.{tenant}.a.example"), "each once"),
    "a variable in the path": (acme(upstream="https://a.example/{tenant}"), "only in the host of upstream"),
    "a variable for the port": (
        acme(upstream="https://a.b.example:{tenant}"),
        "only in the host of upstream",
    ),
    "a variable as the domain": (acme(upstream="https://{tenant}.example"), "the last two labels"),
    "a variable in the domain": (acme(upstream="https://api.{tenant}-x.example"), "the last two labels"),
    "a variable for the whole host": (acme(upstream="https://{tenant}"), "the last two labels"),
    "a variable for the user": (
        acme(upstream="https://{tenant}@a.b.example"),
        "upstream is not an http(s) URL",
    ),
    "a pattern that is none": (
        acme(vars={"tenant": {"pattern": "[a", "about": "x"}}),
        "not a regular expression",
    ),
    "a variable without a pattern": (
        acme(vars={"tenant": {"about": "x"}}),
        "vars.tenant.pattern: is required",
    ),
    "a sample with a query": (acme(sample="a?b=1"), "acme.sample: has to be a path in its canonical form"),
    "an absolute sample": (acme(sample="/a"), "acme.sample: has to be a path in its canonical form"),
    "a sample that climbs": (acme(sample="a/../b"), "acme.sample: has to be a path in its canonical form"),
    "a documentation of no kind": (acme(docs="javascript:x"), "acme.docs: "),
    "a value where a variable is named": (acme(env=[KEY]), "acme.env.0: "),
    "no presets": ({}, "presets: "),
    "a list": ("presets: [1]\n", "presets: has to be a mapping"),
    "nothing": ("", "is empty"),
    "another key": ("presets: {}\nconnections: {}\n", "connections: is not a key that is known here"),
    "not YAML": (f'presets: "{KEY}\n', "is not valid YAML"),
    "an alias": ("presets: {a: &x {}, b: *x}\n", "aliases are not allowed"),
    "a secret in it": (acme(auth={"type": "bearer", "token": KEY}), "acme.auth.token: is not a key"),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_preset_of_ones_own_is_explained_at_its_place(tmp_path: Path, how: str) -> None:
    own, message = WRONG[how]
    connection = entry("acme", {"token": KEY}, vars={"tenant": "blue"})
    found = problems(tmp_path, connection, own)
    assert message in "\n".join(found)
    # And nothing is said of the connection, for which nothing can be known.
    assert all(line.startswith("presets.yaml:") for line in found), found
    if how != "nothing":
        assert all(re.match(r"presets\.yaml:[0-9]+:[0-9]+: ", line) for line in found), found


def test_problems_of_presets_and_of_connections_are_told_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, entry("openai", {"token": {"env": "MISSING"}}), acme(colour="blue"))
    text = "\n".join(found)
    assert "presets.acme.colour" in text
    assert "the environment variable MISSING is not set" in text


@pytest.mark.parametrize("pattern", [".*", r"[^x]+", r"[\s\S]*", "a|.*"])
def test_a_generous_pattern_of_ones_own_lets_no_other_host_in(tmp_path: Path, pattern: str) -> None:
    own = acme(vars={"tenant": {"pattern": pattern, "about": "anything"}})
    for value in HOSTILE:
        (line,) = problems(tmp_path, entry("acme", {"token": KEY}, vars={"tenant": value}), own)
        assert "connections.conn.vars.tenant: does not match" in line


def test_a_file_of_presets_that_others_can_change_is_refused(tmp_path: Path) -> None:
    path = config(tmp_path, entry("openai", {"token": KEY}), acme())
    (tmp_path / "presets.yaml").chmod(0o666)
    with pytest.raises(ConfigError, match=r"presets\.yaml: the file is writable by others: chmod go-w"):
        load(path, {})
    (tmp_path / "presets.yaml").chmod(0o644)  # it holds no secret, so others may read it
    load(path, {})


@pytest.mark.parametrize("named", ["missing.yaml", "presets.txt", "a\0.yaml", "", 3, ["presets.yaml"]])
def test_a_file_of_presets_that_is_none_is_no_traceback(tmp_path: Path, named: Any) -> None:
    connection = entry("openai", {"token": KEY})
    path = write_config({"presets": named, "connections": {"conn": connection}}, tmp_path)
    with pytest.raises(ConfigError):
        load(path, {})


# The page.


def test_the_page_of_presets_is_the_data() -> None:
    """Generated; write it again with:

    PYTHONPATH=addon .venv/bin/python -c "from presign_proxy.config.presets import builtin, \
markdown_table as table; print(table.markdown(builtin.providers()), end='')" > docs/presets.md
    """
    written = (ROOT / "docs/presets.md").read_text("utf-8")
    assert written == markdown(providers())
    assert len(re.findall(r"^\| `", written, re.MULTILINE)) == len(providers())
