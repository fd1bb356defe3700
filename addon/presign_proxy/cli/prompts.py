"""Input of secrets: a prompt on a terminal, otherwise a line of standard input; never an argument."""

from __future__ import annotations

import sys

import click

from ..config.secret_sources import checked
from .place import Failure

MAX_LINE = 64 * 1024
MAX_TEXT = 1 << 20


def secret(what: str) -> str:
    """Read one secret. Raises Failure if there is none, SecretError if a header could not carry it."""
    text = click.prompt(what, hide_input=True, err=True) if is_terminal() else _line(what)
    text = text.strip(" \t\r\n")
    checked(text, what)
    return text


def lines(what: str) -> str:
    """Read a secret of several lines, as a private key has them: all of standard input. Raises Failure."""
    if is_terminal():
        raise Failure(f"{what} has several lines: give it on standard input, as in … < key.pem")
    found = text().strip()
    checked(found, what, lines=True)
    return found


def is_terminal() -> bool:
    """Return whether standard input is a terminal. It may also be closed."""
    return sys.stdin is not None and sys.stdin.isatty()


def _line(what: str) -> str:
    raw = b"" if sys.stdin is None else sys.stdin.buffer.readline(MAX_LINE + 1)
    if not raw:
        raise Failure(f"{what}: nothing on standard input")
    if len(raw) > MAX_LINE:
        raise Failure(f"{what}: the line on standard input is longer than {MAX_LINE} bytes")
    return _decoded(raw, what)


def everything(most: int = MAX_TEXT) -> bytes:
    """Read all of standard input. Raises Failure."""
    raw = b"" if sys.stdin is None else sys.stdin.buffer.read(most + 1)
    if len(raw) > most:
        raise Failure(f"standard input holds more than {most} bytes")
    return raw


def text() -> str:
    """Read all of standard input as text. Raises Failure."""
    return _decoded(everything(), "standard input")


def _decoded(raw: bytes, what: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Failure(f"{what} is not UTF-8") from None


def sure(question: str, *, yes: bool) -> None:
    """Ask for confirmation; without a terminal, require `--yes`. Raises Failure unless the answer is yes."""
    if yes:
        return
    if not is_terminal():
        raise Failure(f"{question} Confirm with --yes")
    if not click.confirm(question, err=True):
        raise Failure("nothing was changed")
