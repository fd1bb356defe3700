"""`presign connections set`: what was added is changed, shown before it is written, and never half."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.shell import MODULE, Done, Shell, Terminal

KEY = "sk-KEY-0123456789"
API = ("--upstream", "http://127.0.0.1:9", "--auth", "bearer")


@pytest.fixture
def home(tmp_path: Path) -> Shell:
    """A gateway with an encrypted registry, and conn_a and conn_gitlab in it."""
    shell = Shell(tmp_path)
    for argv in (
        ("init",),
        ("connections", "add", "conn_a", *API),
        ("connections", "add", "--preset", "gitlab"),
    ):
        done = shell.presign(*argv, stdin=f"{KEY}\n")
        assert done.code == 0, done.all
    return shell


def change(home: Shell, *settings: str, name: str = "conn_a") -> Done:
    done = home.presign("connections", "set", name, *settings, "--yes")
    assert done.code == 0, done.all
    return done


def entry(home: Shell, name: str = "conn_a") -> dict[str, Any]:
    connections = json.loads(home.presign("decrypt").out)["connections"]
    found: dict[str, Any] = connections[name]
    return found


def registry(home: Shell) -> bytes:
    return (home.directory / "connections.enc").read_bytes()


@pytest.mark.parametrize(
    ("setting", "key", "written"),
    [
        ("max_lifetime=7d", "max_lifetime", "7d"),
        ("enabled=false", "enabled", False),
        ("max_uses=10", "max_uses", 10),
        ("pool=off", "pool", "off"),
        ("pool=false", "pool", False),
        ("cookies=pass", "cookies", "pass"),
        ("upstream=https://api.example.com/v2", "upstream", "https://api.example.com/v2"),
        ("allow.methods=get,POST", "allow", {"methods": ["GET", "POST"]}),
        ("allow.paths=v1/*,v2/*", "allow", {"paths": ["v1/*", "v2/*"]}),
        ("allow={methods: [GET]}", "allow", {"methods": ["GET"]}),
        ("default_headers.X-Version=2024", "default_headers", {"X-Version": "2024"}),
        ("default_headers.X-Sum=a=b", "default_headers", {"X-Sum": "a=b"}),
        ("timeouts.response=5m", "timeouts", {"response": "5m"}),
        ("allow_networks=10.0.0.0/8,fd00::/8", "allow_networks", ["10.0.0.0/8", "fd00::/8"]),
        ("also=objects.example.com", "also", ["objects.example.com"]),
        ("limits=60/minute", "limits", [{"rate": "60/minute"}]),
        (
            "limits=60/minute burst 10 per url,1000/month,quota 9/day per client,concurrency 20",
            "limits",
            [
                {"rate": "60/minute", "burst": 10, "per": "url"},
                {"quota": "1000/month"},
                {"quota": "9/day", "per": "client"},
                {"concurrency": 20},
            ],
        ),
        (
            "limits=[{rate: 5/second, on_store_failure: allow}]",
            "limits",
            [{"rate": "5/second", "on_store_failure": "allow"}],
        ),
    ],
)
def test_each_kind_of_key_is_written_as_its_type(home: Shell, setting: str, key: str, written: Any) -> None:
    before = entry(home)
    change(home, setting)
    assert entry(home) == before | {key: written}
    assert home.presign("check").code == 0


def test_what_is_not_named_stays_and_an_empty_value_removes(home: Shell) -> None:
    before = entry(home)
    change(home, "allow.methods=GET", "allow.paths=v1/*", "max_lifetime=7d")
    change(home, "allow.methods=", "default_headers.X-A=b")
    assert entry(home)["allow"] == {"paths": ["v1/*"]}
    change(home, "allow.paths=", "max_lifetime=", "default_headers.X-A=")
    assert entry(home) == before


def test_a_ceiling_that_was_set_holds_for_what_was_signed_before(home: Shell) -> None:
    url = home.presign("sign", "conn_a", "v1/models").out.strip()
    change(home, "allow.paths=v2/*")
    assert home.presign("verify", url).code == 1
    change(home, "allow.paths=")
    assert home.presign("verify", url).code == 0


def test_a_connection_that_is_disabled_by_set_is_in_the_notice_at_once(home: Shell) -> None:
    change(home, "enabled=false")
    notice = (home.directory / "connections.enc.revoked").read_text()
    assert "conn_a" in notice
    assert json.loads(home.presign("connections", "list", "--json").out)[0]["state"] == "disabled"


def test_a_self_hosted_gitlab_gets_the_key_and_that_is_said_first(home: Shell) -> None:
    done = home.presign("connections", "set", "conn_gitlab", "upstream=https://gitlab.corp.example")
    assert done.code == 1
    assert "  + upstream: https://gitlab.corp.example" in done.err
    assert "Its API key is sent to https://gitlab.corp.example from now on." in done.err
    assert "--yes" in done.err
    change(home, "upstream=https://gitlab.corp.example", name="conn_gitlab")
    filled = json.loads(home.presign("connections", "show", "conn_gitlab", "--json").out)["entry"]
    assert filled["upstream"] == "https://gitlab.corp.example"
    assert filled["auth"] == {"type": "header", "headers": {"PRIVATE-TOKEN": "********"}}


def test_without_a_terminal_and_without_yes_nothing_is_written(home: Shell) -> None:
    before = registry(home)
    for argv in ((), ("--json",)):
        done = home.presign("connections", "set", "conn_a", "max_lifetime=7d", *argv)
        assert done.code == 1
        assert "+ max_lifetime: 7d" in done.err
    assert registry(home) == before


@pytest.mark.parametrize(("answer", "written"), [("y", True), ("n", False)])
def test_on_a_terminal_it_shows_and_asks(home: Shell, answer: str, written: bool) -> None:
    change(home, "max_lifetime=7d")
    argv = [*MODULE, "connections", "set", "conn_a", "max_lifetime=1d"]
    with Terminal(argv, home.directory, home.env) as terminal:
        terminal.wait_for_question()
        assert "- max_lifetime: 7d" in terminal.screen
        assert "+ max_lifetime: 1d" in terminal.screen
        assert entry(home)["max_lifetime"] == "7d"
        terminal.type(answer)
        assert terminal.wait() == (0 if written else 1)
    assert entry(home)["max_lifetime"] == ("1d" if written else "7d")


def test_what_another_command_changed_meanwhile_is_not_overwritten(home: Shell) -> None:
    argv = [*MODULE, "connections", "set", "conn_a", "max_lifetime=1d"]
    with Terminal(argv, home.directory, home.env) as terminal:
        terminal.wait_for_question()
        change(home, "allow.paths=v1/*")
        terminal.type("y")
        assert terminal.wait() == 1
        assert "changed by another command" in terminal.screen
    assert entry(home)["allow"] == {"paths": ["v1/*"]}
    assert "max_lifetime" not in entry(home)


def test_json_says_both_values_of_each_key(home: Shell) -> None:
    change(home, "max_lifetime=7d")
    done = change(home, "max_lifetime=1d", "allow.paths=v1/*", "--json")
    assert not done.err
    assert json.loads(done.out) == {
        "id": "conn_a",
        "changed": {
            "max_lifetime": {"before": "7d", "after": "1d"},
            "allow.paths": {"before": None, "after": ["v1/*"]},
        },
    }
    before = registry(home)
    assert json.loads(change(home, "max_lifetime=1d", "--json").out) == {"id": "conn_a", "changed": {}}
    assert registry(home) == before


SECRET = "sk-do-not-print-0123456789abcdef"


@pytest.mark.parametrize(
    ("setting", "code", "said"),
    [
        ("max_lifetime", 2, "KEY=VALUE"),
        (SECRET, 2, "KEY=VALUE"),
        (f"{SECRET}=x", 2, "the word before = is not a key"),
        ("alow.paths=v1/*", 2, "did you mean allow"),
        ("allow.path=v1/*", 2, "did you mean paths?"),
        ("max-lifetime=7d", 2, "did you mean max_lifetime?"),
        ("methods=GET", 2, "did you mean allow.methods?"),
        ("formats=jpg", 2, "formats is a key of connections of scheme source"),
        ("scheme=source", 2, "scheme of a connection cannot change"),
        (f"auth.token={SECRET}", 2, "never arguments"),
        (f"auth={{type: bearer, token: {SECRET}}}", 2, "never arguments"),
        (f"signing_keys=[{{secret: {SECRET}}}]", 2, "never arguments"),
        (f"enabled={SECRET}", 2, "enabled has to be true or false"),
        (f"max_uses={SECRET}", 2, "max_uses has to be a whole number"),
        (f"allow={SECRET}", 2, "allow.KEY=VALUE"),
        ("enabled.x=true", 2, "enabled has no keys in it"),
        (f"limits={SECRET}", 2, "a limit is 60/minute"),
        ("limits=20", 2, "concurrency 20"),
        ("limits=60/minute each url", 2, "a limit is 60/minute"),
        ("limits=60/fortnight", 1, "limits.0.rate: has to be a rate"),
        ("limits=60/minute per person", 1, "limits.0.per: has to be"),
        ("limits=60/minute,30/minute", 1, "another limit counts the same thing"),
        (f"limits=[{{rate: 1/second, {SECRET}", 1, "is not valid YAML"),
        ("limits=[{rate: 1/second, bursts: 2}]", 1, "did you mean burst?"),
        (f"max_lifetime={SECRET}", 1, "max_lifetime"),
        (f"upstream=https://user:{SECRET}@api.example.com", 1, "without user name"),
        ("upstream=http://api.example.com", 1, "is not https"),
        ("upstream=", 1, "upstream: is required"),
        (f"default_headers.Authorization={SECRET}", 1, "use auth instead"),
        (f"default_headers.X-Presign-A={SECRET}", 1, "only the gateway may set"),
        ("allow.methods=G T", 1, "allow.methods"),
        ("preset=opnai", 1, "did you mean openai"),
        ("vars.resource=x", 1, "no effect without a preset"),
        ("enabled=\udcff", 2, "UTF-8"),
    ],
)
def test_nonsense_is_refused_by_name_and_no_value_is_repeated(
    home: Shell, setting: str, code: int, said: str
) -> None:
    before = registry(home)
    done = home.presign("connections", "set", "conn_a", setting, "--yes")
    assert done.code == code, done.all
    assert said in " ".join(done.err.split()), done.all
    assert "Traceback" not in done.all
    assert SECRET not in done.all
    assert registry(home) == before


def test_one_bad_setting_of_two_changes_nothing(home: Shell) -> None:
    before = registry(home)
    done = home.presign("connections", "set", "conn_a", "max_uses=5", "max_lifetime=long", "--yes")
    assert done.code == 1
    assert registry(home) == before


def test_a_connection_of_config_yaml_or_of_nobody_is_not_changed(home: Shell) -> None:
    done = home.presign("connections", "set", "conn_b", "max_uses=5", "--yes")
    assert (done.code, "there is no connection 'conn_b'" in done.err) == (1, True)
    file = home.directory / "config.yaml"
    keys = "signing_keys: [{secret: sk_0123456789abcdef0123456789abcdef}]"
    own = f"{{upstream: 'https://a.test', auth: {{type: bearer, token: {KEY}}}, {keys}}}"
    file.write_text(f"connections: {{conn_own: {own}}}\n{file.read_text()}")
    done = home.presign("connections", "set", "conn_own", "max_uses=5", "--yes")
    assert (done.code, "conn_own is in config.yaml" in done.err) == (1, True)


def test_the_registry_stays_encrypted_and_private(home: Shell) -> None:
    change(home, "max_lifetime=7d")
    assert registry(home).startswith(b"ey")
    assert (home.directory / "connections.enc").stat().st_mode & 0o777 == 0o600
    assert KEY.encode() not in registry(home)


@pytest.mark.needs("bash")
def test_the_shell_completes_the_keys_but_not_those_of_secrets(home: Shell) -> None:
    for words, expected in {
        "presign connections set conn_": ["plain,conn_a", "plain,conn_gitlab"],
        "presign connections set conn_a max": [
            "plain,max_uses=",
            "plain,max_lifetime=",
            "plain,max_duration=",
        ],
        "presign connections set conn_a allow.": ["plain,allow.methods=", "plain,allow.paths="],
        "presign connections set conn_a sign": [],
    }.items():
        env = {"_PRESIGN_COMPLETE": "bash_complete", "COMP_WORDS": words}
        done = home.bash("presign", COMP_CWORD=str(len(words.split()) - 1), **env)
        assert done.out.split() == expected, words
