"""What a signer forgets or mistypes is said where it is typed, with what to do."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from support.asking import SECRET
from support.config import write_config
from support.lab import bearer_connection
from support.shell import Shell

HELD = {
    "connections": {
        "conn_a": bearer_connection("http://127.0.0.1:9/base", SECRET)
        | {"allow": {"methods": ["*"], "paths": ["v1/*", "health"]}, "max_lifetime": "1d"}
    }
}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    write_config(HELD, shell.directory)
    return shell


def test_an_authority_that_is_not_there_is_said_beside_the_exports(shell: Shell) -> None:
    done = shell.presign("sign", "conn_a", "v1/a", "--as", "env")
    assert done.code == 0
    assert "~/.mitmproxy/mitmproxy-ca-cert.pem does not exist" in done.err
    assert "--ca PATH" in done.err
    assert "over TLS" not in done.err
    named = shell.presign("sign", "conn_a", "v1/a", "--as", "env", "--ca", "ca.pem")
    assert "ca.pem cannot be read here" in named.err
    assert "presign ca --bundle FILE" in named.err
    private = shell.presign("sign", "conn_a", "v1/a", "--as", "env", "--base", "https://presign.corp")
    assert "https://presign.corp uses TLS" in private.err
    assert "does not exist" not in private.out


def test_a_variable_that_no_preset_names_is_said_beside_the_exports(shell: Shell) -> None:
    done = shell.presign("sign", "conn_a", "v1/a", "--as", "env", "--secret-env", "S", S=SECRET)
    assert "export API_KEY=ps1_" in done.out
    assert "API_KEY holds it here; rename that" in done.err


def test_headers_are_told_with_where_to_send_them(shell: Shell) -> None:
    done = shell.presign("sign", "conn_a", "v1/a", "--as", "headers")
    url = "http://127.0.0.1:8080/api/proxy/conn_a/v1/a"
    assert done.err == f"Send them with a request to {url}\n"
    assert all(line.startswith("X-Presign-") for line in done.out.splitlines())
    assert json.loads(shell.presign("sign", "conn_a", "v1/a", "--json").out)["send_to"] == url


def test_a_base_without_a_scheme_is_refused(shell: Shell) -> None:
    for verb in (
        ("sign", "conn_a", "v1/a"),
        ("convert", shell.presign("sign", "conn_a", "v1/a").out.strip()),
    ):
        done = shell.presign(*verb, "--base", "presign.example.com")
        assert (done.code, done.out) == (2, "")
        assert "https://presign.example.com?" in done.err


def test_a_secret_that_could_be_guessed_signs_nothing(shell: Shell) -> None:
    done = shell.presign("sign", "conn_a", "v1/a", "--secret-env", "S", S="abc")
    assert (done.code, done.out) == (1, "")
    assert "the environment variable S is too short: anyone with a URL could guess" in done.err
    weak = shell.presign("sign", "conn_a", "v1/a", "--secret-env", "S", S="sk_your_secret")
    assert weak.code == 0
    assert "a gateway requires weak: true" in weak.err


NEW = "sk_" + "Ab0-_" * 8 + "xyz"


@pytest.mark.parametrize(
    ("pasted", "said"),
    [
        (NEW, None),
        ("c2VjcmV0IGFuZCBtb3JlIG9mIGl0IQ==", None),
        (f"SIGNING_SECRET={NEW}", "the name of a variable"),
        (f"export SIGNING_SECRET='{NEW}'", "the name of a variable"),
        (f'"{NEW}"', "quotes"),
        (f"{NEW} ", "a blank"),
        (f"signing secret: {NEW}", "a blank"),
        (f'{{"secret": "{NEW}"}}', "braces"),
    ],
)
def test_what_was_copied_with_a_secret_is_told_where_it_signs_and_where_it_is_checked(
    pasted: str, said: str | None, shell: Shell
) -> None:
    """The same wrong value signed a URL, and explained it as good; the gateway answered invalid."""
    made = shell.presign("sign", "conn_a", "v1/a", "--secret-env", "S", "--base", "http://h", S=pasted)
    explained = shell.presign("explain", made.out.strip(), "--secret-env", "S", S=pasted)
    verified = shell.presign("verify", made.out.strip(), "--secret-env", "S", S=pasted)
    for done in (made, explained, verified):
        assert (done.code, NEW in done.all) == (0, False), done.all
        assert ("the environment variable S has" in done.err) is (said is not None), done.err
        assert said is None or f"S has {said} in it" in done.err


def test_methods_are_taken_in_any_case(shell: Shell) -> None:
    found = json.loads(shell.presign("sign", "conn_a", "v1/a", "--methods", "post,Get", "--json").out)
    assert found["methods"] == ["GET", "POST"]


@pytest.mark.parametrize("paths", ["v2/*", "healthy", "v2/*,v1/a"])
def test_patterns_that_the_connection_allows_nothing_of_are_refused(paths: str, shell: Shell) -> None:
    done = shell.presign("sign", "conn_a", "--paths", paths, "--as", "token")
    assert (done.code, done.out) == (1, "")
    assert "conn_a allows v1/*, health, and nothing of" in done.err


@pytest.mark.parametrize("paths", ["*", "v1/*", "*/v3", "h*h,v*/a"])
def test_patterns_that_the_connection_narrows_are_signed(paths: str, shell: Shell) -> None:
    assert shell.presign("sign", "conn_a", "--paths", paths, "--as", "token").code == 0


def test_a_lifetime_that_is_too_long_is_told_as_it_was_asked_for(shell: Shell) -> None:
    done = shell.presign("sign", "conn_a", "v1/a", "--expires", "2d")
    assert done.err == "presign: the gateway would answer lifetime_too_long: 2 days, at most 1 day\n"


def test_a_url_of_the_api_itself_is_understood(shell: Shell) -> None:
    url = "http://127.0.0.1:9/base/v1/models"
    done = shell.presign("sign", "conn_a", url)
    assert done.out.startswith("http://127.0.0.1:8080/api/proxy/conn_a/v1/models?")
    other = shell.presign("sign", "conn_a", "https://api.example.com/v1/models")
    assert (other.code, other.out) == (1, "")
    assert "does not begin with http://127.0.0.1:9/base/, the upstream of conn_a" in other.err


def test_a_url_of_the_api_says_which_connection_it_is_for(shell: Shell) -> None:
    done = shell.presign("sign", "http://127.0.0.1:9/base/v1/models")
    assert done.out.startswith("http://127.0.0.1:8080/api/proxy/conn_a/v1/models?")
    nobodys = shell.presign("sign", "http://127.0.0.1:9/other")
    assert (nobodys.code, nobodys.out) == (1, "")
    assert "no connection leads there" in nobodys.err
    alone = shell.presign("sign", "http://127.0.0.1:9/base/v1/models", "--secret-env", "NAME")
    assert (alone.code, alone.out) == (2, "")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("v1/a", "--expires", "1h", "--no-expiry"), "--expires and --no-expiry exclude each other"),
        (("v1/a", "--format", "jpg"), "--format is for scheme source"),
        (("/",), "no pattern matches the root alone"),
        (("v1/a", "--base", "127.0.0.1:8080"), "http://127.0.0.1:8080?"),
        (("v1/a", "--base", "gw.example/x"), "https://gw.example/x?"),
        (("v1/a", "--ca", "ca.pem"), "--ca needs --as env"),
        (("v1/a", "--secret-env", "S", "--key", "k2"), "a secret alone is one key"),
    ],
)
def test_options_that_contradict_each_other_sign_nothing(
    options: tuple[str, ...], told: str, shell: Shell
) -> None:
    done = shell.presign("sign", "conn_a", *options)
    assert (done.code, done.out) == (2, "")
    assert told in done.err


def test_a_mistyped_method_is_not_signed(shell: Shell) -> None:
    done = shell.presign("sign", "conn_a", "v1/a", "--methods", "gett,POST")
    assert (done.code, done.out) == (2, "")
    assert "--methods GETT: did you mean GET?" in done.err
    assert "write it twice: GETT,GETT" in done.err
    for twice in (("--methods", "gett,POST,GETT"), ("--methods", "GETT", "--methods", "GETT")):
        assert shell.presign("sign", "conn_a", "v1/a", *twice).code == 0


@pytest.mark.parametrize("method", ["PURGE", "M-SEARCH", "LIST", "FROBNICATE", "*"])
def test_a_method_of_an_api_s_own_is_signed(method: str, shell: Shell) -> None:
    done = shell.presign("sign", "conn_a", "v1/a", "--methods", method)
    assert (done.code, done.err) == (0, "")


def test_a_method_that_looks_mistyped_is_signed_where_the_connection_lists_it(shell: Shell) -> None:
    allow = {"methods": ["SET", "GET"], "paths": ["*"]}
    write_config(
        {"connections": {"conn_a": HELD["connections"]["conn_a"] | {"allow": allow}}}, shell.directory
    )
    done = shell.presign("sign", "conn_a", "v1/a", "--methods", "set")
    assert (done.code, done.err) == (0, "")
    assert shell.presign("sign", "conn_a", "v1/a", "--methods", "GETT").code == 2


def test_who_has_nothing_but_the_secret_signs_no_mistyped_method(shell: Shell) -> None:
    alone = ("sign", "conn_a", "v1/a", "--secret-env", "S", "--methods")
    done = shell.presign(*alone, "GETT", S=SECRET)
    assert (done.code, done.out) == (2, "")
    assert "--methods GETT: did you mean GET?" in done.err
    meant = shell.presign(*alone, "GETT,GETT", S=SECRET)
    assert (meant.code, meant.err) == (0, "")
    assert "X-Presign-Methods=GETT&" in meant.out


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--paths", "v1/models, v1/chat/*"),
        ("--paths", " v1/models"),
        ("--methods", "GET, POST"),
        ("--methods", "GET ,POST"),
        ("--client", "192.0.2.1, 192.0.2.7"),
    ],
)
def test_a_blank_beside_a_comma_is_not_signed(option: str, value: str, alone: bool, shell: Shell) -> None:
    """A pattern with a blank would be signed, and its holder would get 403."""
    secret = ("--secret-env", "S") if alone else ()
    done = shell.presign("sign", "conn_a", "v1/a", option, value, *secret, S=SECRET)
    assert (done.code, done.out) == (2, "")
    told = [line for line in done.err.splitlines() if line.startswith("Error:")]
    assert told == [
        f"Error: {option} has a blank before or behind an item: put a comma alone between items (in a path,"
        " write %20 for a blank that is meant)"
    ]
    assert "did you mean" not in done.err


def test_a_blank_in_the_middle_of_an_item_is_signed(shell: Shell) -> None:
    assert shell.presign("sign", "conn_a", "v1/my%20file", "--paths", "v1/my file,v1/%20x").code == 0


_SOURCE = {"scheme": "source", "allowed_origins": ["https://a.test"], "formats": ["png"]}
SOURCES = {
    "conn_s": _SOURCE | {"mode": "signed", "signing_keys": [{"secret": SECRET}]},
    "conn_open": _SOURCE | {"mode": "allowlist"},
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("conn_s", ("--methods", "POST")),
        ("conn_s", ("--paths", "a*")),
        ("conn_open", ("--expires", "1h")),
        ("conn_open", ("--no-expiry",)),
        ("conn_open", ("--key", "k1")),
    ],
)
def test_a_source_url_that_would_not_hold_what_was_said_is_not_printed(
    name: str, options: tuple[str, ...], shell: Shell
) -> None:
    write_config({"connections": SOURCES}, shell.directory)
    url = "https://a.test/one.png"
    assert shell.presign("sign", name, url).code == 0
    done = shell.presign("sign", name, url, *options)
    assert (done.code, done.out) == (2, "")
    told = {"conn_s": "leave out --methods and --paths", "conn_open": "leave out the expiry and --key"}
    assert told[name] in done.err


@pytest.mark.parametrize("form", ["token", "key", "base-url", "env"])
def test_a_path_that_the_new_form_cannot_hold_is_refused(form: str, shell: Shell) -> None:
    url = shell.presign("sign", "conn_a", "v1/a", "--paths", "v1/*").out.strip()
    done = shell.presign("convert", url, "--as", form, "--path", "v1/b")
    assert (done.code, done.out) == (2, "")
    assert f"--path needs --as url, curl, headers: {form} has no path" in done.err
    assert "v1/b" in json.loads(shell.presign("convert", url, "--path", "v1/b", "--json").out)["url"]


@pytest.mark.parametrize("form", ["url", "curl", "headers"])
def test_a_path_leads_a_url_to_another_path_of_the_same_grant(form: str, shell: Shell) -> None:
    """`--as curl` with an option behind it was taken for the beginning of a curl command line."""
    url = shell.presign("sign", "conn_a", "v1/a", "--paths", "v1/*").out.strip()
    done = shell.presign("convert", url, "--as", form, "--path", "v1/b")
    assert done.code == 0
    assert "/api/proxy/conn_a/v1/b" in done.all
    pasted = shell.presign("convert", "--as", form, "--path", "v1/b", "curl", "-s", url)
    assert pasted == done


def test_no_path_is_granted_but_the_one_that_the_url_names(shell: Shell) -> None:
    """`verify URL --path other` said that it would be granted, and meant the path of the URL."""
    url = shell.presign("sign", "conn_a", "v1/a").out.strip()
    token = shell.presign("convert", url).out.strip()
    for verb in ("verify", "explain"):
        for pasted in ((url,), ("curl", url)):
            done = shell.presign(verb, "--path", "v1/b", *pasted)
            assert (done.code, done.out) == (2, ""), pasted
            assert "a URL has its own path" in done.err
        for text in (url, token):
            done = shell.presign(verb, text, "--to", "https://api.example.com/v1/b")
            assert (done.code, done.out) == (2, "")
            assert "--to needs headers" in done.err
        assert shell.presign(verb, token, "--path", "v1/a").code == 0
        assert shell.presign(verb, token, "--path", "v1/b").code == 1


def test_a_secret_in_the_place_of_a_variables_name_is_not_repeated(shell: Shell) -> None:
    secret = "sk_supersecretliteral_0a1b2c3d4e5f6a7b8c9d"
    done = shell.presign("sign", "conn_a", "v1/a", "--secret-env", secret)
    assert (done.code, done.out) == (1, "")
    assert secret not in done.err
    assert "its name is needed here" in done.err
    named = shell.presign("sign", "conn_a", "v1/a", "--secret-env", "openai_signing_secret_2")
    assert "the environment variable openai_signing_secret_2 is not set" in named.err


def test_the_word_path_of_a_hint_is_not_signed(shell: Shell) -> None:
    done = shell.presign("sign", "conn_a", "PATH")
    assert (done.code, done.out) == (2, "")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (("sing", "conn_a"), "did you mean sign"),
        (("connections", "ad"), "did you mean add"),
        (("presets", "opnai"), "did you mean openai"),
        (("connections", "add", "--preset", "opnai"), "did you mean openai"),
    ],
)
def test_a_mistyped_word_is_told_with_the_nearest(typed: tuple[str, ...], meant: str, shell: Shell) -> None:
    done = shell.presign(*typed)
    assert done.code in (1, 2)
    assert meant in done.err


@pytest.mark.parametrize("typed", [("presets", "nowhere"), ("sign", "conn_other", "v1"), ("xyz",)])
def test_a_word_that_is_like_no_other_is_not_answered_with_a_guess(
    typed: tuple[str, ...], shell: Shell
) -> None:
    done = shell.presign(*typed)
    assert done.code in (1, 2)
    assert "did you mean" not in done.err.lower()


def test_a_mistyped_key_of_the_configuration_is_told_with_the_nearest(shell: Shell) -> None:
    entry = {name: value for name, value in HELD["connections"]["conn_a"].items() if name != "allow"}
    write_config({"connections": {"conn_a": entry | {"alow": {}}}}, shell.directory)
    assert "alow: is not a key that is known here: did you mean allow?" in shell.presign("check").out


def test_no_for_unsigned_is_told_with_its_words(shell: Shell) -> None:
    (shell.directory / "config.yaml").write_text("gateway: {unsigned: no}\nconnections: {}\n")
    assert "gateway.unsigned: is ambiguous: write pass or deny" in shell.presign("check").out


def test_the_variables_of_a_preset_are_missed_before_the_key_is_read(shell: Shell) -> None:
    done = shell.presign("connections", "add", "--preset", "azure-openai", stdin="")
    assert done.code == 2
    assert "--var resource=VALUE is required" in done.err


API = ("--upstream", "https://api.example.com", "--auth", "bearer")


def test_a_key_that_is_not_where_it_is_said_to_be_is_told_at_once(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert shell.presign("init").code == 0
    for name, place, told in (
        (
            "conn_a",
            ("--credential-env", "NO_SUCH_KEY"),
            "Not set here: the environment variable NO_SUCH_KEY.",
        ),
        (
            "conn_b",
            ("--credential-file", "keys/no"),
            f"Not found here: the file {shell.directory / 'keys/no'}.",
        ),
    ):
        done = shell.presign("connections", "add", name, *API, *place)
        assert done.code == 0
        assert told in done.err
        assert told not in done.out
    # No such file can be asked for, and the connection is there already.
    long = shell.presign("connections", "add", "conn_l", *API, "--credential-file", "x" * 300)
    assert (long.code, "Not found here: the file" in long.err) == (0, True), long.all
    (shell.directory / "key").write_text("sk-KEY-0123456789")
    there = (
        ("conn_c", ("--credential-env", "THE_KEY")),
        ("conn_d", ("--credential-file", "key")),
        ("conn_e", ("--credential-file", str(shell.directory / "key"))),
    )
    for name, place in there:
        done = shell.presign("connections", "add", name, *API, *place, THE_KEY="sk-KEY-0123456789")
        assert (done.code, len(done.err.splitlines())) == (0, 1), done.err


def test_a_key_in_the_place_of_its_variables_name_is_not_repeated(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert shell.presign("init").code == 0
    key = "sk_supersecretliteral_0a1b2c3d4e5f6a7b8c9d"
    done = shell.presign("connections", "add", "conn_a", *API, "--credential-env", key)
    assert key not in done.err
    assert "its name is needed here" in done.err


def test_a_ceiling_of_a_mistyped_method_is_not_written(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert shell.presign("init").code == 0
    add = ("connections", "add", "conn_a", *API, "--methods")
    done = shell.presign(*add, "gett,POST")
    assert done.code == 2
    assert "--methods GETT: did you mean GET?" in done.err
    assert shell.presign(*add, "gett,POST,GETT", stdin="KEY-0123456789\n").code == 0
    change = ("connections", "set", "conn_a", "--yes")
    for typed in (("--methods", "GETT,PSOT"), ("allow.methods=GETT,PSOT",)):
        done = shell.presign(*change, *typed)
        assert done.code == 2
        name = typed[0].partition("=")[0]
        assert f"{name} PSOT: did you mean POST?" in done.err  # GETT is there already
        assert shell.presign(*change, *typed[:-1], f"{typed[-1]},psot").code == 0
        assert shell.presign(*change, "--methods", "GETT").code == 0


def test_a_source_that_the_gateway_would_refuse_is_not_signed(shell: Shell) -> None:
    write_config({"connections": SOURCES}, shell.directory)
    for name in SOURCES:
        done = shell.presign("sign", name, "https://other.test/one.png")
        assert (done.code, done.out) == (1, "")
        assert f"the source is not on an allowed origin; {name} allows https://a.test" in done.err


def test_a_source_is_a_whole_url(shell: Shell) -> None:
    write_config({"connections": SOURCES}, shell.directory)
    done = shell.presign("sign", "conn_s", "/one.png")
    assert (done.code, done.out) == (2, "")
    assert "give the whole URL of the source, such as https://" in done.err


def test_without_an_expiry_a_url_is_valid_for_as_long_as_the_connection_allows(shell: Shell) -> None:
    entry = HELD["connections"]["conn_a"]
    for most, lasts in (("10m", 600), ("1d", 3600)):
        write_config({"connections": {"conn_a": entry | {"max_lifetime": most}}}, shell.directory)
        done = shell.presign("sign", "conn_a", "v1/a", "--json")
        assert done.code == 0, done.all
        assert abs(json.loads(done.out)["expires"] - time.time() - lasts) < 60
    assert shell.presign("sign", "conn_a", "v1/a", "--expires", "2d").code == 1


def test_who_has_only_a_secret_and_forgets_to_name_it_is_told_how(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    for line in (("sign", "conn_a", "v1/a"), ("run", "conn_a", "--", "true")):
        done = shell.presign(*line)
        assert done.code == 1
        assert "--secret-env NAME" in done.err
        assert "elsewhere, name its file with --config PATH or $PRESIGN_CONFIG" in done.err
    named = shell.presign("sign", "conn_a", "v1/a", "--config", "none.yaml")
    assert "--secret-env" not in named.err


def test_a_name_that_cannot_be_signed_is_told_by_its_option(shell: Shell) -> None:
    done = shell.presign("sign", "conn_a", "v1/a", "--id", "Alice Miller")
    assert done.code == 2
    assert "--id is not 1 to 64 of" in done.err


def test_the_options_of_a_policy_are_named_that_a_source_cannot_have(shell: Shell) -> None:
    write_config({"connections": SOURCES}, shell.directory)
    done = shell.presign(
        "sign", next(iter(SOURCES)), "https://a.test/one.png", "--id", "a", "--max-uses", "3"
    )
    assert (done.code, done.out) == (2, "")
    assert "leave out --max-uses and --id" in done.err


def test_a_gateway_that_nothing_names_is_said_to_be_guessed(shell: Shell) -> None:
    (shell.directory / "config.yaml").unlink(missing_ok=True)
    alone = ("sign", "conn_a", "v1/models", "--secret-env", "SECRET")
    done = shell.presign(*alone, SECRET=SECRET)
    assert "Nothing names the gateway, so it is http://127.0.0.1:8080: name yours with --base" in done.err
    assert "Nothing names" not in shell.presign(*alone, SECRET=SECRET, PRESIGN_BASE="https://gw.test").err
    assert "Nothing names" not in shell.presign(*alone, "--base", "https://gw.test", SECRET=SECRET).err
    assert "Nothing names" not in shell.presign(*alone, "--as", "key", SECRET=SECRET).err
    write_config({"connections": SOURCES}, shell.directory)
    assert "Nothing names" not in shell.presign(*alone, SECRET=SECRET).err
