"""What people type: other spellings that are understood, and mistakes that are answered with what to do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.forking import Case, Runner
from support.shell import MODULE, Done, Shell

KEY = "sk-KEY-0123456789"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Three connections: one of a preset, one of a preset elsewhere, and one with a ceiling."""
    shell = Shell(tmp_path_factory.mktemp("typed"))
    own = ("--upstream", "http://127.0.0.1:9", "--auth", "bearer", "--paths", "v1/*", "--max-lifetime", "1d")
    for line in (
        ("init",),
        ("connections", "add", "--preset", "github"),
        ("connections", "add", "--preset", "gitlab", "--upstream", "https://gitlab.corp"),
        ("connections", "add", "conn_a", *own),
    ):
        done = shell.presign(*line, stdin=KEY)
        assert done.code == 0, done.all
    return shell


@pytest.fixture(scope="module")
def run(home: Shell) -> Iterator[Callable[..., Done]]:
    runner = Runner(home)

    def run(*argv: str, code: int = 0, **env: str) -> Done:
        done = runner.run(Case(argv, "", env))
        assert done.code == code, done.all
        return done

    yield run
    runner.close()


def signed(run: Callable[..., Done], *argv: str, **env: str) -> dict:
    return json.loads(run("sign", *argv, "--json", **env).out)


def test_a_method_is_signed_in_upper_case(run) -> None:
    assert signed(run, "conn_github", "user", "--methods", "post,Get")["methods"] == ["GET", "POST"]


def test_the_providers_own_url_is_understood(run) -> None:
    for argv in (("conn_github", "https://api.github.com/user"), ("https://api.github.com/user",)):
        found = signed(run, *argv)
        assert (found["connection"], found["paths"]) == ("conn_github", ["user"])


def test_an_encoded_slash_is_signed_for_gitlab_and_else_names_the_key_that_allows_it(run) -> None:
    path = "projects/group%2Fproj"
    assert run("verify", signed(run, "conn_gitlab", path)["url"]).code == 0
    assert "allow_encoded_slash" in run("sign", "conn_a", f"v1/{path}", code=1).err


@pytest.mark.parametrize(("base", "meant"), [
    ("presign.example.com", "https://presign.example.com"),
    ("localhost:8080", "http://localhost:8080"),
    ("https://g.example/?a=1", "without ? and #"),
    ("", "http://"),
])  # fmt: skip
def test_a_base_that_is_no_url_is_refused_with_what_was_meant(base: str, meant: str, run) -> None:
    assert meant in run("sign", "conn_a", "v1/a", "--base", base, code=2).err


def test_paths_above_the_ceiling_are_refused_with_what_the_ceiling_allows(run) -> None:
    assert "conn_a allows v1/*" in run("sign", "conn_a", "--paths", "v2/*", code=1).err


@pytest.mark.parametrize("form", ["url", "curl", "headers", "token", "env"])
def test_patterns_without_a_path_are_json_without_a_url(form: str, run) -> None:
    found = signed(run, "conn_a", "--paths", "v1/*", "--as", form)
    assert found["url"] is None
    assert found["token"].startswith("ps1_")
    converted = json.loads(run("convert", found["token"], "--as", "url", "--json").out)
    assert (converted["url"], converted["token"]) == (None, found["token"])


def test_patterns_without_a_path_are_no_url_for_people(run) -> None:
    assert "needs one PATH" in run("sign", "conn_a", "--paths", "v1/*", code=2).err


def test_a_lifetime_above_the_ceiling_is_told_in_days(run) -> None:
    assert "2 days, at most 1 day" in run("sign", "conn_a", "v1/a", "--expires", "2d", code=1).err


@pytest.mark.parametrize(("text", "seconds"), [
    ("1 hour", 3600), ("90 minutes", 5400), ("2 days", 172_800), ("1h30m", 5400), ("1 hour 30 minutes", 5400),
    ("1 week", 604_800), ("1m30s", 90), ("2d 12h", 216_000), ("45 secs", 45), ("2 hrs", 7200),
])  # fmt: skip
def test_a_duration_is_understood_in_words(text: str, seconds: int, run) -> None:
    left = signed(run, "conn_github", "user", "--expires", text)["expires"] - time.time()
    assert seconds - 10 < left <= seconds


@pytest.mark.parametrize(
    "text", ["1 month", "30m1h", "1h1h", "an hour", "1.5h", "0 minutes", "1H", "-1h", ""]
)
def test_a_duration_that_may_mean_something_else_is_refused(text: str, run) -> None:
    assert "--expires needs a duration" in run("sign", "conn_github", "user", "--expires", text, code=2).err


def test_the_variable_of_a_preset_is_asked_for_before_its_key(home: Shell) -> None:
    done = home.terminal([*MODULE, "connections", "add", "--preset", "azure-openai"], ["acme", KEY])
    assert done.code == 0, done.all
    assert done.all.index("the name of the Azure OpenAI resource") < done.all.index("API key of")


def test_an_upstream_overrides_that_of_the_preset(run) -> None:
    found = json.loads(run("connections", "show", "conn_gitlab", "--json").out)
    assert found["upstream"] == "https://gitlab.corp"


