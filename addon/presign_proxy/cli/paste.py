"""Text that people paste after a verb: a URL, a token, headers or a curl command line."""

from __future__ import annotations

import shlex

import click

from ..explain.input.paste import Presented, parse
from ..explain.input.urls import UnreadableUrl
from . import prompts
from .place import Failure


class Pasted(click.Command):
    """A command that accepts a curl command line: from the word `curl` on, everything is one text.

    The word in `--as curl` does not count: it names a form.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        begins = (at for at, word in enumerate(args) if word == "curl" and args[at - 1 : at] != ["--as"])
        if (at := next(begins, None)) is not None:
            args = [*args[:at], shlex.join(args[at:])]
        return super().parse_args(ctx, args)


def _text(given: str) -> str:
    """Return the pasted text. `-` reads standard input, which other users of the machine cannot see."""
    return prompts.text() if given == "-" else given


def presented_by(given: str, **wanted: str | None) -> Presented:
    """Parse a pasted text; `wanted` holds the options given with it. Raises Failure, UsageError.

    An option that contradicts the text is refused: the answer would be about another request than intended.
    """
    try:
        found = parse(_text(given), **{name: value for name, value in wanted.items() if value is not None})
    except UnreadableUrl as error:
        raise Failure(str(error)) from None
    if wanted.get("path") is not None and found.kind in ("url", "curl"):
        raise click.UsageError("--path needs a token or headers: a URL has its own path")
    if wanted.get("url") is not None and found.kind != "headers":
        raise click.UsageError("--to needs headers")
    if wanted.get("url") is not None and wanted.get("path") is not None:
        raise click.UsageError("--to and --path exclude each other: the URL has its own path")
    return found
