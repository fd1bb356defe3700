"""The command: JSON for programs, refusals for nonsense, and whole files whatever happens."""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.registry_file.edit import Draft
from presign_proxy.config.registry_file.encryption import parse_key
from presign_proxy.signing.secret import Secret
from support.forking import Case, Runner
from support.places import TESTS
from support.shell import MODULE, Done, Shell, Terminal

KEY = "sk-KEY-0123456789"
IMPORTED = "sk_imported_0123456789abcdef0123456789"
API = ("--upstream", "http://127.0.0.1:9", "--auth", "bearer")
URL = "http://127.0.0.1:8080/api/proxy/conn_a/v1/a?X-Presign-Signature=00"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(Shell(tmp_path_factory.mktemp("runner")))
    yield runner
    runner.close()


@pytest.fixture
def runner(started: Runner, shell: Shell) -> Runner:
    """Runs commands in the shell's directory."""
    return started.at(shell)


@pytest.fixture
def run(runner: Runner) -> Callable[..., Done]:
    """Runs a command that is expected to do what it is told."""

    def run(*argv: str, stdin: str = "", code: int = 0, **env: str) -> Done:
        done = runner.run(Case(argv, stdin, env))
        assert done.code == code, done.all
        return done

    return run


@pytest.fixture
def home(shell: Shell, run: Callable[..., Done]) -> Shell:
    """A gateway with one connection, conn_a, whose signing secret is IMPORTED."""
    run("init")
    run("connections", "add", "conn_a", *API, "--import-secret", stdin=f"{KEY}\n{IMPORTED}\n")
    return shell


def content(shell: Shell) -> dict[str, Any]:
    """The registry, as the key file opens it."""
    keys = [parse_key(Secret(text)) for text in (shell.directory / "presign.key").read_text().split()]
    return json.loads(Draft.read(shell.directory / "connections.enc", keys).payload)


def plain(shell: Shell, registry: Any) -> None:
    """A gateway with a plain registry."""
    for name, text in (("plain.json", json.dumps(registry)), ("config.yaml", "registry: {file: plain.json}")):
        (shell.directory / name).write_text(text)
        (shell.directory / name).chmod(0o600)


# -- signing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["v1/points/52.5,13.4", "v1/points/52.5%2C13.4", "/v1/a,b?at=1,2"])
def test_a_path_with_a_comma_is_signed_as_it_is_typed(
    path: str, home: Shell, run: Callable[..., Done]
) -> None:
    """It was a usage error: a comma ends an item of a list."""
    signed = json.loads(run("sign", "conn_a", path, "--json").out)
    assert signed["paths"] == [path.partition("?")[0].removeprefix("/").replace(",", "%2C")]
    for spelling in (signed["url"], signed["url"].replace("5,1", "5%2c1")):
        assert run("verify", spelling).code == 0


# -- JSON ---------------------------------------------------------------------------------------------


