"""Transcripts: what is typed, what is to be seen, and with which code it ends; run by a real shell.

    # a remark
    $ presign connections show conn_api     a line for bash
    < sk-some-key                           a line of its standard input
    > sk-some-key                           or, on a terminal, what is typed at its next question
    conn_api  (enabled, in <any>)           what it prints, errors among it
    …                                       any lines
    exit 1                                  how it ends, where that is not 0

`<secret>` stands for whatever has that form. From then on it stands for that very text, and `$secret` has it
in the lines for bash; another one of the same form is `<secret2>`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.programs import needs
from support.shell import Done, Shell

FORMS = {
    "any": r"[^\n]*",
    "directory": r"/\S+",
    "expiry": r"[0-9]{10}",
    "id": r"[0-9a-f]{32}",
    "key": r"[A-Za-z0-9_-]{43}",
    "kid": r"[A-Za-z0-9_-]{43}",
    "secret": r"sk_[A-Za-z0-9_-]{43}",
    "signature": r"[0-9a-f]{64}",
    "time": r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-9:]{8}(?:Z|\+00:00)",
    "token": r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)?",
    "url": r"https?://[^\s'\"]+",
}
_PLACEHOLDER = re.compile(r"<([a-z]+)([0-9]*)>")
_ANY_LINES = r"(?:[^\n]*\n)*?"


@dataclass
class Step:
    """One command of a story."""

    line: int
    command: str
    stdin: list[str] = field(default_factory=list)
    typed: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    code: int = 0


def steps(text: str) -> Iterator[Step]:
    """The commands of a transcript, in order."""
    step: Step | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("$ "):
            if step:
                yield step
            step = Step(number, line[2:])
        elif step is None:
            if line and not line.startswith("#"):
                raise ValueError(f"line {number} stands before the first command")
        elif line.startswith("< "):
            step.stdin.append(line[2:])
        elif line.startswith("> "):
            step.typed.append(line[2:])
        elif line.startswith("exit "):
            step.code = int(line[5:])
        elif not line.startswith("#"):
            step.output.append(line)
    if step:
        yield step


def play(path: Path, shell: Shell, known: Mapping[str, str]) -> None:
    """Run a transcript. Raises AssertionError at the first command that does something else.

    Args:
        known: placeholders whose text is known before; they are variables of the shell, too.
    """
    bound = dict(known)
    for step in steps(path.read_text("utf-8")):
        bound = check(step, _run(step, shell, bound), bound, path.name)


def check(step: Step, done: Done, bound: Mapping[str, str], name: str) -> dict[str, str]:
    """What the placeholders stand for after a command. Raises AssertionError where it did something else."""
    where = f"{name}:{step.line}: $ {step.command}"
    assert done.code == step.code, f"{where}\nexit {done.code}:\n{done.out}"
    found = re.fullmatch(_pattern(step.output, bound), done.out.rstrip("\n") + "\n")
    assert found, f"{where}\nprinted\n{done.out}\nand not\n" + "\n".join(step.output)
    new = {name: text for name, text in found.groupdict().items() if not name.startswith("any")}
    return {**bound, **new}


def _run(step: Step, shell: Shell, bound: Mapping[str, str]) -> Done:
    if step.typed:
        needs("bash")
        return shell.terminal(["bash", "-c", step.command], step.typed, NO_COLOR="1", **bound)
    return shell.bash(step.command, "".join(f"{line}\n" for line in step.stdin), **bound)


def _pattern(lines: list[str], bound: Mapping[str, str]) -> str:
    """Of blank lines, those between lines count."""
    here: set[str] = set()
    text = "\n".join(lines).strip("\n")
    return "".join(
        _ANY_LINES if line == "…" else _line(line, bound, here) + r"\n" for line in text.split("\n")
    )


def _line(line: str, bound: Mapping[str, str], here: set[str]) -> str:
    found, at = "", 0
    for match in _PLACEHOLDER.finditer(line):
        form, name = match[1], match[1] + match[2]
        found += re.escape(line[at : match.start()])
        at = match.end()
        if form not in FORMS and name not in bound:
            found += re.escape(match[0])
        elif form == "any":
            found += FORMS[form]
        elif name in bound:
            found += re.escape(bound[name])
        elif name in here:
            found += f"(?P={name})"
        else:
            here.add(name)
            found += f"(?P<{name}>{FORMS[form]})"
    return found + re.escape(line[at:])