@pytest.mark.parametrize(("argv", "code", "meant"), [
    (("sing",), 2, "did you mean sign?"),
    (("connections", "ad"), 2, "did you mean add?"),
    (("connections", "add", "--preset", "opnai"), 1, "did you mean openai?"),
    (("presets", "opnai"), 1, "did you mean openai?"),
    (("sign", "conn_gihtub", "user"), 1, "did you mean conn_github?"),
    (("connections", "show", "github"), 1, "did you mean conn_github?"),
    (("sign", "conn_a", "v1/a", "--metods", "GET"), 2, "--methods"),
    (("sign", "conn_a", "v1/a", "--as", "heders"), 2, "did you mean headers?"),
    (("sign", "conn_a", "v1/a", "--methods", "GETT"), 2, "GET"),
    (("sign", "conn_a", "v1/a", "--key", "k11"), 1, "did you mean k1?"),
    (("revoke", "--key", "conn_a/kk1"), 1, "did you mean k1?"),
    (("connections", "rotate", "conn_a", "--drop", "k11"), 1, "did you mean k1?"),
    (("connections", "set", "conn_a", "alow.paths=a"), 2, "did you mean allow?"),
    (("audit", "--code", "expird", "x"), 2, "did you mean expired?"),
    (("completion", "fihs"), 2, "did you mean fish?"),
    (("add", "--preset", "openai"), 2, " connections add`"),
    (("list",), 2, " connections list`"),
    (("help",), 2, " --help`"),
    (("help", "sign"), 2, " sign --help`"),
    (("connections", "help", "add"), 2, " connections add --help`"),
    (("connections", "add", "openai"), 2, " connections add --preset openai`"),
    (("connections", "add", "opnai"), 2, " connections add --preset openai`"),
    (("connections", "rotate", "conn_a", "k2"), 2, "--drop ID removes an older one"),
    (("sign", "conn_a", "v1/a", "v1/b"), 2, "for several paths, write --paths PATH,PATH"),
])  # fmt: skip
def test_a_misspelt_word_is_answered_with_the_nearest(
    argv: tuple[str, ...], code: int, meant: str, run
) -> None:
    assert meant in run(*argv, code=code).err


def test_a_misspelt_key_of_the_configuration_is_told_with_its_place(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    path = shell.directory / "config.yaml"
    path.write_text("gateway:\n  hots: [a.test]\n  unsigned: no\n...\n")
    path.chmod(0o600)
    said = shell.presign("check")
    assert "config.yaml:3:13: gateway.unsigned: is ambiguous: write pass or deny" in said.all
    assert "config.yaml:2:3: gateway.hots: is not a key that is known here: did you mean hosts?" in said.all


def test_help_on_a_terminal_of_another_encoding_is_text(home: Shell) -> None:
    for encoding in ("latin-1", "cp1252"):
        child = home.start("sign", "--help", PYTHONIOENCODING=encoding)
        out, err = child.communicate(timeout=120)
        text = out.decode(encoding)
        assert (child.returncode, err) == (0, b"")
        assert "M,..." in text or "M,…" in text
        assert "?" not in text


# -- where the gateway is ------------------------------------------------------------------------------


def test_the_gateways_url_is_the_default_of_base(home: Shell, run) -> None:
    path = home.directory / "config.yaml"
    before = path.read_text()
    assert signed(run, "conn_a", "v1/a")["url"].startswith("http://127.0.0.1:8080/api/")
    try:
        path.write_text(before.replace("gateway:\n", "gateway:\n  url: https://gw.example/\n", 1))
        found = signed(run, "conn_a", "v1/a")
        assert found["url"].startswith("https://gw.example/api/")
        converted = json.loads(run("convert", found["token"], "--path", "v1/a", "--json").out)
        assert converted["url"] == found["url"]
        other = signed(run, "conn_a", "v1/a", PRESIGN_BASE="http://env.example")
        assert other["url"].startswith("http://env.example/api/")
        other = signed(run, "conn_a", "v1/a", "--base", "http://b.example", PRESIGN_BASE="http://env.example")
        assert other["url"].startswith("http://b.example/api/")
        path.write_text(before.replace("gateway:\n", "gateway:\n  url: gw.example\n", 1))
        assert "gateway.url: has to be a URL" in run("sign", "conn_a", "v1/a", code=1).err
    finally:
        path.write_text(before)


def test_a_variable_that_is_no_url_is_named(run) -> None:
    said = run("sign", "conn_a", "v1/a", code=2, PRESIGN_BASE="gw.example").err
    assert "PRESIGN_BASE must be a URL with http:// or https://: https://gw.example?" in said


@pytest.mark.parametrize(
    "url", ["http://a.example\nX: y", "http://a.example -Dx=y", "http://a.example/\x1b[2J"]
)
def test_a_variable_that_would_end_in_the_middle_of_a_url_is_refused(run, url: str) -> None:
    done = run("sign", "conn_a", "v1/a", code=2, PRESIGN_BASE=url)
    assert "PRESIGN_BASE must be a URL without blanks and control characters" in done.err
    assert not done.out
