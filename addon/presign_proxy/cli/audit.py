"""`presign audit`: read the audit log, choose lines from it, follow it."""

from __future__ import annotations

import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

import click

from ..errors import STATUS
from ..observe.audit_reader import Lines, follow, opened
from .audit_query import Record, Test, line_of, wanted
from .colours import styled
from .completion import complete_connections, complete_keys
from .hints import quoted
from .output import Output, counted, light_verb
from .place import Failure, Place
from .width import columns, wrapped

_MOST: Final = 100_000
_BATCH: Final = 500
"""Lines that are printed at once: each printing is a system call."""
_FOLLOWED: Final = 10
_CODES: Final = "|".join(STATUS)
_OUTCOME: Final = re.compile(rf"(?<=\s)refused:|(?<=\): )(?:{_CODES}):|(?<=\):\n {{4}})(?:{_CODES}):")
"""`refused:`, or the code of a request that was granted and failed."""


@click.command()
@click.argument("file", required=False, type=click.Path())
@click.option("--since", metavar="WHEN", help="From this instant on, or from so long ago: 1h.")
@click.option("--until", metavar="WHEN", help="Before this instant, or before so long ago.")
@click.option("--connection", shell_complete=complete_connections, help="Requests to this connection.")
@click.option(
    "--key",
    metavar="[CONNECTION/]KEY",
    shell_complete=complete_keys,
    help="Requests signed with this key.",
)
@click.option("--id", metavar="[CONNECTION/]ID", help="Requests signed under this name.")
@click.option("--signature", metavar="ID", help="Requests with this URL, by signature id.")
@click.option("--request", metavar="req_…", help="The request with this id.")
@click.option("--client", metavar="CIDR", help="Requests from this address or network.")
@click.option(
    "--code",
    multiple=True,
    metavar="CODE",
    shell_complete=lambda _, __, begun: [code for code in STATUS if code.startswith(begun)],
    help="Refused or failed with this code; may be repeated.",
)
@click.option("--status", multiple=True, metavar="403|4xx", help="Answered so; may be repeated.")
@click.option("-n", "--last", type=click.IntRange(0, _MOST), metavar="N", help="Only the last N of these.")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on with what is written from now on.")
@light_verb
def audit(
    place: Place, output: Output, file: str | None, last: int | None, following: bool, **options: Any
) -> None:
    """Show what the gateway decided: the lines of the audit log, or of another FILE.

    Without FILE, it is the file that the configuration names; - is standard input. With --follow and no
    --last, it begins with the last 10 lines.
    """
    tests = wanted(options)
    if following and (file == "-" or options["until"] is not None):
        raise click.UsageError("--follow needs a file, and no --until")
    path = None if file == "-" else Path(file) if file is not None else _configured(place)
    if following and last is None:
        last = _FOLLOWED
    if path is None and sys.stdin is None:
        raise Failure("nothing on standard input")
    lines = Lines(sys.stdin.buffer if path is None else opened(path))
    if path is not None and following and not path.is_file():
        raise Failure(f"{path} is a pipe: only a file can be followed")
    found = _chosen(lines.records() if following else chain(lines.records(), lines.end()), tests)
    shown = _print(output, found if last is None else deque(found, last))
    if path is not None and following:
        _follow(output, path, lines, tests)
        return
    if lines.unreadable:
        output.note(f"{counted(lines.unreadable, 'line')} could not be read.")
    if not shown:
        output.note("No line of the audit log is of this kind." if tests else "The audit log is empty.")


def _configured(place: Place) -> Path:
    from .workspace import Workspace

    settings = Workspace(place.path, place.environ).config.audit
    if settings is None:
        raise Failure(f"{place.path.name} names no audit log: `audit: {{file: audit.jsonl}}`")
    if settings.file == "-":
        raise Failure("the audit log goes to the gateway's standard error: give the FILE that it ends up in")
    path = place.base / settings.file
    if not path.exists():
        raise Failure(f"{path}: no gateway has written an audit log yet: {quoted('serve')} starts one")
    return path


def _chosen(records: Iterable[Record], tests: list[Test]) -> Iterator[Record]:
    return (record for record in records if all(test(record) for test in tests))


def _follow(output: Output, path: Path, lines: Lines, tests: list[Test]) -> None:
    """Print what is appended, until Ctrl-C."""
    waiting: list[Record] = []
    try:
        for record in follow(path, lines):
            if record is not None:
                waiting += _chosen([record], tests)
            if waiting and (record is None or len(waiting) >= _BATCH):
                _print(output, waiting)
                waiting = []
    except KeyboardInterrupt:
        return


def _fitted(width: int | None) -> Callable[[Record], str]:
    """Return what makes lines for a person that fit into the terminal."""

    def fitted(record: Record) -> str:
        line = line_of(record)
        text = line if width is None else "\n".join(wrapped(line, width, 4))
        # No path holds a blank, so the first of these words is ours.
        return _OUTCOME.sub(lambda found: styled(found[0], "refused"), text, count=1)

    return fitted


def _print(output: Output, records: Iterable[Record]) -> int:
    """Print the records: as JSON, one a line, or for a person. Return how many they are."""
    # In JSON, everything but printable ASCII is escaped, so that a terminal obeys nothing of it.
    text = json.JSONEncoder(separators=(",", ":")).encode if output.as_json else _fitted(columns())
    batch: list[str] = []
    count = 0
    for record in records:
        batch.append(text(record))
        count += 1
        if len(batch) >= _BATCH:
            click.echo("\n".join(batch))
            batch = []
    if batch:
        click.echo("\n".join(batch))
    return count
