"""Strict YAML: each document has one meaning, and every value has its line and column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from ..config_problems import ConfigError, Location, Problem
from ..file_access import read_at_most
from ..regexes import late

if TYPE_CHECKING:
    from .whole_file import Form

Value = None | bool | int | str | list[Any] | dict[str, Any]

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 32

_INT = late(r"-?(?:0|[1-9][0-9]{0,17})")
# YAML 1.1 reads these as booleans, YAML 1.2 reads them as text: what the author meant is unknown.
_AMBIGUOUS: Final = frozenset(("yes", "no", "on", "off", "y", "n"))
_WORDS: Final[dict[str | int, str]] = {
    "unsigned": "pass or deny",
    "cookies": "strip or pass",
    "redirects": "safe or pass",
    "cache": "private or pass",
    "on_client_credentials": "replace or reject",
}
"""Keys that take these words, but where people often write no or off."""
_QUOTED = late(r"'([^']*)'|\"[^\"]*\"")
_SIGN = late(r"[^\w\s]{1,3}")
"""Punctuation of YAML such as `,` and `}`. It reveals nothing about a value."""
_VARIABLE: Final = late(r"(?:export )?[A-Za-z_][A-Za-z0-9_]*=")
_TAB: Final = late(r" *\t")
_VARIABLES: Final = (
    "is a list of NAME=VALUE lines, and no configuration: is the path right? `presign connections import` "
    "reads API keys from such a file"
)
_NO_START: Final = "did not find expected <document start>"
"""The parser's message for text behind a document."""
_BELOW: Final = "this is below the end mark `...`: move it above that line"
_BEHIND: Final = "is not valid YAML: nothing may follow the value above it"
REST: Final = "; the text after it was not checked"


class Document:
    """A parsed document: its data, and the position (line and column, from 1) of each value and key."""

    __slots__ = ("data", "file", "marks", "raw")

    def __init__(
        self,
        file: str,
        data: Value = None,
        marks: dict[Location, tuple[int, int]] | None = None,
        raw: bytes = b"",
    ) -> None:
        """Args: raw: the bytes that were parsed, for their digest and to see how they end."""
        self.file = file
        self.data = data
        self.marks = {} if marks is None else marks
        self.raw = raw

    @property
    def form(self) -> Form:
        from .whole_file import form_of  # here, because only a configuration that is loaded needs it

        return form_of(self.raw, self.data)

    def problem(self, location: Location, message: str) -> Problem:
        """Return a problem at a location, or at the nearest enclosing location that is in the file."""
        at = location
        while at and at not in self.marks:
            at = at[:-1]
        # Without marks, the data did not come from a file with lines that people see.
        line, column = self.marks.get(at, (1, 1) if self.marks else (0, 0))
        return Problem(self.file, line, column, ".".join(map(str, location)), message)