def test_json_on_every_verb_is_one_object_with_the_keys_that_are_documented(
    shell: Shell, run: Callable[..., Done]
) -> None:
    def said(*argv: str, **options: Any) -> Any:
        done = run(*argv, "--json", **options)
        assert not done.err
        return json.loads(done.out)

    assert said("init").keys() == {"wrote", "key"}
    added = said("connections", "add", "conn_a", *API, stdin=KEY)
    assert added.keys() == {"id", "upstream", "signing_key"}
    assert added["signing_key"].keys() == {"id", "secret"}
    (listed,) = said("connections", "list")
    assert listed.keys() == {"id", "scheme", "upstream", "auth", "keys", "revoked_keys", "state", "file"}
    assert said("connections", "show", "conn_a").keys() == listed.keys() | {"entry"}
    signed = said("sign", "conn_a", "v1/a")
    grant = {
        "connection",
        "methods",
        "paths",
        "expires",
        "expires_at",
        "url",
        "base_url",
        "token",
        "headers",
        "send_to",
    }
    assert signed.keys() == grant | {"signature_id", "key"}
    converted = said("convert", signed["token"], "--path", "v1/a")
    assert converted == {name: signed[name] for name in converted}
    assert converted.keys() == grant | {"signature_id"}
    assert said("verify", signed["url"])["decision"] == "forward"
    steps = said("explain", signed["url"])
    assert steps.keys() == {"verdict", "claimed", "steps", "findings", "forward", "assumed"}
    assert said("check").keys() == {"ok", "errors", "warnings"}
    assert said("connections", "rotate", "conn_a").keys() == {"id", "signing_key", "older"}
    (shell.directory / "keys.env").write_text(f"GITHUB_TOKEN={KEY}\n")
    assert said("connections", "import", "keys.env", "--yes").keys() == {"added", "left_out", "unknown"}
    assert said("connections", "set", "conn_a", "max_uses=5", "--yes").keys() == {"id", "changed"}
    for verb, state in (("disable", "disabled"), ("enable", "enabled")):
        assert said("connections", verb, "conn_a") == {"id": "conn_a", "state": state}
    revoked = said("revoke", signed["url"])
    assert revoked == {"revoked": True, "what": "urls", "id": signed["signature_id"]}
    assert said("verify", signed["url"], code=1)["code"] == "revoked"
    assert said("rekey").keys() == {"registry", "kid"}
    assert said("decrypt", "--out", "plain.json").keys() == {"wrote"}
    assert said("encrypt", "plain.json", "--replace").keys() == {"wrote", "connections"}
    assert said("connections", "remove", "conn_a", "--yes") == {"id": "conn_a", "state": "removed"}
    assert len(said("presets")) >= 40
    assert said("presets", "openai")["name"] == "OpenAI"
    assert said("connections", "show", "conn_b", code=1).keys() == {"error"}


def test_a_configuration_that_cannot_be_read_is_json_for_check_too(shell: Shell, run) -> None:
    (shell.directory / "config.yaml").write_text("gateway: {colour: blue}\n")
    found = json.loads(run("check", "--json", code=1).out)
    assert found["ok"] is False
    assert [error.rpartition("config.yaml")[2] for error in found["errors"]] == [
        ":1:11: gateway.colour: is not a key that is known here"
    ]


# -- nonsense -----------------------------------------------------------------------------------------

ODD = {
    "absent": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "directory": lambda path: path.mkdir(),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 64),
    "utf16": lambda path: path.write_text(f"connections: {{a: {{token: {KEY}}}}}", "utf-16"),
    "nul": lambda path: path.write_text(f"registry: {KEY}\0"),
    "list": lambda path: path.write_text(f"[{KEY}]"),
    "scalar": lambda path: path.write_text(KEY),
    "deep": lambda path: path.write_text("[" * 100_000 + KEY),
    "unclosed": lambda path: path.write_text(f'connections: {{"{KEY}'),
    "dangling": lambda path: path.symlink_to(path.with_name("nowhere")),
    "loop": lambda path: path.symlink_to(path),
    "huge": lambda path: path.write_text(f"#{KEY}\n" * (1 << 20)),
}  # fmt: skip

READING = [
    ("connections", "list"), ("connections", "show", "conn_a"), ("connections", "rotate", "conn_a"),
    ("connections", "disable", "conn_a"), ("connections", "remove", "conn_a", "--yes"),
    ("connections", "add", "conn_b", *API), ("sign", "conn_a", "v1/a"), ("verify", URL), ("explain", URL),
    ("revoke", "0" * 32), ("revoke", "--connection", "conn_a"), ("rekey",), ("decrypt",), ("check",),
]  # fmt: skip


