"""Completion of the ids of keys and of everything else, asked by the real shells."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.shell import MODULE, Shell

KEY = "sk-KEY-0123456789"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Two connections, one with two keys, and the command under its name."""
    shell = Shell(tmp_path_factory.mktemp("completion"))
    scripts = shell.directory.parent / "scripts"
    scripts.mkdir()
    (scripts / "presign").write_text(f'#!/bin/sh\nexec {" ".join(MODULE)} "$@"\n')
    (scripts / "presign").chmod(0o755)
    shell.env["PATH"] = f"{scripts}:{os.environ['PATH']}"
    own = ("--upstream", "http://127.0.0.1:9", "--auth", "bearer")
    for line in (
        ("init",),
        ("connections", "add", "conn_a", *own),
        ("connections", "rotate", "conn_a"),
        ("connections", "add", "other", *own),
    ):
        done = shell.presign(*line, stdin=KEY)
        assert done.code == 0, done.all
    return shell


CASES = {
    "presign sign conn_a v1/a --key k": ["k1", "k2"],
    "presign sign other v1/a --key ": ["k1"],
    "presign connections rotate conn_a --drop k": ["k1", "k2"],
    "presign revoke --key conn_a/": ["conn_a/k1", "conn_a/k2"],
    "presign revoke --key o": ["other/k1"],
    "presign audit --key other/": ["other/k1"],
    "presign connections edit co": ["conn_a"],
    "presign connections edi": ["edit"],
    "presign sign conn_a --as he": ["headers"],
    "presign connections set conn_a allow.m": ["allow.methods="],
    "presign connections set conn_a --unset allow.p": ["allow.paths"],
    "presign connections set conn_a --timeouts-r": ["--timeouts-response"],
    "presign connections add --no-allow-e": ["--no-allow-encoded-slash"],
    "presign completion f": ["fish"],
}


def asked(home: Shell, words: list[str], kind: str) -> list[str]:
    env = {"_PRESIGN_COMPLETE": f"{kind}_complete", "COMP_WORDS": " ".join(words)}
    env["COMP_CWORD"] = str(len(words) - 1)
    done = home.presign(**env)
    return [line.split(",", 1)[1] for line in done.out.splitlines()]


@pytest.mark.parametrize("line", CASES)
def test_the_command_proposes_what_exists(line: str, home: Shell) -> None:
    assert sorted(asked(home, line.split(" "), "bash")) == CASES[line]


def test_a_program_and_files_are_proposed_behind_the_two_hyphens_of_run(home: Shell) -> None:
    (home.directory / "bin").mkdir(exist_ok=True)
    for name in ("zq-agent", "zq-agent2", "zq-notes"):
        (home.directory / "bin" / name).write_text("#!/bin/sh\n")
        (home.directory / "bin" / name).chmod(0o644 if name == "zq-notes" else 0o755)
    home.env["PATH"] = f"{home.directory}/bin:{home.env['PATH']}"
    before = ["presign", "run", "conn_a", "--"]
    assert asked(home, [*before, "zq-"], "bash") == ["zq-agent", "zq-agent2"]
    for words in (["./zq"], ["zq-agent", "no"], ["zq-agent", "--config"], ["zq-agent", ""]):
        env = {"_PRESIGN_COMPLETE": "bash_complete", "COMP_WORDS": " ".join([*before, *words])}
        done = home.presign(**env, COMP_CWORD=str(len(before) + len(words) - 1))
        assert done.out == f"file,{words[-1]}\n"  # bash completes files by itself then
    assert asked(home, ["presign", "run", "co"], "bash") == ["conn_a"]


def run(home: Shell, argv: list[str], script: str) -> list[str]:
    done = subprocess.run(
        [*argv, script], cwd=home.directory, env=home.env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return sorted(line.split("\t")[0].strip() for line in done.stdout.splitlines() if line.strip())


@pytest.mark.needs("bash")
@pytest.mark.parametrize("line", list(CASES)[:6])
def test_bash_completes_the_ids_of_keys(line: str, home: Shell) -> None:
    words = line.split(" ")
    script = f"""
        eval "$(presign completion bash)"
        COMP_WORDS=({" ".join(word or "''" for word in words)}) COMP_CWORD={len(words) - 1}
        _presign_completion presign; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert run(home, ["bash", "-c"], script) == CASES[line]


@pytest.mark.needs("fish")
@pytest.mark.parametrize("line", list(CASES)[:6])
def test_fish_completes_the_ids_of_keys(line: str, home: Shell) -> None:
    script = f"presign completion fish | source; complete -C '{line}'"
    assert run(home, ["fish", "--no-config", "-c"], script) == CASES[line]


@pytest.mark.needs("zsh")
@pytest.mark.parametrize("line", list(CASES)[:6])
def test_zsh_completes_the_ids_of_keys(line: str, home: Shell, tmp_path: Path) -> None:
    words = line.split(" ")
    (tmp_path / "script").write_text(
        f"""
        compdef() {{ :; }}
        # What the function would hand to the shell's editor is printed instead.
        compadd() {{ print -rl -- ${{(P)@[-1]}} }}
        _describe() {{ print -rl -- ${{(P)3}} }}
        eval "$(presign completion zsh)"
        words=({" ".join(word or "''" for word in words)}) CURRENT={len(words)}
        _presign_completion
        """
    )
    assert run(home, ["zsh", "-f"], str(tmp_path / "script")) == CASES[line]
