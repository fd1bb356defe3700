"""The readable rest of a YAML file with a mistake, so that its other mistakes are reported at once.

Nothing that is salvaged is ever used: the file is refused in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import yaml

from ..config_problems import Problem
from ..file_access import read_at_most
from .strict_yaml import REST, Document, parse_leniently, syntax_problem

_MOST_BYTES: Final = 256 * 1024
_MOST_BLOCKS: Final = 8
"""How many blocks are left out at most. Each costs a few parses of the file."""
_ANOTHER: Final = 3
_USELESS: Final = float("inf")
_BORROWED: Final = ("aliases ", "anchors, tags and merge keys ")
"""How the mistakes begin with which a mapping takes its keys from elsewhere in the file."""
_REQUIRED: Final = "is required"
"""A missing key may be in a block that was left out."""


def with_the_rest(
    path: Path, problems: list[Problem], judged: Callable[[Document], list[Problem]]
) -> list[Problem]:
    """Return the problems of a file that cannot be used, joined by those of its readable rest.

    Args:
        judged: returns the problems of a document.
    """
    try:
        raw, _ = read_at_most(path, _MOST_BYTES + 1)
    except OSError:
        return problems
    if len(raw) > _MOST_BYTES:
        return problems
    document, wrong = parse_leniently(raw, str(path))
    if document is not None:
        borrowed = any(one.message.startswith(_BORROWED) for one in wrong)
        return wrong + _others(wrong, judged(document), whole=not borrowed)
    if not any(REST in one.message for one in problems) or (salvaged := _salvaged(raw)) is None:
        return problems
    rest, left_out, errors = salvaged
    more = [syntax_problem(str(path), error, raw.decode("utf-8-sig")) for error in errors[1:]]
    told = [one._replace(message=one.message.replace(REST, "")) for one in (*problems, *more)]
    document, wrong = parse_leniently(rest.encode(), str(path))
    told += _others(told, wrong)
    found = judged(document) if document is not None else []
    emptied = _emptied(rest, left_out)
    return told + [one for one in _others(told, found) if one.line not in left_out | emptied]


def _emptied(rest: str, left_out: set[int]) -> set[int]:
    """Return the numbers of the lines whose value was left out, so that it seems to be missing."""
    found: set[int] = set()
    above, ends = 0, False
    for number, line in enumerate(rest.split("\n"), 1):
        if number in left_out and ends:
            found.add(above)
        if line.strip():
            above, ends = number, line.rstrip().endswith(":")
    return found


def _others(told: list[Problem], found: list[Problem], *, whole: bool = False) -> list[Problem]:
    """Return the problems that do not follow from those that were told.

    Args:
        whole: whether no key is missing because it was left out.
    """
    places = {(one.file, one.line, one.column) for one in told}
    paths = {one.path for one in told if one.path}
    return [
        one
        for one in found
        if (whole or one.message != _REQUIRED)
        and (one.file, one.line, one.column) not in places
        and not any(one.path == path or one.path.startswith(f"{path}.") for path in paths)
    ]


class _Salvaged(NamedTuple):
    """The text without what cannot be parsed, the numbers of the missing lines, and why they are missing."""

    text: str
    left_out: set[int]
    errors: list[yaml.MarkedYAMLError]


def _salvaged(raw: bytes) -> _Salvaged | None:
    """Return the readable rest of a text; None if there is none."""
    try:
        lines = raw.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        return None
    left_out: set[int] = set()
    errors: list[yaml.MarkedYAMLError] = []
    for _ in range(_MOST_BLOCKS):
        error = _syntax_error("\n".join(lines))
        if error is None:
            return _Salvaged("\n".join(lines), left_out, errors)
        errors.append(error)
        marks = [mark.line for mark in (error.problem_mark, error.context_mark) if mark is not None]
        blocks = [_block(lines, at) for at in {*marks, *(line - 1 for line in marks)} if 0 <= at < len(lines)]
        here = _line_of(error)
        costs = {tuple(block): _cost(lines, block, here) for block in blocks if block}
        best = min(costs, key=lambda block: costs[block], default=())
        if not best or costs[best] == _USELESS:
            break
        lines = _without(lines, best)
        left_out |= {at + 1 for at in best}
    return None


def _syntax_error(text: str) -> yaml.MarkedYAMLError | None:
    try:
        for _ in yaml.parse(text, Loader=yaml.CSafeLoader):
            pass
    except yaml.MarkedYAMLError as error:
        return error
    except yaml.YAMLError:
        return yaml.MarkedYAMLError()
    return None


def _cost(lines: list[str], block: Sequence[int], here: int) -> float:
    """Return how many lines are lost without a block; more if another error follows."""
    error = _syntax_error("\n".join(_without(lines, block)))
    if error is None:
        return len(block)
    return len(block) + _ANOTHER if _line_of(error) > here else _USELESS


def _line_of(error: yaml.MarkedYAMLError) -> int:
    return error.problem_mark.line if error.problem_mark is not None else -1


def _block(lines: list[str], at: int) -> list[int]:
    """Return a line and those that are indented below it, which would otherwise belong to another key."""
    if not lines[at].strip():
        return []
    indent = _indent(lines[at])
    block = [at]
    for below in range(at + 1, len(lines)):
        if lines[below].strip() and _indent(lines[below]) <= indent:
            break
        block.append(below)
    return block


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _without(lines: list[str], block: Sequence[int]) -> list[str]:
    gone = set(block)
    return ["" if at in gone else line for at, line in enumerate(lines)]
