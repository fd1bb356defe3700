"""A Dockerfile and a .dockerignore, as far as ours use the language: what is not known here is an error."""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

KNOWN = (
    *("ARG", "FROM", "LABEL", "ENV", "WORKDIR", "RUN", "COPY", "USER", "VOLUME", "EXPOSE"),
    *("STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
)


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word, its `--flags`, and the rest of it on one line."""

    word: str
    flags: dict[str, str]
    text: str

    @property
    def argv(self) -> list[str]:
        """The exec form. Raises ValueError for the shell form."""
        found = json.loads(self.text)
        if not (isinstance(found, list) and found and all(isinstance(one, str) for one in found)):
            raise ValueError(f"not the exec form: {self.text}")
        return found


@dataclass
class Stage:
    """What follows one FROM."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[Instruction]:
        return [one for one in self.instructions if one.word == word]

    def the(self, word: str) -> Instruction:
        """The only instruction of that word. Raises ValueError where there is none or another one."""
        (found,) = self.all(word)
        return found


def parse(text: str) -> list[Stage]:
    """The stages, with the defaults of ARG put in. Raises ValueError for what is not known here."""
    stages: list[Stage] = []
    arguments: dict[str, str] = {}
    for instruction in map(_instruction, _logical_lines(text)):
        if instruction.word == "ARG":
            name, _, default = instruction.text.partition("=")
            arguments[name] = default
        elif instruction.word == "FROM":
            base, *named = expand(instruction.text, arguments).split()
            if named and named[0].upper() != "AS":
                raise ValueError(f"FROM {instruction.text}")
            stages.append(Stage(base, named[1] if named else ""))
        else:
            stages[-1].instructions.append(instruction)
    return stages


def _logical_lines(text: str) -> Iterator[str]:
    """Without comments, with continued lines joined as Docker joins them."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = ""
    for line in lines:
        joined += line.rstrip()
        if joined.endswith("\\"):
            joined = joined[:-1]
            continue
        yield joined.strip()
        joined = ""
    if joined:
        raise ValueError(f"the last line is continued: {joined}")


def _instruction(line: str) -> Instruction:
    word, _, rest = line.partition(" ")
    if word not in KNOWN or "<<" in rest:
        raise ValueError(f"not known here: {line}")
    flags: dict[str, str] = {}
    rest = rest.strip()
    while found := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
        flags[found[1]] = found[2]
        rest = rest[found.end() :]
    if word == "HEALTHCHECK":
        form, _, rest = rest.partition(" ")
        if form != "CMD":
            raise ValueError(f"not known here: {line}")
    return Instruction(word, flags, rest.strip())


def pairs(text: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The values of ENV and LABEL: `NAME=value`, or `NAME="a value"`."""
    found = re.findall(r'([\w.]+)=(?:"([^"]*)"|(\S+))', text)
    return {name: expand(quoted or plain, variables) for name, quoted, plain in found}


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$NAME` and `${NAME}`; a name that has no value is an error. Raises KeyError."""
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda found: variables[found[1] or found[2]], text)


class Ignored:
    """A .dockerignore: the last pattern that matches a path, or a directory above it, decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        self._patterns = [line for line in lines if line and not line.startswith("#")]

    def __contains__(self, path: str) -> bool:
        ignored = False
        whole = PurePosixPath(path)
        places = [str(one) for one in (whole, *whole.parents) if str(one) != "."]
        for pattern in self._patterns:
            wanted = pattern.removeprefix("!")
            if any(_matches(place, wanted) for place in places):
                ignored = not pattern.startswith("!")
        return ignored

    def is_worth_a_look(self, directory: str) -> bool:
        """Whether anything in a directory may be sent."""
        inside = (pattern.startswith(f"!{directory}/") for pattern in self._patterns)
        return directory not in self or any(inside)


def _matches(path: str, pattern: str) -> bool:
    """`*` stays within one segment, a leading `**/` is any number of them."""
    if pattern.startswith("**/"):
        parts = path.split("/")
        return any(_matches("/".join(parts[at:]), pattern[3:]) for at in range(len(parts)))
    there, wanted = path.split("/"), pattern.split("/")
    return len(there) == len(wanted) and all(map(fnmatch.fnmatchcase, there, wanted))


def context(root: Path) -> Iterator[str]:
    """The files that a build in `root` is sent, relative to it."""
    ignored = Ignored((root / ".dockerignore").read_text("utf-8"))
    for directory, directories, files in os.walk(root):
        here = Path(directory).relative_to(root)
        directories[:] = [name for name in directories if ignored.is_worth_a_look((here / name).as_posix())]
        yield from (path for name in files if (path := (here / name).as_posix()) not in ignored)
