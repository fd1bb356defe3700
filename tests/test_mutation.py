"""The list of mutants that no test kills says why, of each, and keeps saying it after code has moved."""

from __future__ import annotations

from support.mutants import mutants, path_of
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
    found = {line for mutant in mutants("policy") for line in mutant.lines}
    lines = path_of("policy").read_text("utf-8").splitlines()
    deciding = [n for n, line in enumerate(lines, 1) if line.strip().startswith(("if ", "elif ", "raise "))]
    assert len(deciding) > 10
    assert set(deciding) <= found


def test_an_entry_is_read_with_its_reason() -> None:
    text = "# Title\n\nWords.\n\n- a b: `c`\n- d e: `f`\n  Both are\n  equal.\n\n- g h: `i`\n\nMore.\n"
    assert reasons(text) == {"a b: `c`": "Both are equal.", "d e: `f`": "Both are equal.", "g h: `i`": ""}


def test_every_survivor_has_a_reason() -> None:
    assert [name for name, why in reasons(FILE.read_text("utf-8")).items() if len(why) < 10] == []
