"""YAML read strictly: one meaning per document, and the line and column of every value in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from .problems import ConfigError, Location, Problem

Value = None | bool | int | str | list[Any] | dict[str, Any]

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 32

_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
# YAML 1.1 reads these as booleans, YAML 1.2 as text: whoever wrote one meant one of the two.
_AMBIGUOUS: Final = frozenset(("yes", "no", "on", "off", "y", "n"))
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclass(slots=True)
class Document:
    """A parsed document: its data, and the position (line, column, from 1) of each value and key."""

    file: str
    data: Value = None
    marks: dict[Location, tuple[int, int]] = field(default_factory=dict)

    def problem(self, location: Location, message: str) -> Problem:
        """A problem at a location, or at the nearest enclosing one that stands in the file."""
        at = location
        while at and at not in self.marks:
            at = at[:-1]
        # What was never a text that people see has no lines.
        line, column = self.marks.get(at, (1, 1) if self.marks else (0, 0))
        return Problem(self.file, line, column, ".".join(map(str, location)), message)


def read(path: Path) -> Document:
    """Read and parse a YAML file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ConfigError([Problem(str(path), 0, 0, "", f"{reason}; is the path right?")]) from None
    if len(raw) > MAX_BYTES:
        raise ConfigError([Problem(str(path), 0, 0, "", f"is larger than {MAX_BYTES} bytes")])
    return parse(raw, str(path))


def parse(raw: bytes, file: str) -> Document:
    """Parse one strict YAML document. Raises ConfigError with everything that is wrong at this level."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(file, line, 1, "", "is not UTF-8")]) from None
    builder = _Builder(file)
    try:
        builder.build(text)
    except yaml.MarkedYAMLError as error:
        # PyYAML's own text would print the offending line, and a secret with it.
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        why = _QUOTED.sub("…", error.problem or "it cannot be parsed")
        builder.problems.append(Problem(file, line, column, "", f"is not valid YAML: {why}"))
    except _NotOurs as error:
        builder.problems.append(Problem(file, *error.position, "", f"is not accepted: {error.why}"))
    except yaml.YAMLError:
        builder.problems.append(Problem(file, 1, 1, "", "is not valid YAML: a character that is not allowed"))
    if builder.problems:
        raise ConfigError(builder.problems)
    return builder.document


class _NotOurs(Exception):
    """Valid YAML that no configuration needs; parsing stops there."""

    def __init__(self, event: yaml.Event, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.position = _position(event)


def _position(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


class _Builder:
    """Builds plain data from parser events, so that nothing is resolved, merged or constructed."""

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
                    self._wrong(event, (), "holds more than one document")
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
            self._wrong(event, at, "is ambiguous: write true or false, or put it in quotes")
            return text
        return int(text) if _INT.fullmatch(text) else text