def refused(done: Done, what: object, *secrets: str) -> None:
    """It is told what is wrong, in a sentence, and nothing else."""
    assert done.code in (1, 2), f"{what}: exit {done.code}\n{done.all}"
    assert "Traceback" not in done.all, f"{what}\n{done.all}"
    assert done.all.strip(), what
    assert len(done.all) < 4000, what
    assert "codec" not in done.all, what
    for secret in (KEY, IMPORTED, *secrets):
        assert secret not in done.all, what


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("place", ["config.yaml", "connections.enc", "presign.key"])
def test_an_odd_file_in_the_place_of_one_of_ours_is_a_refusal(
    home: Shell, runner: Runner, place: str, odd: str
) -> None:
    path = home.directory / place
    path.unlink()
    ODD[odd](path)
    if path.is_file():
        path.chmod(0o600)
    before = path.read_bytes() if path.is_file() else b""
    for argv in READING:
        if not path.exists() and place == "config.yaml" and argv in (("verify", URL), ("explain", URL)):
            continue  # they help a holder, who has none
        done = runner.run(Case(argv, KEY))
        refused(done, argv)
        assert place in done.all, argv
    assert (path.read_bytes() if path.is_file() else b"") == before


SIGNING = [{"id": "k1", "secret": IMPORTED}]
GOOD = {"upstream": "https://a.test", "auth": {"type": "bearer", "token": KEY}, "signing_keys": SIGNING}


def with_a(**changes: Any) -> dict[str, Any]:
    return {"connections": {"a": GOOD | changes}}


ILL_FORMED = [
    *(5, [], "text", None, {"conections": {"a": GOOD}}, {**with_a(), "more": 1}),
    *({"connections": one} for one in ([], "x", {"a": 5}, {"a": None}, {"a b": GOOD}, {"\ud800": GOOD})),
    *(with_a(auth=one) for one in (KEY, {"type": [KEY]}, {"type": "header", "headers": KEY})),
    *(
        with_a(signing_keys=one)
        for one in (KEY, [KEY], [{"secret": 7}], [{**SIGNING[0], "not_after": "noon"}])
    ),
    *(with_a(preset=7), with_a(upstream="\ud800")),
    *({**with_a(), "revoked": one} for one in ([], {"urls": []}, {"urls": {"0" * 32: 5}})),
    {**with_a(), "revoked": {"added_before": {"a": "noon"}}},
]


@pytest.mark.parametrize("registry", ILL_FORMED, ids=lambda one: repr(one)[:60])
def test_an_ill_formed_registry_is_never_a_traceback(shell: Shell, runner: Runner, registry: Any) -> None:
    lines = (
        "connections list", "connections show a", "sign a x", "check", f"verify {URL}",
        "connections rotate a", "connections rotate a --credential", "connections disable a",
        "connections remove a --yes", "revoke --connection a", "revoke 00000000000000000000000000000000",
        "revoke --connection a --added-before 2020-01-01T00:00:00Z",
    )  # fmt: skip
    codes = set()
    for line in lines:
        argv = tuple(line.split())
        plain(shell, registry)
        done = runner.run(Case(argv, KEY))
        codes.add(done.code)
        assert done.code in (0, 1, 2), f"{argv}: {done.all}"
        assert "Traceback" not in done.all
        assert KEY not in done.all
        if done.code:
            refused(done, argv)
    assert 1 in codes
    for text in (f"{KEY}\n", "\xff"):
        refused(runner.run(Case(("encrypt", "-", "--replace"), text)), "encrypt")


SAID = TESTS / "data/nonsense.txt"
STANDS_FOR = {
    "<bad>": b"v1/\xff\xfe",
    "<huge>": b"x" * 100_000,
    "<long>": b"x" * 300,
    "<newline>": b"\n",
    "<key>": KEY.encode(),
    "<url>": URL.encode(),
    "<id>": b"0" * 32,
}


def nonsense() -> Iterator[Case]:
    for line in SAID.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            yield Case(tuple(map(meant, shlex.split(line.replace("<api>", " ".join(API))))), KEY)
    for verb in ("connections add conn_b --upstream http://127.0.0.1:9 --auth bearer",
                 "connections rotate conn_a --credential"):  # fmt: skip
        for given in (b"", b"\n", b"\xff\xfe", b"a\0b", b"a\x1bb", b"k" * 70_000, b"\n" + KEY.encode()):
            yield Case(tuple(verb.split()), given)
    texts = [
        b"",
        b"\n",
        b"\xff\xfe",
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"[" * 100_000,
        b"%" * 100_000,
        b"curl '",
    ]
    texts += [bytes(range(256)), b"x" * (2 << 20), b"ps1_" + b"A" * 100_000, b"http://a/?" + b"a=b&" * 50_000]
    for verb in ("verify", "explain", "convert", "revoke", "encrypt"):
        yield from (Case((verb, "-"), text) for text in texts)