def read(path: Path) -> Document:
    """Read and parse a YAML file. Raises ConfigError."""
    try:
        raw, _ = read_at_most(path, MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ConfigError([Problem(str(path), 0, 0, "", f"{reason}; is the path right?")]) from None
    if len(raw) > MAX_BYTES:
        raise ConfigError([Problem(str(path), 0, 0, "", f"is larger than {MAX_BYTES} bytes")])
    return parse(raw, str(path))


def parse(raw: bytes, file: str) -> Document:
    """Parse one strict YAML document. Raises ConfigError with all mistakes of this level."""
    document, problems = parse_leniently(raw, file)
    if problems or document is None:
        raise ConfigError(problems)
    document.raw = raw
    return document


def parse_leniently(raw: bytes, file: str) -> tuple[Document | None, list[Problem]]:
    """Return the mistakes of this level, and the document if it was understood to its end.

    A document with mistakes may be searched for others, and is never used.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return None, [Problem(file, line, 1, "", "is not UTF-8")]
    if line := _of_variables(text):
        return None, [Problem(file, line, 1, "", _VARIABLES)]
    builder = _Builder(file)
    try:
        builder.build(text)
    except yaml.MarkedYAMLError as error:
        problem = syntax_problem(file, error, text)
        if error.problem == _NO_START and builder.document.marks:
            below = _ends_above(text, problem.line)
            problem = problem._replace(message=_BELOW if below else _BEHIND)
        return None, [*builder.problems, problem]
    except _NotOurs as error:
        return None, [*builder.problems, Problem(file, *error.position, "", f"is not accepted: {error.why}")]
    except yaml.YAMLError:
        problem = Problem(file, 1, 1, "", "is not valid YAML: a character that is not allowed")
        return None, [*builder.problems, problem]
    return builder.document, builder.problems


def _of_variables(text: str) -> int:
    """Return the number of the first line, without comments, if it is NAME=VALUE as in a .env file; or 0."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            return number if _VARIABLE.match(line) else 0
    return 0


def _ends_above(text: str, line: int) -> bool:
    """Return whether an end mark is above a line."""
    return any(f"{one} ".startswith(("... ", "...\t")) for one in text.split("\n")[: line - 1])


def syntax_problem(file: str, error: yaml.MarkedYAMLError, text: str) -> Problem:
    """Return an error of the parser. PyYAML's own text would print the wrong line, and a secret with it."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    why = _QUOTED.sub(_sign_or_nothing, error.problem or "it cannot be parsed") + _begun(error)
    if _TAB.match("".join(text.split("\n")[line - 1 : line])):
        why = "a tab indents this line: use blanks"
    return Problem(file, line, column, "", f"is not valid YAML: {why}{REST}")


def _sign_or_nothing(quoted: re.Match[str]) -> str:
    return quoted[0] if quoted[1] and _SIGN.fullmatch(quoted[1]) else "…"


def _begun(error: yaml.MarkedYAMLError) -> str:
    """Return where the incomplete part begins: the missing bracket or quote is seldom where parsing fails."""
    begun, missed = error.context_mark, error.problem_mark
    if begun is None or missed is None or begun.line == missed.line:
        return ""
    return f", in the part that begins at {begun.line + 1}:{begun.column + 1}"


class _NotOurs(Exception):
    """Raised for valid YAML that no configuration needs; parsing stops there."""

    def __init__(self, event: yaml.Event, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.position = _position(event)


def _position(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


class _Builder:
    """Builds plain data from parser events, so that PyYAML resolves, merges and constructs nothing."""

    def __init__(self, file: str) -> None:
        self.document = Document(file)
        self.problems: list[Problem] = []

    def build(self, text: str) -> None:
        events = yaml.parse(text, Loader=yaml.CSafeLoader)
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    why = "has more than one document: nothing may follow the end mark `...`"
                    self._wrong(event, (), why)
                    return
            elif isinstance(event, yaml.NodeEvent):
                self.document.data = self._node(event, events, ())

    def _wrong(self, event: yaml.Event, location: Location, message: str) -> None:
        line, column = _position(event)
        path = ".".join(map(str, location))
        self.problems.append(Problem(self.document.file, line, column, path, message))

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], at: Location) -> Value:
        self.document.marks.setdefault(at, _position(event))
        if isinstance(event, yaml.AliasEvent):
            self._wrong(event, at, "aliases are not allowed: write the value out")
            return None
        if getattr(event, "anchor", None):
            self._wrong(event, at, "anchors are not allowed")
        if getattr(event, "tag", None):
            self._wrong(event, at, "tags are not allowed")
        if len(at) > MAX_DEPTH:
            raise _NotOurs(event, "it is nested too deeply")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, at)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, at)
        return self._mapping(events, at)

    def _sequence(self, events: Iterator[yaml.Event], at: Location) -> list[Value]:
        items: list[Value] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._node(event, events, (*at, len(items))))
        return items

    def _mapping(self, events: Iterator[yaml.Event], at: Location) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            if not isinstance(event, yaml.ScalarEvent):
                raise _NotOurs(event, "a key is not plain text")
            key = event.value
            location = (*at, key)
            if event.anchor or event.tag or (not event.style and key == "<<"):
                self._wrong(event, at, "anchors, tags and merge keys are not allowed")
            if key in found:
                self._wrong(event, location, "this key is given twice")
            self.document.marks[location] = _position(event)
            found[key] = self._node(next(events), events, location)
        return found

    def _scalar(self, event: yaml.ScalarEvent, at: Location) -> Value:
        text: str = event.value
        if event.style:  # quoted, or a block
            return text
        if text in ("", "~", "null"):
            return None
        if text in ("true", "false"):
            return text == "true"
        if text.lower() in _AMBIGUOUS or text.lower() in ("true", "false", "null"):
            words = _WORDS.get(at[-1], "true or false") if at else "true or false"
            self._wrong(event, at, f"is ambiguous: write {words}, or put it in quotes")
            return text
        return int(text) if _INT.fullmatch(text) else text
