"""A `.env` file: NAME=VALUE lines, as shells and dotenv libraries read them. Nothing in it is expanded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from .place import Failure

_MOST: Final = 1 << 20
_LINE: Final = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]{0,127})[ \t]*=[ \t]*", re.ASCII)
_BLANK: Final = re.compile(r"[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)")
_QUOTED: Final = re.compile(
    r"""(?:'(?P<plain>[^']*)'|"(?P<quoted>(?:[^"\\]|\\.)*)")[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)""", re.DOTALL
)
_BARE: Final = re.compile(r"(?P<bare>(?!['\"])[^\n]*)(?:\n|\Z)")
_REMARK: Final = re.compile(r"(?:^|[ \t])#")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


class Variable(NamedTuple):
    """One variable. `refers` means that a shell would put another variable or a program's output into it."""

    value: str
    refers: bool


def variables_of(path: Path) -> dict[str, Variable]:
    """Read a file. Of a name that is given twice, the last counts. Raises Failure, which holds no value."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST + 1)
    except OSError as error:
        raise Failure(f"{str(path)[:200]}: {(error.strerror or 'failed').lower()}") from None
    if len(raw) > _MOST:
        raise Failure(f"{path} is larger than {_MOST} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Failure(f"{path} is not UTF-8") from None
    found: dict[str, Variable] = {}
    at = 0
    while at < len(text):
        if blank := _BLANK.match(text, at):
            at = blank.end()
            continue
        name = _LINE.match(text, at)
        value = _QUOTED.match(text, name.end()) or _BARE.match(text, name.end()) if name else None
        if name is None or value is None:
            line = text.count("\n", 0, at) + 1
            raise Failure(f"{path}:{line}: is not NAME=VALUE, or a quote is not closed")
        found[name[1]] = _variable(value)
        at = value.end()
    return found


def _variable(match: re.Match[str]) -> Variable:
    if match.re is _BARE:
        bare = _REMARK.split(match["bare"], maxsplit=1)[0].strip(" \t\r")
        return Variable(bare, _refers(bare))
    if match["plain"] is not None:
        return Variable(match["plain"], refers=False)
    unescaped = _ESCAPED.sub(lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), match["quoted"])
    return Variable(unescaped, _refers(_ESCAPED.sub("", match["quoted"])))


def _refers(text: str) -> bool:
    return "${" in text or "$(" in text or "`" in text
