"""A machine that has Python and little else runs all tests but those that it cannot, and says which."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.longest_first import LONGEST_FIRST
from support.places import ROOT, TESTS
from support.programs import ALL, PROGRAMS, closing_lines, only

FILES = sorted(path for path in TESTS.rglob("*.py") if not path.is_relative_to(TESTS / "data"))
TABLE = TESTS / "support" / "programs.py"
# What no package would bring: the system, its network, or the version of a program that is there.
OTHER_REASONS = {
    "support/machine.py": 2,
    "attacks/test_plain_http.py": 1,
    "config/test_upstream_tls.py": 1,
    "config/test_load.py": 2,
    "repository/test_container_runs.py": 2,
    "attacks/test_differential.py": 1,
    "serve/test_first_process.py": 1,
    "config/test_mounted_files.py": 1,
    "clients/test_node.py": 1,
    "config/test_secret_sources.py": 2,
    "cli/test_error_sentences.py": 1,
    "limits/stores/test_store.py": 1,
    "config/registry_file/test_storage.py": 1,
    "repository/test_systemd.py": 1,
    "cli/test_umask.py": 3,
    "support/thirdparty.py": 1,
}


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment in which only `sh` and `env` are found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", ALL))}
    return kept | {"PATH": str(only(tmp_path / "bin", "sh", "env"))}


def name_of(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


def python(bare: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, *arguments]
    return subprocess.run(argv, cwd=ROOT, env=bare, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_machine_without_any_program_skips_by_name_and_says_how_to_get_them(bare: dict[str, str]) -> None:
    """With two processes, as `make test` runs them."""
    files = (
        "serve/test_two_gateways",
        "clients/test_node",
        "docs/test_signing_recipes",
        "docs/test_transcripts",
    )
    asked = [f"tests/{name}.py" for name in files] + ["tests/clients/test_github.py::test_git_clones"]
    done = python(bare, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " error" not in done.stdout
    assert re.search(r"\d+ passed, \d+ skipped", done.stdout)
    last = done.stdout.partition("because this machine lacks:\n")[2].splitlines()
    named = {line.partition(" (")[0].strip() for line in last if line.startswith("  ")}
    assert named >= {"bash", "git", "go", "haproxy", "node", "openssl", "php", "redis-server", "ruby"}
    assert last[len(named)].startswith("On Debian or Ubuntu: make setup-all, or apt-get install bash git ")
    assert "go: not in make setup-all: 464 MB" in last


@pytest.mark.slow
def test_where_all_programs_are_to_be_there_a_test_that_lacks_one_fails(bare: dict[str, str]) -> None:
    """As in CI: a server that could not be installed took whole suites along, and the run was green."""
    asked = ["-m", "pytest", "-p", "no:cacheprovider", "tests/docs/test_signing_recipes.py"]
    done = python(bare | {ALL: "1"}, *asked)
    assert done.returncode == 1
    assert re.search(r"missing here: .*openssl", done.stdout)
    assert python(bare, *asked).returncode == 0


def test_each_package_to_install_is_printed_once(bare: dict[str, str]) -> None:
    """Also by a Python that has no package at all."""
    printed = python(bare, "-I", "-S", str(TABLE)).stdout.split()
    assert printed == sorted({one.package for one in PROGRAMS.values() if one.in_all} - {""})
    assert "redis-server" in printed
    assert "golang-go" not in printed


def test_a_run_that_skipped_nothing_for_want_of_a_program_says_nothing() -> None:
    assert closing_lines([]) == []
    assert closing_lines(["Skipped: no IPv6 here"]) == []


def test_the_last_lines_count_each_test_once_and_name_all_that_it_lacked() -> None:
    first, *more, ways, advice = closing_lines(
        ["Skipped: missing here: curl, node packages", "Skipped: missing here: curl", "Skipped: no IPv6 here"]
    )
    assert first == "2 tests were skipped, because this machine lacks:"
    assert [line.partition(":")[0] for line in more] == ["  curl (2)", "  node packages (1)"]
    assert ways == "On Debian or Ubuntu: make setup-all, or apt-get install curl"
    assert advice.startswith("node packages: make setup-all")


def test_what_setup_leaves_out_is_not_promised_by_it() -> None:
    assert "On Debian or Ubuntu: apt-get install golang-go" in closing_lines(["missing here: go"])


def test_the_files_that_are_begun_first_are_there() -> None:
    assert set(LONGEST_FIRST) <= {name_of(path) for path in FILES}


# -- the table is the only way -------------------------------------------------------------------------


def calls(path: Path) -> list[str]:
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]


def test_no_test_looks_for_a_program_by_itself() -> None:
    looking = {path.name for path in FILES if "shutil.which" in calls(path)}
    # What only root on Linux can do is told by that file; `make container` alone needs it.
    assert looking == {"programs.py", "namespaces.py"}


def test_nothing_else_skips_a_test_but_for_the_reasons_that_are_known() -> None:
    ways = re.compile(r"\bpytest\.(?:mark\.skip|skip|importorskip)")
    mine = (TABLE, Path(__file__))
    found = {name_of(path): len(ways.findall(path.read_text("utf-8"))) for path in FILES if path not in mine}
    assert {name: count for name, count in found.items() if count} == OTHER_REASONS


def test_a_file_that_runs_a_program_of_the_table_asks_for_it() -> None:
    assert {path.name: started(path) - asked(path) for path in FILES if started(path) - asked(path)} == {}


def started(path: Path) -> set[str]:
    """Programs that begin a list, as a command line does."""
    lists = [node.elts for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.List)]
    return {items[0].value for items in lists if items and isinstance(items[0], ast.Constant)} & set(PROGRAMS)


def asked(path: Path) -> set[str]:
    return set(re.findall(r'"(.*?)"', " ".join(re.findall(r"\bneeds\([^)]*\)", path.read_text("utf-8")))))
