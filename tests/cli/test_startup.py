"""What a start of the command imports, and that help needs no verb to be imported. Nothing here is timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from presign_proxy.cli.main import VERBS, main
from support.shell import ADDON, Shell

SECRET = "sk_startup_0123456789abcdef0123456789"
SIGNING = {
    "http.percent",
    "prerequisites",
    *(
        "signing.base64url",
        "signing.canonical",
        "signing.carrier_names",
        "errors",
        "signing.grammar",
        "signing.keys",
        "regexes",
        "signing.secret",
        "signing.signer",
    ),
    *("signing.signed_policy", "signing.tokens"),
}
"""What `Signer` needs: a few pure modules."""
START = {
    "__main__",
    "cli.colours",
    "cli.main",
    "cli.program",
    "cli.quick_click",
    "config.pasteable_command",
    "prerequisites",
    "version",
}
"""What each start imports."""
COMMAND = START | {"config_problems", "config.path", "cli.hints", "cli.place", "cli.output"}
BARE = {
    *(SIGNING | COMMAND),
    *(
        "config.secret_sources",
        "file_access",
        "config.values",
        "cli.completion",
        "cli.environment",
        "cli.methods",
        "cli.grant_forms",
        "cli.sign",
        "cli.sign_source",
        "cli.signing_key",
        "cli.policy_options",
        "cli.values",
        "units",
    ),
}
CONVERTING = {
    *(
        BARE
        - {"cli.sign", "cli.sign_source", "cli.signing_key", "cli.methods", "cli.hints", "cli.completion"}
    ),
    *(
        "explain.convert",
        "signing.disclosure",
        "http.hosts",
        "explain.input.lenient",
        "http.message",
        "http.field_names",
        "http.networks",
        "http.paths",
        "explain.input.paste",
        "explain.input.curl",
        "explain.input.shell_words",
    ),
    *(
        "explain.input.urls",
        "http.query",
        "signing.key_token",
        "signing.presign_scheme",
        "signing.source_scheme",
        "signing.source_url",
    ),
    *("cli.prompts", "cli.convert", "cli.paste"),
}
CONFIGURED = {
    *BARE,
    *(
        "core.ceiling",
        "config.strict_yaml",
        "config.registry_file.edit",
        "config.strict_json",
        "http.paths",
        "http.patterns",
        "config.permissions",
        "config.presets.builtin",
        "config.registry_file.open",
    ),
    *(
        "core.revocations",
        "config.signing_parts",
        "config.signing_view",
        "config.plain_entries",
        "config.registry_file.storage",
        "config.registry_file.revoked_entries",
        "config.registry_file.encryption",
        "cli.configured",
        "cli.quick_yaml",
        "core.policy",
    ),
}
NEVER = {"asyncio", "ssl", "sqlite3", "multiprocessing", "http.client", "importlib.metadata"}
SLOW = {"dataclasses", "inspect", "ast", "ipaddress", "signal", "string", "urllib.parse"}
"""Each takes a hundredth of the time that signing by connection takes, or more, and is not needed for it."""

_REPORT = """
import json, sys
try:
    {what}
except SystemExit as ended:
    code = ended.code
else:
    code = 0
