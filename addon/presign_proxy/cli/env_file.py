"""A file of keys: `.env` lines as shells and dotenv libraries read them, JSON, YAML. Nothing is expanded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from . import prompts
from .place import Failure

STANDARD_INPUT: Final = Path("-")
_MAPPINGS: Final = (".json", ".yaml", ".yml")
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
    """Read a file, or standard input for `-`: .env, JSON or YAML. Raises Failure, which holds no value.

    Of a name that is given twice in a .env file, the last counts.
    """
    text = _text_of(path)
    shown = Path("standard input") if path == STANDARD_INPUT else path
    if path.suffix.lower() in _MAPPINGS or (path == STANDARD_INPUT and text.lstrip().startswith("{")):
        return _of_mapping(text, shown)
    return _of_lines(text, shown)


def _text_of(path: Path) -> str:
    if path == STANDARD_INPUT:
        raw = prompts.everything(_MOST)
    else:
        try:
            with path.open("rb") as file:
                raw = file.read(_MOST + 1)
        except OSError as error:
            raise Failure(f"{str(path)[:200]}: {(error.strerror or 'failed').lower()}") from None
    if len(raw) > _MOST:
        raise Failure(f"{path} is larger than {_MOST} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Failure(f"{path} is not UTF-8") from None


def _of_mapping(text: str, path: Path) -> dict[str, Variable]:
    """Return the members of a mapping; one level of mappings in it only groups them. Raises Failure."""
    data = _parsed(text, path)
    found: dict[str, Variable] = {}
    for name, value in _members(data if isinstance(data, dict) else {}):
        if not isinstance(value, str):
            raise Failure(f"{path}: has to be a mapping of names to keys, each a text in quotes")
        if name in found:
            raise Failure(f"{path}: a name is given twice")
        found[name] = Variable(value, refers="${" in value)
    if not found:
        raise Failure(f"{path}: has to be a mapping of names to keys, as in {{OPENAI_API_KEY: sk-…}}")
    return found


def _members(data: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from value.items()
        else:
            yield name, value


def _parsed(text: str, path: Path) -> Any:
    from ..config.registry_file.edit import from_json
    from ..config.strict_yaml import parse

    if path.suffix.lower() == ".json" or text.lstrip().startswith("{"):
        return from_json(text.encode(), path)
    return parse(text.encode(), str(path)).data


def _of_lines(text: str, path: Path) -> dict[str, Variable]:
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
