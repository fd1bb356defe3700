"""`--json` and `--config` on every verb, and one shape for every error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from presign_proxy.cli.main import main
from support.forking import Case, Runner
from support.shell import Done, Shell

KEY = "sk-KEY-0123456789"


def verbs(
    group: click.Group, before: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from verbs(found, (*before, name))
        else:
            yield (*before, name), found


ALL = dict(verbs(main))
WITHOUT_CONFIGURATION = {
    "init",
    "demo",
    "completion",
    "schema",
    "example",
    "script-path",
    "presets",
    "convert",
}
"""Verbs that a configuration that does not exist is no error for."""
ARGUMENTS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("connections", "set"): ("x", "max_uses=5"),
    ("connections", "import"): ("keys.env",),
}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(Shell(tmp_path_factory.mktemp("json")))
    yield runner
    runner.close()


@pytest.fixture
def runner(started: Runner, tmp_path: Path) -> Runner:
    return started.at(Shell(tmp_path))


def error_of(done: Done, code: int) -> str:
    """The text of an error, which is all that is printed."""
    assert (done.code, done.err) == (code, ""), done.all
    said = json.loads(done.out)
    assert said.keys() == {"error"}
    assert said["error"]
    assert "Traceback" not in said["error"]
    return said["error"]


@pytest.mark.parametrize("verb", ALL, ids=" ".join)
def test_every_verb_takes_config_and_json(verb: tuple[str, ...]) -> None:
    options = {name for one in ALL[verb].params for name in one.opts}
    assert {"--config", "--json"} <= options


@pytest.mark.parametrize("verb", ALL, ids=" ".join)
def test_a_usage_error_of_any_verb_is_json(verb: tuple[str, ...], runner: Runner) -> None:
    for argv in ((*verb, "--json", "--no-such-option"), (*verb, "a", "b", "c", "d", "--json", "--no-such=x")):
        assert "No such option --no-such" in error_of(runner.run(Case(argv)), 2)
    required = [one for one in ALL[verb].params if isinstance(one, click.Argument) and one.required]
    if required:
        assert "Missing argument" in error_of(runner.run(Case((*verb, "--json"))), 2)


@pytest.mark.parametrize("verb", [one for one in ALL if one[0] not in WITHOUT_CONFIGURATION], ids=" ".join)
def test_a_configuration_that_is_not_there_is_json_for_any_verb(
    verb: tuple[str, ...], runner: Runner, tmp_path: Path
) -> None:
    required = [one for one in ALL[verb].params if isinstance(one, click.Argument) and one.required]
    values = ARGUMENTS.get(verb, ())
    given = [*(["x"] * (len(required) - len(values))), *values]
    extra = {
        ("sign",): ["v1/a"],
        ("connections", "add"): ["x", "--preset", "openai"],
        ("revoke",): ["0" * 32],
        ("encrypt",): [],
        ("verify",): [],
        ("run",): ["x"],
    }.get(verb, [])
    if verb in (("verify",), ("explain",)):
        given = ["https://presign.local/api/proxy/a/b"]
    (tmp_path / "here").mkdir(exist_ok=True)
    argv = (*verb, *given, *extra, "--json", "--config", str(tmp_path / "none.yaml"))
    argv += ("--", "true") if verb == ("run",) else ()
    said = error_of(runner.run(Case(argv, KEY)), 1)
    assert "none.yaml" in said or "keys.env" in said, said


@pytest.mark.parametrize("argv", [
    ("sing", "--json"), ("connections", "ad", "--json"), ("--json",), ("--json", "sign"),
    ("connections", "--json"),
    ("sign", "a", "v1/a", "--as", "x", "--json"), ("sign", "--json", "a", "v1/a", "--base", "x"),
    ("sign", "a", "v1/a", "--json", "--secret-env", "A", "--secret-file", "b"),
    ("presets", "--json", "--markdown"), ("audit", "--json", "--since", "x"),
    ("serve", "--json", "--workers", "0"),
    ("sign", "a", b"\xff", "--json", "--secret-env", "A"), (b"\xff", "--json"),
], ids=str)  # fmt: skip
def test_whatever_cannot_be_understood_is_json(argv: tuple, runner: Runner) -> None:
    error_of(runner.run(Case(argv)), 2)


def test_what_a_verb_prints_about_itself_is_json_too(runner: Runner) -> None:
    for argv, key in (
        (("completion", "bash"), "script"),
        (("example",), "example"),
        (("script-path",), "path"),
        (("schema",), "properties"),
    ):
        plain, found = runner.run(Case(argv)), json.loads(runner.run(Case((*argv, "--json"))).out)
        assert found[key]
        if isinstance(found[key], str):
            assert found[key].strip() == plain.out.strip()
