"""`presign connections edit`: an editor on a connection, which never sees a secret."""

from __future__ import annotations

import json
import signal
import stat
from pathlib import Path

import pytest

from support.shell import MODULE, Done, Shell

KEY = "sk-KEY-0123456789"
SECRET = "sk_imported_0123456789abcdef0123456789abcdef"
API = ("--upstream", "http://127.0.0.1:9", "--auth", "bearer")


@pytest.fixture
def home(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path, XDG_RUNTIME_DIR="")
    assert shell.presign("init").code == 0
    given = f"{KEY}\n{SECRET}\n"
    assert shell.presign("connections", "add", "conn_a", *API, "--import-secret", stdin=given).code == 0
    return shell


def editor(shell: Shell, script: str) -> str:
    """A program that edits as the Python script says: it has the file's `path` and `text`, and `times`."""
    file = shell.directory.parent / "editor"
    seen = shell.directory.parent / "seen"
    file.write_text(
        f"""#!/usr/bin/env python3
import os, pathlib, stat, sys
path = pathlib.Path(sys.argv[1])
text = path.read_text()
seen = pathlib.Path({str(seen)!r})
times = len(list(seen.parent.glob("seen*")))
mode = f"{{stat.S_IMODE(path.stat().st_mode):o}} {{stat.S_IMODE(path.parent.stat().st_mode):o}}"
seen.with_name(f"seen{{times}}").write_text(f"{{path}} {{mode}}\\n{{text}}")
{script}
"""
    )
    file.chmod(0o755)
    return str(file)


def edit(shell: Shell, script: str, *options: str, **env: str) -> Done:
    return shell.presign("connections", "edit", "conn_a", *options, EDITOR=editor(shell, script), **env)


def seen(shell: Shell, number: int = 0) -> str:
    return (shell.directory.parent / f"seen{number}").read_text()


def shown(shell: Shell) -> dict:
    return json.loads(shell.presign("connections", "show", "conn_a", "--json").out)


def test_what_is_changed_in_the_editor_is_written_and_its_secrets_stay(home: Shell) -> None:
    signed = home.presign("sign", "conn_a", "v1/a").out.strip()
    done = edit(home, "path.write_text(text + 'max_lifetime: 7d\\n')", "--yes")
    assert done.code == 0, done.all
    assert "+ max_lifetime: 7d" in done.out
    assert shown(home)["entry"]["max_lifetime"] == "7d"
    assert home.presign("verify", signed).code == 0
    home.presign("decrypt", "--out", "plain.json")
    plain = json.loads((home.directory / "plain.json").read_text())["connections"]["conn_a"]
    assert (plain["auth"]["token"], plain["signing_keys"][0]["secret"]) == (KEY, SECRET)


def test_no_secret_is_on_the_disk_and_the_file_is_private_and_gone(home: Shell) -> None:
    edit(home, "")
    head, _, text = seen(home).partition("\n")
    path, mode, directory = head.split()
    assert (mode, directory) == ("600", "700")
    assert "token: '********'" in text
    assert KEY not in text
    assert SECRET not in text
    assert not Path(path).parent.exists()


def test_an_unchanged_text_writes_nothing_and_asks_nothing(home: Shell) -> None:
    registry = home.directory / "connections.enc"
    before = registry.read_bytes()
    for script in ("", "path.write_text(text.replace('# conn_a', '# my conn_a'))"):
        done = edit(home, script)
        assert (done.code, done.err) == (0, ""), done.all
        assert "nothing was changed" in done.out
    assert json.loads(edit(home, "", "--json").out) == {"id": "conn_a", "changed": {}}
    assert registry.read_bytes() == before


