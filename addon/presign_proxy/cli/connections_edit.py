"""`presign connections edit`: change a connection in an editor, with stars in place of its secrets."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from ..config.strict_yaml import Document, parse
from ..config_problems import ConfigError, Problem
from ..file_access import read_at_most
from . import prompts
from .completion import complete_connections
from .connections_set import confirm_and_write
from .mask import masked, unmasked
from .output import Output, verb
from .registry_entries import draft_of, managed
from .workspace import Entry, Failure, Workspace

_HEAD: Final = (
    "# {name}, as it is in the registry. Leave the stars: they stand for secrets, which stay as they are.\n"
    "# `presign connections rotate` changes secrets. An unchanged file changes nothing.\n"
)
_MOST: Final = 1 << 20


@click.command()
@click.argument("name", shell_complete=complete_connections)
@click.option("--yes", is_flag=True, help="Do not ask.")
@verb
def edit(workspace: Workspace, output: Output, name: str, yes: bool) -> None:
    """Change a connection in an editor ($VISUAL, else $EDITOR); its secrets are masked.

    The text is checked when it is saved. If it has errors, the editor opens again and shows them.
    """
    before = managed(workspace, draft_of(workspace), name)
    with _private_file(name) as path:
        after = _edited(workspace, name, before, path)
    if after == before:
        output.tell({"id": name, "changed": {}}, f"{name} is as it was; nothing was changed.")
        return
    confirm_and_write(workspace, output, name, before, after, yes=yes)


@contextmanager
def _private_file(name: str) -> Iterator[Path]:
    """Yield the path of a file in a new directory that only this user can read; remove both at the end.

    Also if the terminal is closed meanwhile: a new secret may be in the file.
    """
    for what in ("SIGHUP", "SIGTERM"):
        if number := getattr(signal, what, None):  # Windows has no SIGHUP
            signal.signal(number, _end)
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")  # it is in memory
    directory = Path(
        tempfile.mkdtemp(prefix="presign-", dir=runtime if os.access(runtime, os.W_OK) else None)
    )
    try:
        yield directory / f"{name}.yaml"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _edited(workspace: Workspace, name: str, before: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the entry as it was saved. Raises Failure, ConfigError for errors that are not corrected."""
    import yaml

    shown = masked(before)
    if not before.get("signing_keys"):
        del shown["signing_keys"]
    head = _HEAD.format(name=name)
    text = head + yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    problems: list[Problem] = []
    while True:
        remarks = "".join(f"# error  {one}\n" for one in _below(problems, len(problems)))
        given = remarks + text
        saved = _saved(path, given)
        if saved == given and not problems:
            return before
        text = saved.removeprefix(remarks)
        again = problems
        try:
            return _read(workspace, name, before, text)
        except ConfigError as error:
            problems = error.problems
        if not prompts.is_terminal() or (again and saved == given):
            raise ConfigError(problems)


def _below(problems: list[Problem], lines: int) -> list[Problem]:
    """Return the problems with the lines that they have below so many others."""
    return [one._replace(line=one.line + lines) if one.line else one for one in problems]


def _saved(path: Path, text: str) -> str:
    """Write the text, run the editor, and return what it saved. Raises Failure."""
    path.touch(mode=0o600)
    path.write_text(text, "utf-8")
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(editor), str(path)], check=False)  # noqa: S603 - the user's own
    except (OSError, ValueError):
        raise Failure(f"{editor} cannot be run: name an editor in EDITOR. Nothing was changed.") from None
    if done.returncode:
        raise Failure(f"{editor} ended with code {done.returncode}; nothing was changed")
    try:
        raw, _ = read_at_most(path, _MOST + 1)
        if len(raw) > _MOST:
            raise Failure(f"the text is larger than {_MOST} bytes; nothing was changed")
        return raw.decode("utf-8")
    except FileNotFoundError:
        raise Failure("the editor removed the file; nothing was changed") from None
    except UnicodeDecodeError:
        raise Failure("the text is not UTF-8; nothing was changed") from None


def _read(workspace: Workspace, name: str, before: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the entry of a text, with its secrets. Raises ConfigError."""
    file = f"{name}.yaml"
    document = parse(text.encode(), file)
    if not isinstance(document.data, dict):
        raise ConfigError([Problem(file, 1, 1, "", "has to be a mapping, as in {key: value}")])
    after, wrong = unmasked(document.data, before)
    if wrong:
        raise ConfigError([document.problem(at, why) for at, why in wrong])
    marks = {("connections", name, *at): mark for at, mark in document.marks.items()}
    workspace.connection(Entry(name, after, Document(file, {}, marks), managed=True))
    return after