def meant(word: str) -> bytes:
    raw = word.encode()
    for name, text in STANDS_FOR.items():
        raw = raw.replace(name.encode(), text)
    return raw


def test_nonsense_is_refused_in_a_sentence_and_changes_nothing(home: Shell, runner: Runner) -> None:
    before = {path.name: path.read_bytes() for path in home.directory.iterdir()}
    for case in nonsense():
        began = time.monotonic()
        refused(runner.run(Case(case.argv, case.stdin, {"SIGNING": IMPORTED})), case)
        assert time.monotonic() - began < 10, case
    after = {path.name: path.read_bytes() for path in home.directory.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} <= {"connections.enc"}
    assert sorted(after) == sorted(before)
    assert list(content(home)["connections"]) == ["conn_a"]
    assert len(content(home)["connections"]["conn_a"]["signing_keys"]) == 1
    assert content(home)["connections"]["conn_a"]["auth"]["token"] == KEY


@pytest.mark.parametrize("verb", READING, ids=" ".join)
def test_the_key_of_another_registry_opens_nothing(
    home: Shell, runner: Runner, verb: tuple[str, ...]
) -> None:
    text = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI"
    (home.directory / "presign.key").write_text(f"{text}\n")
    done = runner.run(Case(verb, KEY))
    refused(done, verb, text)
    assert "is encrypted with the key" in done.all


# -- secrets ------------------------------------------------------------------------------------------


@pytest.mark.needs("/proc")
def test_a_secret_is_neither_on_the_command_line_nor_on_the_screen_nor_in_the_environment(
    home: Shell,
) -> None:
    seen: list[bytes] = []

    def look(pid: int) -> None:
        seen.extend(Path(f"/proc/{pid}/{what}").read_bytes() for what in ("cmdline", "environ"))

    argv = [*MODULE, "connections", "add", "conn_b", *API, "--import-secret"]
    done = home.terminal(argv, ["sk-TYPED-KEY", "sk_typed_secret_0123456789abcdef0123456789"], look)
    assert done.code == 0
    assert done.out.startswith("API key of conn_b: \nsigning secret of conn_b: \nconn_b leads to")
    assert "typed" not in done.out.lower()
    assert len(seen) == 4
    assert not any(b"typed" in found.lower() for found in seen)
    entry = content(home)["connections"]["conn_b"]
    assert entry["auth"]["token"] == "sk-TYPED-KEY"
    assert entry["signing_keys"][0]["secret"] == "sk_typed_secret_0123456789abcdef0123456789"


def test_no_option_takes_a_secret(run: Callable[..., Done]) -> None:
    """Whatever is an argument, all users of the machine can read."""
    for verb in (
        ["connections", "add"],
        ["connections", "rotate"],
        ["init"],
        ["rekey"],
        ["encrypt"],
        ["sign"],
    ):
        options = [
            line.split()[0] for line in run(*verb, "--help").out.splitlines() if line.startswith("  --")
        ]
        assert not {option for option in options if option in ("--token", "--secret", "--credential-value")}
        assert {option for option in options if "secret" in option} <= {
            "--import-secret", "--secret-env", "--secret-file"}  # fmt: skip


@pytest.mark.parametrize("name", ["env", "file", "exec", "X-Key"])
@pytest.mark.parametrize("kind", ["header", "query"])
def test_show_hides_a_key_whatever_its_header_is_called(home: Shell, run, kind: str, name: str) -> None:
    run("connections", "add", "conn_b", *API[:3], kind, "--name", name, stdin=KEY)
    for options in ([], ["--json"]):
        shown = run("connections", "show", "conn_b", *options).out
        assert KEY not in shown
        assert name in shown


