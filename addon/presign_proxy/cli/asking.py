"""Asking for secrets: a prompt on a terminal, a line of standard input elsewhere; never an argument."""

from __future__ import annotations

import sys

import click

from ..secrets import checked
from .desk import Failure

MAX_LINE = 64 * 1024


def secret(what: str) -> str:
    """One secret. Raises Failure where there is none, SecretError where no header could carry it."""
    if sys.stdin.isatty():
        text: str = click.prompt(what, hide_input=True, err=True)
    else:
        text = sys.stdin.readline(MAX_LINE)
        if not text:
            raise Failure(f"{what}: nothing on standard input")
    text = text.strip(" \t\r\n")
    checked(text, what)
    return text


def sure(question: str, *, yes: bool) -> None:
    """Raises Failure unless the answer is yes; where nobody can answer, `--yes` has to be said."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure(f"{question} Say --yes")
    if not click.confirm(question, err=True):
        raise Failure("nothing was changed")
