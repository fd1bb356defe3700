"""The list of mutants that no test kills says why, of each, and keeps saying it after code has moved."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.mutants import mutants, path_of, statements
from support.places import TESTS
from support.suites import CORE, SHELLS, suites
from support.survivors import FILE, reasons

SOURCE = """
def holds(text: str) -> bool:
    if "ps1_" in text:
        return False
    if "ps2_" in text:
        return False
    return True
"""


def names(source: str) -> list[str]:
    return [str(mutant) for mutant in mutants("tokens", source)]


def test_a_mutant_has_the_same_name_after_its_code_has_moved() -> None:
    moved = "import re\n\n\n# Moved.\ndef other() -> int:\n    return 1\n\n" + SOURCE
    assert [name for name in names(moved) if " other:" not in name] == names(SOURCE)


def test_two_mutants_that_read_alike_have_two_names() -> None:
    """A reason for one of them is none for the other."""
    found = names(SOURCE)
    assert len(set(found)) == len(found)
    first = "tokens holds: `return False` → `return True`"
    assert {first, f"{first} (2)"} <= set(found)


def test_the_text_of_details_is_not_changed() -> None:
    told = names("def f() -> None:\n    raise Malformed('one', 2)\n")
    assert not [name for name in told if "oneX" in name]
    assert not [name for name in names("One = Literal['one', 'two']\n") if "oneX" in name]


def test_a_mutant_of_every_line_that_decides() -> None:
    found = {line for mutant in mutants("core.policy") for line in mutant.lines}
    lines = path_of("core.policy").read_text("utf-8").splitlines()
    deciding = [n for n, line in enumerate(lines, 1) if line.strip().startswith(("if ", "elif ", "raise "))]
    assert len(deciding) > 10
    assert set(deciding) <= found


def test_an_entry_is_read_with_its_reason() -> None:
    text = "# Title\n\nWords.\n\n- a b: `c`\n- d e: `f`\n  Both are\n  equal.\n\n- g h: `i`\n\nMore.\n"
    assert reasons(text) == {"a b: `c`": "Both are equal.", "d e: `f`": "Both are equal.", "g h: `i`": ""}


def test_every_survivor_has_a_reason() -> None:
    assert [name for name, why in reasons(FILE.read_text("utf-8")).items() if len(why) < 10] == []


def test_every_reason_is_of_code_that_is_still_there() -> None:
    """Seventeen were of code that had been changed since: whatever lived there lived without a reason."""
    known = reasons(FILE.read_text("utf-8"))
    there = {one for module in {name.split(" ")[0] for name in known} for one in statements(module)}
    assert [name for name in known if name.partition(" → ")[0] not in there] == []


SHELL = """
async def write(path):
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    await sync(descriptor)
    sql.execute("BEGIN IMMEDIATE")
    logger.error("written")
    raise StoreError("cannot be written")
    return min(1, count)
"""


def test_a_shell_has_mutants_of_its_own() -> None:
    found = {str(one) for one in mutants("config.registry_file.storage", SHELL)}
    for after in (
        "`await sync(descriptor)` → `pass`",
        "→ `descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, 384)`",
        f"→ `descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, {0o666})`",
        "→ `sql.execute('BEGIN')`",
        "→ `return max(1, count)`",
    ):
        assert [one for one in found if one.endswith(after)], after
    assert not [one for one in found if "logger" in one or "writtenX" in one]
    assert not [one for one in found if one.endswith("os.O_WRONLY | os.O_NOFOLLOW, 384)`")], "changes nothing"


def test_every_module_of_a_table_and_all_of_its_tests_are_there() -> None:
    """A suite whose tests are gone would let every mutant live."""
    for suite in suites([*CORE, *SHELLS]):
        assert [module for module in suite.modules if not path_of(module).exists()] == []
        for argument in suite.tests:
            file, _, name = argument.partition("::")
            text = (TESTS.parent / file).read_text("utf-8")
            assert f"def {name.partition('[')[0]}(" in text if name else "def test_" in text, argument


def mutate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the tool from another directory, as one may."""
    command = [sys.executable, str(TESTS.parent / "tools" / "mutate"), *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.parametrize("asked", [["--help"], ["-h"], ["http.paths", "--help"]])
def test_who_asks_for_help_gets_it_and_no_run_that_takes_hours(asked: list[str]) -> None:
    run = mutate(*asked)
    assert run.returncode == 0
    assert "tools/mutate --only=fsync config.registry_file.storage" in run.stdout
    assert " tried " not in run.stdout


@pytest.mark.parametrize(("asked", "told"), [
    (["pathes"], "no such module: pathes"),
    (["http.paths", "mitm.lane.exchnge", "--list"], "no such module: mitm.lane.exchnge"),
    (["version"], "no suite for version: "),
    (["--lst", "http.paths"], "no such option: --lst"),
    (["--only", "http.paths"], "no such option: --only;"),
])  # fmt: skip
def test_a_word_that_the_tool_does_not_know_starts_no_run(asked: list[str], told: str) -> None:
    run = mutate(*asked)
    assert run.returncode == 2
    assert told in run.stdout
    assert " tried " not in run.stdout


@pytest.mark.slow
def test_a_mutant_is_really_put_in_place() -> None:
    """Each of them survived once: conftest.py had frozen all functions, so the tool found none to change."""
    command = [sys.executable, "tools/mutate", "--only=return self._found.get(key)", "mitm.lane.grant_cache"]
    run = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False, timeout=240)
    assert "1 of 1 killed" in run.stdout, run.stdout + run.stderr
    assert run.returncode == 0