def test_show_says_where_a_secret_is_kept_and_not_what_a_program_is_told(home: Shell, run) -> None:
    run("connections", "add", "conn_b", *API, "--credential-exec", f"vault read {KEY}")
    run("connections", "add", "conn_c", *API, "--credential-env", "THE_KEY")
    shown = run("connections", "show", "conn_b").out
    assert "vault" in shown
    assert KEY not in shown
    assert "env: THE_KEY" in run("connections", "show", "conn_c").out


# -- what comes in between ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv", [("connections", "add", "conn_b", *API), ("connections", "remove", "conn_a")]
)
def test_ctrl_c_at_a_question_changes_nothing(home: Shell, argv: tuple[str, ...]) -> None:
    before = (home.directory / "connections.enc").read_bytes()
    with Terminal([*MODULE, *argv], home.directory, home.env) as terminal:
        terminal.wait_for_question()
        terminal.interrupt()
        assert terminal.wait() == 1
        assert "Aborted!" in terminal.screen
        assert "Traceback" not in terminal.screen
    assert (home.directory / "connections.enc").read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        "connections add conn_b --upstream http://127.0.0.1:9 --auth bearer",
        "connections remove conn_a",
        "connections rotate conn_a --credential",
        "verify -",
        "revoke -",
        "encrypt -",
    ],
)
def test_a_closed_standard_input_is_a_refusal(home: Shell, line: str) -> None:
    done = home.bash(f"presign {line} <&-")
    refused(done, line)
    assert done.out.startswith("presign: ")


def test_a_reader_that_has_enough_is_no_error(home: Shell) -> None:
    for verb in (
        "presets",
        "presets --json",
        "explain 'http://127.0.0.1:8080/api/proxy/conn_a/x'",
        "decrypt",
    ):
        done = home.bash(f"presign {verb} | head -c 1; sleep 0.1")
        assert len(done.out) == 1, done.out


@pytest.mark.needs("/dev/full")
def test_a_full_device_is_told_of(home: Shell) -> None:
    done = home.bash("presign connections list > /dev/full")
    assert (done.code, done.out) == (1, "presign: no space left on device\n")
    done = home.bash("presign connections list --json > /dev/full")
    assert (done.code, done.out) == (1, "presign: no space left on device\n")


def test_two_adds_at_once_are_both_there(home: Shell) -> None:
    children = [home.start("connections", "add", f"conn_{n}", *API) for n in range(4)]
    for child in children:
        child.communicate(KEY.encode(), 30)
    assert [child.returncode for child in children] == [0] * 4
    assert sorted(content(home)["connections"]) == ["conn_0", "conn_1", "conn_2", "conn_3", "conn_a"]


def test_an_add_while_another_one_asks_takes_nothing_away(home: Shell, run) -> None:
    """Both saw that the name was free; the slower one would have put its key and secret over the other's."""

    def meanwhile(_: int) -> None:
        run("connections", "add", "conn_b", *API, stdin="sk-FIRST")

    done = home.terminal([*MODULE, "connections", "add", "conn_b", *API], ["sk-SECOND"], meanwhile)
    assert done.code == 1
    assert "connection conn_b exists already" in done.out
    assert content(home)["connections"]["conn_b"]["auth"]["token"] == "sk-FIRST"


def test_an_init_while_another_one_asks_overwrites_nothing(shell: Shell, run) -> None:
    words = "correct horse battery"
    asked: list[int] = []

    def meanwhile(pid: int) -> None:
        if not asked:
            run("init", "--config", "config.yaml")
        asked.append(pid)

    done = shell.terminal([*MODULE, "init", "--passphrase", "WORDS"], [words, words], meanwhile)
    assert done.code == 1
    assert "exists already; nothing was changed" in done.out
    assert "key: {file: presign.key}" in (shell.directory / "config.yaml").read_text()
    assert content(shell) == {"connections": {}}


