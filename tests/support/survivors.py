"""The mutants that no test kills, each with the reason: `data/mutation_survivors.md`.

An entry is a list item, `- ` and the mutant as `tools/mutate` prints it, with its reason indented below. One
reason may stand below several.
"""

from __future__ import annotations

from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "data" / "mutation_survivors.md"


def reasons(text: str) -> dict[str, str]:
    """The reason of each mutant, by its name; empty where none is given."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.splitlines():
        if line.startswith("- "):
            if names and found[names[-1]]:
                names = []
            names.append(line.removeprefix("- ").strip())
            found[names[-1]] = ""
        elif line.startswith("  ") and line.strip():
            for name in names:
                found[name] = f"{found[name]} {line.strip()}".strip()
        elif line.strip():
            names = []
    return found