print(json.dumps([code, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """An encrypted registry with one connection of a preset, a ceiling, two keys and revocations."""
    shell = Shell(tmp_path_factory.mktemp("startup"), SIGNING_SECRET=SECRET)
    assert shell.presign("init").code == 0
    added = shell.presign("connections", "add", "conn_a", "--preset", "openai", stdin="sk-KEY-0123456789\n")
    assert added.code == 0, added.all
    assert shell.presign("connections", "rotate", "conn_a").code == 0
    assert shell.presign("revoke", "--key", "conn_a/k1").code == 0
    return shell


ROOMS = {".".join(face.relative_to(ADDON).parts[:-1]) for face in ADDON.rglob("__init__.py")}
"""Their faces are empty."""


def ours_of(modules: set[str]) -> set[str]:
    return {
        name.removeprefix("presign_proxy.") for name in modules - ROOMS if name.startswith("presign_proxy.")
    }


def ran(shell: Shell, what: str) -> tuple[set[str], list[str]]:
    """All modules that are there after this was run in a process of its own, and the lines it printed."""
    done = subprocess.run(
        [sys.executable, "-c", _REPORT.format(what=what)],
        capture_output=True,
        text=True,
        cwd=shell.directory,
        env=shell.env,
    )
    *lines, report = done.stdout.splitlines() or [""]
    assert report.startswith("["), done.stdout + done.stderr
    code, modules = json.loads(report)
    assert code in (0, None), done.stdout + done.stderr
    return set(modules), lines


def imported(shell: Shell, what: str) -> tuple[set[str], set[str], set[str]]:
    """Modules of ours, top-level packages of others, and all modules that running this imports."""
    modules, _ = ran(shell, what)
    ours = ours_of(modules)
    tops = {name.partition(".")[0] for name in modules}
    # What an environment puts into each of its processes is not imported by the command.
    others = tops - sys.stdlib_module_names - {"presign_proxy", "__main__", "_virtualenv", "sitecustomize"}
    return ours, others, modules


def command(*arguments: str) -> str:
    return f"sys.argv = ['presign', *{arguments!r}]; from presign_proxy.__main__ import main; main()"


def test_the_package_imports_nothing_until_it_is_asked(home: Shell) -> None:
    ours, others, _ = imported(home, "import presign_proxy")
    assert (ours, others) == ({"prerequisites"}, set())


def test_a_program_that_signs_imports_pure_modules_alone(home: Shell) -> None:
    ours, others, modules = imported(home, "from presign_proxy import Signed, Signer, Terms")
    assert ours == SIGNING
    assert others == set()
    assert not modules & (NEVER | {"subprocess", "threading", "socket", "logging"})


def test_who_signs_with_a_secret_alone_waits_for_click_alone(home: Shell) -> None:
    ours, others, modules = imported(
        home, command("sign", "conn_a", "v1/a", "--secret-env", "SIGNING_SECRET")
    )
    assert ours == BARE
    assert others == {"click"}
    assert not modules & (NEVER | {"subprocess"})


def test_who_signs_by_connection_waits_for_no_model_of_the_configuration(home: Shell) -> None:
    ours, others, modules = imported(home, command("sign", "conn_a", "v1/models"))
    assert ours == CONFIGURED
    assert {name for name in others if not name.startswith(("_", "cython"))} == {
        "click",
        "yaml",
        "cryptography",
    }
    assert not modules & (NEVER | SLOW | {"subprocess"})


CLEANED = """
from presign_proxy.cli.main import main
import inspect, click
assert click.core.inspect is not inspect and inspect.signature and inspect.__spec__.name == "inspect"
clean = click.core.inspect.cleandoc
for text in ("", "one", "  one ", "one\\n    two\\n      three\\n", "\\tone", "\\n  one\\n  two"):
    assert clean(text) == inspect.cleandoc(text), text
assert click.core.inspect.isfunction(main.main) == inspect.isfunction(main.main)
"""


def test_click_gets_of_inspect_what_it_asks_for(home: Shell) -> None:
    imported(home, f"exec({CLEANED!r})")


READ_BY_PYTHON = """
from presign_proxy.cli import configured
import datetime, yaml, re
assert re.compile is re.__dict__["compile"] and re.compile.__module__ == "re", re.compile
assert type(yaml.reader.Reader.NON_PRINTABLE).__name__ == "LateRegex"
assert yaml.load("a: [1, é, 😀]", yaml.SafeLoader) == {"a": [1, "é", "😀"]}
for loader in (yaml.SafeLoader, yaml.CSafeLoader):
    read = yaml.load("[yes, 1.5, 0x1f, ~, 2026-01-02]", loader)
    assert read == [True, 1.5, 31, None, datetime.date(2026, 1, 2)], read
for text in ("a: \x01", "a: \ufffe"):
    try:
        yaml.load(text, yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        assert "special characters are not allowed" in str(error)
    else:
        raise AssertionError(text)
"""


def test_yaml_that_was_imported_quickly_still_reads_and_refuses_the_same(home: Shell) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ_BY_PYTHON], env=home.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_who_converts_waits_for_click_alone(home: Shell, tmp_path: Path) -> None:
    url = home.presign("sign", "conn_a", "v1/a", "--secret-env", "SIGNING_SECRET").out.strip()
    elsewhere = Shell(tmp_path)
    ours, others, modules = imported(elsewhere, command("convert", url))
    assert ours == CONVERTING
    assert others == {"click"}
    assert not modules & (NEVER | {"subprocess"})


def test_who_reads_a_log_waits_for_no_model_of_the_configuration(home: Shell) -> None:
    (home.directory / "audit.jsonl").touch()
    ours, others, modules = imported(home, command("audit", "audit.jsonl"))
    assert {"cli.audit", "observe.audit_reader"} <= ours
    assert "cli.workspace" not in ours
    assert others == {"click"}
    assert not modules & (NEVER | {"subprocess"})


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("completion", "zsh")])
def test_who_asks_for_help_or_completion_waits_for_click_alone(
    home: Shell, arguments: tuple[str, ...]
) -> None:
    ours, others, modules = imported(home, command(*arguments))
    assert (
        ours
        == {
            "--help": START | {"cli.examples", "cli.groups", "cli.help_text", "cli.width"},
            "--version": START,
            "completion": (COMMAND - {"cli.hints"}) | {"cli.show"},
        }[arguments[0]]
    )
    assert others == {"click"}
    assert not modules & NEVER


def completed(shell: Shell, *words: str) -> tuple[set[str], list[str]]:
    """Modules of ours that are imported to complete the last word, and what is proposed."""
    asked = {"_PRESIGN_COMPLETE": "zsh_complete", "COMP_WORDS": " ".join(words)}
    asked["COMP_CWORD"] = str(len(words) - 1)
    modules, lines = ran(shell, f"import os; os.environ.update({asked!r}); {command()}")
    return ours_of(modules), lines[1::3]


def test_a_shell_completes_a_verb_without_importing_one(home: Shell) -> None:
    ours, words = completed(home, "presign", "re")
    assert words == ["revoke", "rekey"]
    assert ours == START


def test_a_shell_completes_a_connection_without_a_model_of_the_configuration(home: Shell) -> None:
    ours, words = completed(home, "presign", "sign", "con")
    assert words == ["conn_a"]
    assert "config.schema.config" not in ours


def test_the_help_of_each_verb_is_what_the_verb_says_of_itself() -> None:
    context = click.Context(main)
    for name, verb in VERBS.items():
        found = main.get_command(context, name)
        assert found is not None
        assert (found.name, found.get_short_help_str(1000)) == (name, verb.help)


def test_what_was_imported_is_not_searched_for_garbage_at_the_end(home: Shell) -> None:
    """Registered first, so it is told last: by then nothing is left to be searched."""
    tell = "import atexit, gc; atexit.register(lambda: print(len(gc.get_objects()), flush=True));"
    left = {}
    for name, what in {
        "python": "",
        "presign": "from presign_proxy.__main__ import main; sys.argv = ['presign', '--version']; main()",
    }.items():
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; {tell}{what}"],
            capture_output=True,
            text=True,
            cwd=home.directory,
            env=home.env,
        )
        left[name] = int(done.stdout.split()[-1])
    assert left["presign"] < 100 < left["python"]