def under_limit(shell: Shell, *argv: str, limit: int) -> Done:
    """Run a command that can write no file larger than that."""
    done = subprocess.run(
        [*MODULE, *argv],
        input=KEY.encode(),
        capture_output=True,
        cwd=shell.directory,
        env=shell.env | {"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        timeout=30,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize(
    "argv",
    [
        ("connections", "add", "conn_b", *API),
        ("connections", "rotate", "conn_a"),
        ("revoke", "--connection", "conn_a"),
        ("rekey",),
        ("decrypt", "--out", "plain.json"),
    ],
    ids=" ".join,
)
def test_a_full_disk_leaves_the_old_registry(home: Shell, argv: tuple[str, ...]) -> None:
    before = content(home)
    done = under_limit(home, *argv, limit=150)
    refused(done, argv)
    assert "cannot be written: file too large" in done.err
    assert content(home) == before
    assert not list(home.directory.glob(".*.draft"))
    assert not (home.directory / "plain.json").exists()


def test_a_full_disk_leaves_no_half_of_a_new_gateway(shell: Shell) -> None:
    done = under_limit(shell, "init", limit=10)
    refused(done, "init")
    assert "presign.key: cannot be written: file too large" in done.err
    assert not [path.name for path in shell.directory.iterdir() if path.suffix != ".lock"]


def test_a_rotate_that_is_killed_leaves_the_old_registry_or_the_new_one(home: Shell, run) -> None:
    for delay in (0.15, 0.22, 0.26, 0.3, 0.35, 0.4):
        before = content(home)["connections"]["conn_a"]["signing_keys"]
        child = home.start("connections", "rotate", "conn_a")
        time.sleep(delay)
        child.kill()
        child.communicate()
        after = content(home)["connections"]["conn_a"]["signing_keys"]
        assert after in (before, [after[0], *before])
        # Whatever was left behind, the next one works and clears it away.
        run("connections", "rotate", "conn_a", *(f"--drop={key['id']}" for key in after[1:]))
        assert not list(home.directory.glob(".*.draft"))


def test_every_file_is_private_whatever_the_umask(shell: Shell) -> None:
    done = shell.bash(
        f"umask 000; presign init && echo {KEY} | presign connections add conn_a {' '.join(API)}"
        " && presign rekey && presign decrypt --out plain.json"
    )
    assert done.code == 0, done.out
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in shell.directory.iterdir()}
    assert set(modes.values()) == {"0o600"}, modes
    assert {"config.yaml", "connections.enc", "presign.key", "plain.json"} <= modes.keys()


# -- init ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o2770, 0o722])
def test_init_refuses_a_directory_that_others_can_write(shell: Shell, runner: Runner, mode: int) -> None:
    """One with a file, which could be theirs. What `init` makes private itself: cli/test_umask.py."""
    (shell.directory / "notes.txt").touch()
    shell.directory.chmod(mode)
    done = runner.run(Case(("init",)))
    refused(done, mode)
    assert f"{shell.directory}: the directory is writable by others: chmod go-w" in done.err
    assert [path.name for path in shell.directory.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["config.yaml", "connections.enc", "presign.key"])
@pytest.mark.parametrize("kind", ["file", "directory", "dangling"])
def test_init_overwrites_nothing(shell: Shell, runner: Runner, name: str, kind: str) -> None:
    path = shell.directory / name
    {"file": lambda: path.write_text("mine"), "directory": path.mkdir,
     "dangling": lambda: path.symlink_to("nowhere")}[kind]()  # fmt: skip
    refused(runner.run(Case(("init",))), name)
    assert [one.name for one in shell.directory.iterdir()] == [name]
    assert kind != "file" or path.read_text() == "mine"


# -- keys that are gone -------------------------------------------------------------------------------


def test_a_connection_that_comes_back_does_not_get_a_key_that_was_revoked(home: Shell, run) -> None:
    run("revoke", "--key", "conn_a/k1")
    run("connections", "remove", "conn_a", "--yes")
    run("connections", "add", "conn_a", *API, stdin=KEY)
    assert run("sign", "conn_a", "v1/a", "--as", "token").out.startswith("ps1_")


