"""The output of the command: what it prints, and how it fails."""

from __future__ import annotations

import codecs
import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from ..config_problems import UNCONFIRMED, Foreseen
from .colours import styled
from .place import Place

DONE: Final = 0
REFUSED: Final = 1


def verb(function: Callable[..., int | None]) -> Callable[..., None]:
    """Make a function a verb, with `--config` and `--json`, and a `Workspace` as its first argument.

    The function returns the exit code.
    """
    return _verb(function, _workspace)


def light_verb(function: Callable[..., int | None]) -> Callable[..., None]:
    """Make a function a verb with a `Place` as its first argument: for a verb that may need no configuration.

    Importing the code that reads a configuration takes longer than such a verb itself.
    """
    return _verb(function, Place.at)


def _workspace(config: Path | None) -> Place:
    from .workspace import Workspace

    return Workspace.at(config)


def _verb(function: Callable[..., int | None], place: Callable[[Path | None], Place]) -> Callable[..., None]:
    @click.option("--config", "config", type=click.Path(path_type=Path), help="The configuration.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @functools.wraps(function)
    def run(*args: Any, config: Path | None, as_json: bool, **kwargs: Any) -> None:
        _in_unicode(kwargs)
        try:
            code = function(place(config), Output(as_json), *args, **kwargs)
        except BrokenPipeError:
            raise  # the reader has gone; `Program` ends by SIGPIPE
        except (Foreseen, OSError) as error:
            code = _fail(error, as_json=not _is_full() and as_json)
        while UNCONFIRMED:
            click.echo(f"presign: {UNCONFIRMED.pop(0)}", err=True)
        raise SystemExit(code or DONE)

    return run


def _is_full() -> bool:
    """Return whether standard output cannot be written; then close it, or Python would complain at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return True
    return False


def _in_unicode(given: dict[str, Any]) -> None:
    """Refuse arguments that are not UTF-8, which cannot be signed, stored or shown. Raises UsageError."""
    for name, value in given.items():
        for text in value if isinstance(value, tuple) else (value,):
            try:
                str(text).encode("utf-8")
            except UnicodeEncodeError:
                raise click.UsageError(f"{name.replace('_', '-')} is not UTF-8") from None


def _fail(error: Exception, as_json: bool) -> int:
    if isinstance(error, OSError):
        text = f"{error.filename or ''}: {(error.strerror or 'failed').lower()}".removeprefix(": ")
    else:
        text = str(error)
    if as_json:
        click.echo(json.dumps({"error": text}))
    else:
        for line in text.splitlines():
            click.echo(f"{styled('presign:', 'error')} {line}", err=True)
    return getattr(error, "exit_code", REFUSED)


class Output:
    """Printed text for people, or JSON for programs."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def tell(self, data: Any, *lines: str) -> None:
        """Print the result: `data` as JSON, or the lines."""
        if self.as_json:
            click.echo(json.dumps(data, ensure_ascii=not _is_unicode()))
        else:
            for line in lines:
                click.echo(line)

    def note(self, *lines: str) -> None:
        """Print remarks beside the result to standard error; with JSON, print nothing."""
        if not self.as_json:
            for line in lines:
                click.echo(line, err=True)


def _is_unicode() -> bool:
    """Return whether standard output can encode every character. A replaced one would change the JSON."""
    return codecs.lookup(getattr(sys.stdout, "encoding", None) or "utf-8").name == "utf-8"


def counted(number: int, what: str) -> str:
    """Return for example "1 connection" or "2 connections"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def noted(title: str, items: Sequence[str]) -> list[str]:
    """Return lines with a list under a title; none for an empty list."""
    return ["", title, *(f"  -  {one}" for one in items)] if items else []


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the rows as aligned columns that fit into the terminal; the first row is the head."""
    from .width import columns, fitted

    return fitted([list(row) for row in rows], columns())
