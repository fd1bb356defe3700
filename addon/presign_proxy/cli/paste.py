"""What people paste behind a verb: a URL, a token, headers or a curl command line."""

from __future__ import annotations

import shlex

import click

from ..explain.input.paste import Presented, parse
from ..explain.input.urls import UnreadableUrl
from . import prompts
from .place import Failure


class Pasted(click.Command):
    """Takes a curl command line as it is: from the word `curl` on, everything is one text.

    Not of `--as curl`, which is the form that is wanted.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        begins = (at for at, word in enumerate(args) if word == "curl" and args[at - 1 : at] != ["--as"])
        if (at := next(begins, None)) is not None:
            args = [*args[:at], shlex.join(args[at:])]
        return super().parse_args(ctx, args)


def _text(given: str) -> str:
    """What was pasted; `-` reads standard input, where no other user of the machine can see it."""
    return prompts.text() if given == "-" else given


def presented_by(given: str, **wanted: str | None) -> Presented:
    """What a text presents, `wanted` being said beside it. Raises Failure, UsageError.

    What the text leaves no room for is refused: the answer would be about another request than was meant.
    """
    try:
        found = parse(_text(given), **{name: value for name, value in wanted.items() if value is not None})
    except UnreadableUrl as error:
        raise Failure(str(error)) from None
    if wanted.get("path") is not None and found.kind in ("url", "curl"):
        raise click.UsageError("--path is for a token and for headers: the URL names its path")
    if wanted.get("url") is not None and found.kind != "headers":
        raise click.UsageError("--to is for headers")
    if wanted.get("url") is not None and wanted.get("path") is not None:
        raise click.UsageError("--to or --path: the URL names its path")
    return found