def test_a_key_without_an_id_keeps_the_one_that_its_place_gave_it(shell: Shell, run) -> None:
    unnamed = [{"secret": IMPORTED}, {"secret": f"{IMPORTED}-older"}]
    plain(shell, {"connections": {"a": {**GOOD, "signing_keys": unnamed}}})
    assert json.loads(run("connections", "rotate", "a", "--json").out)["older"] == ["k1", "k2"]
    found = json.loads((shell.directory / "plain.json").read_text())["connections"]["a"]["signing_keys"]
    assert [(key["id"], key["secret"]) for key in found[1:]] == [
        ("k1", IMPORTED),
        ("k2", f"{IMPORTED}-older"),
    ]


def test_what_has_expired_is_forgotten_when_something_else_is_revoked(shell: Shell, run) -> None:
    urls = {"0" * 32: {"at": "2020-01-01T00:00:00Z", "expires": 1}, "1" * 32: {"at": "2020-01-01T00:00:00Z"}}
    plain(shell, {"connections": {"a": GOOD}, "revoked": {"urls": urls}})
    run("revoke", "2" * 32)
    left = json.loads((shell.directory / "plain.json").read_text())["revoked"]["urls"]
    assert sorted(left) == ["1" * 32, "2" * 32]


def test_rekey_never_drops_the_key_that_opens_the_registry(home: Shell, run) -> None:
    file = home.directory / "presign.key"
    current = file.read_text()
    others = "".join(f"{'MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMT' + last}\n" for last in "IMQ")
    file.write_text(others + current)
    run("rekey")
    assert file.read_text().split()[1] == current.strip()
    assert len(file.read_text().split()) == 4


def test_convert_needs_no_key_of_the_registry(home: Shell, run) -> None:
    url = run("sign", "conn_a", "v1/a").out.strip()
    token = run("convert", url).out
    (home.directory / "presign.key").unlink()
    assert run("convert", url).out == token


# -- completion ---------------------------------------------------------------------------------------


@pytest.mark.needs("bash")
def test_the_shell_completes_verbs_options_and_connections(home: Shell, run) -> None:
    script = run("completion", "bash").out
    assert subprocess.run(["bash", "-n"], input=script.encode(), check=False).returncode == 0
    assert "_PRESIGN_COMPLETE=bash_complete" in script
    for words, expected in {
        "presign conn": ["plain,connections"],
        "presign connections ro": ["plain,rotate"],
        "presign sign co": ["plain,conn_a"],
        "presign connections rotate c": ["plain,conn_a"],
        "presign revoke --connection c": ["plain,conn_a"],
        "presign connections add --preset opena": ["plain,openai"],
        "presign sign --no-ex": ["plain,--no-expiry"],
        "presign sign x": [],
    }.items():
        env = {"_PRESIGN_COMPLETE": "bash_complete", "COMP_WORDS": words}
        done = home.bash("presign", COMP_CWORD=str(len(words.split()) - 1), **env)
        assert done.out.split() == expected, words


@pytest.mark.parametrize("shell_name", ("zsh", "fish"))
def test_other_shells_have_a_completion_too(run: Callable[..., Done], shell_name: str) -> None:
    assert f"_PRESIGN_COMPLETE={shell_name}_complete" in run("completion", shell_name).out


def test_completion_says_nothing_where_there_is_no_configuration(shell: Shell) -> None:
    env = {"_PRESIGN_COMPLETE": "bash_complete", "COMP_WORDS": "presign sign c", "COMP_CWORD": "2"}
    assert shell.bash("presign", **env).out.strip() == ""


@pytest.mark.parametrize(
    "argv",
    [
        ("sign", "conn_a", "v1/models", "--secret-file", "~nobody-of-that-name/secret"),
        ("sign", "conn_a", "v1/models", "--as", "env", "--ca", "~nobody-of-that-name/ca.pem"),
    ],
)
def test_a_home_of_nobody_is_told_as_a_file_that_is_not_there(
    argv: tuple[str, ...], home: Shell, runner: Runner
) -> None:
    """It was a traceback, as it was for a user without a home."""
    done = runner.run(Case(argv))
    assert "~nobody-of-that-name/" in done.all
    assert "Traceback" not in done.all
