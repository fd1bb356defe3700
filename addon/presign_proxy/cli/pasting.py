"""What people paste behind a verb: a URL, a token, headers or a curl command line."""

from __future__ import annotations

import shlex

import click

from ..presenting import Presented, parse
from ..presenting.urls import Unreadable
from . import asking
from .place import Failure


class Pasted(click.Command):
    """Takes a curl command line as it is: from the word `curl` on, everything is one text."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "curl" in args:
            at = args.index("curl")
            args = [*args[:at], shlex.join(args[at:])]
        return super().parse_args(ctx, args)


def _text(given: str) -> str:
    """What was pasted; `-` reads standard input, where no other user of the machine can see it."""
    return asking.text() if given == "-" else given


def presented_by(given: str, **wanted: str | None) -> Presented:
    """What a text presents, `wanted` being said beside it. Raises Failure."""
    try:
        return parse(_text(given), **{name: value for name, value in wanted.items() if value is not None})
    except Unreadable as error:
        raise Failure(str(error)) from None