@pytest.mark.parametrize(("script", "said"), [
    ("path.write_text(text.replace('upstream', 'upstraem'))", "did you mean upstream?"),
    ("path.write_text(text + 'max_lifetime: soon\\n')", "max_lifetime: has to be a duration"),
    ("path.write_text(text + 'a: [\\n')", "is not valid YAML"),
    ("path.write_text(text.replace(\"'********'\", 'sk-TYPED-0123456789', 1))", "leave the stars"),
    ("path.write_text('')", "has to be a mapping"),
    ("path.write_text(text.replace('********', '********x'))", "leave the stars"),
    ("path.write_bytes(b'\\xff')", "not UTF-8"),
    ("path.unlink()", "removed the file"),
    ("sys.exit(3)", "ended with code 3"),
])  # fmt: skip
def test_an_error_is_told_and_nothing_is_written(script: str, said: str, home: Shell) -> None:
    before = (home.directory / "connections.enc").read_bytes()
    done = edit(home, script, "--yes")
    assert done.code == 1, done.all
    assert said in done.err
    assert "TYPED" not in done.all
    assert (home.directory / "connections.enc").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_terminal_that_is_closed_meanwhile_leaves_no_file(number: int, home: Shell) -> None:
    done = edit(home, f"import time; os.kill(os.getppid(), {int(number)}); time.sleep(20)")
    assert done.code in (128 + number, -number)
    path = Path(seen(home).split(" ")[0])
    assert path.name == "conn_a.yaml"
    assert not path.parent.exists()


def test_a_device_in_the_place_of_the_file_is_not_read_to_its_end(home: Shell) -> None:
    done = edit(home, "path.unlink(); path.symlink_to('/dev/zero')")
    assert (done.code, "larger than" in done.err) == (1, True)


def test_an_editor_that_does_not_exist_is_named(home: Shell) -> None:
    done = home.presign("connections", "edit", "conn_a", EDITOR="/nowhere/editor")
    assert (done.code, "name an editor in EDITOR" in done.err) == (1, True)


def test_visual_wins_and_may_have_options(home: Shell) -> None:
    own = editor(home, "path.write_text(text + 'max_uses: 5\\n')").replace("editor", "editor")
    done = home.presign("connections", "edit", "conn_a", "--yes", VISUAL=f"env A=1 {own}", EDITOR="false")
    assert done.code == 0, done.all
    assert shown(home)["entry"]["max_uses"] == 5


def test_on_a_terminal_the_editor_opens_again_with_the_error_and_its_line(home: Shell) -> None:
    script = "path.write_text(text + 'max_uses: many\\n' if times == 0 else text.replace('many', '7'))"
    argv = [*MODULE, "connections", "edit", "conn_a"]
    done = home.terminal(argv, ["y"], EDITOR=editor(home, script))
    assert done.code == 0, done.all
    again = seen(home, 1).split("\n", 1)[1]
    first = again.splitlines()[0]
    assert first.startswith("# error  conn_a.yaml:")
    line = int(first.split(":")[1])
    assert again.splitlines()[line - 1] == "max_uses: many"
    assert shown(home)["entry"]["max_uses"] == 7


def test_who_closes_the_editor_again_without_a_correction_gives_up(home: Shell) -> None:
    script = "path.write_text(text + 'max_uses: many\\n') if times == 0 else None"
    done = home.terminal([*MODULE, "connections", "edit", "conn_a"], [], EDITOR=editor(home, script))
    assert done.code == 1, done.all
    assert "max_uses: has to be a whole number" in done.all
    assert "max_uses" not in shown(home)["entry"]


def test_a_change_needs_an_answer_without_a_terminal(home: Shell) -> None:
    done = edit(home, "path.write_text(text + 'max_uses: 5\\n')")
    assert (done.code, "Confirm with --yes" in done.err) == (1, True)
    assert "max_uses" not in shown(home)["entry"]


def test_a_reference_to_a_program_keeps_its_arguments(home: Shell) -> None:
    line = ("connections", "add", "conn_x", *API, "--credential-exec", "printf sk-KEY-%s 0123456789")
    assert home.presign(*line).code == 0
    own = editor(home, "path.write_text(text + 'max_uses: 5\\n')")
    done = home.presign("connections", "edit", "conn_x", "--yes", EDITOR=own)
    assert done.code == 0, done.all
    home.presign("decrypt", "--out", "plain.json")
    plain = json.loads((home.directory / "plain.json").read_text())["connections"]["conn_x"]
    assert plain["auth"]["token"] == {"exec": ["printf", "sk-KEY-%s", "0123456789"]}
    assert stat.S_IMODE((home.directory / "plain.json").stat().st_mode) == 0o600


def test_a_connection_of_the_configuration_is_not_edited(home: Shell) -> None:
    path = home.directory / "config.yaml"
    entry = (
        "connections:\n  conn_c:\n    upstream: https://c.test\n    auth: {type: bearer, token: {env: T}}\n"
    )
    path.write_text(entry + path.read_text())
    done = home.presign("connections", "edit", "conn_c", EDITOR="true")
    assert (done.code, "change it there" in done.err) == (1, True)
