"""A command line that cannot be understood: what is wrong with it, and the nearest word that is known."""

from __future__ import annotations

import json
import re
from typing import Final

import click

from ..similar_names import did_you_mean
from .colours import styled
from .help_text import usage_of
from .hints import quoted

USAGE: Final = 2
_NO_CHOICE: Final = re.compile(r"'(.*?)' is not one of ", re.DOTALL)
_OF_EACH_VERB: Final = ("--json", "--config")
_GROUPS: Final = ("connections",)
"""Verbs that have verbs of their own."""
_EXTRA: Final = "Got unexpected extra argument"
_EXTRA_MEANS: Final = {
    "sign": "for several paths, write --paths PATH,PATH",
    "rotate": "a new key gets its name by itself, and --drop ID removes an older one",
}
"""What may be meant by an argument too many."""


def tell(error: click.ClickException, *, as_json: bool) -> int:
    """Print the error, as JSON on standard output or as text on standard error. Return the exit code."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.UsageError) and type(error).__name__ == "NoArgsIsHelpError":
        return _without_verb(error, context, as_json=as_json)
    text = _sentence(error)
    if as_json:
        click.echo(json.dumps({"error": text}))
        return error.exit_code
    if context is not None:
        click.echo(usage_of(context), err=True)
        click.echo(f"Help: {context.command_path} --help\n", err=True)
    click.echo(f"{styled('Error:', 'error')} {text}", err=True)
    return error.exit_code


def _without_verb(error: click.UsageError, context: click.Context | None, *, as_json: bool) -> int:
    """Print the help, as for a command without a verb."""
    if as_json:
        click.echo(json.dumps({"error": "give a verb"}))
    elif context is not None:
        click.echo(context.get_help(), err=True)
    return error.exit_code


def _options(context: click.Context | None) -> list[str]:
    known = context.command.get_params(context) if context is not None else []
    return [name for one in known if isinstance(one, click.Option) for name in one.opts]


def _sentence(error: click.ClickException) -> str:
    """Return what is wrong, with the nearest word where one was mistyped."""
    text = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.NoSuchOption):
        near = did_you_mean(error.option_name, _options(error.ctx))
        if error.ctx is not None and error.ctx.parent is None and error.option_name in _OF_EACH_VERB:
            near = f"write it behind the verb: presign VERB {error.option_name}"
        return f"No such option {error.option_name}" + (f": {near}" if near else "")
    choices = getattr(getattr(getattr(error, "param", None), "type", None), "choices", ())
    if choices and (match := _NO_CHOICE.match(error.message)):
        if near := did_you_mean(match[1], map(str, choices)):
            return f"{text.rstrip('.')}: {near}"
    if context is not None and text.startswith(_EXTRA) and context.command.name in _EXTRA_MEANS:
        return f"{text.rstrip('.')}: {_EXTRA_MEANS[context.command.name]}"
    return text


def verb_meant(group: click.Group, context: click.Context, words: list[str]) -> str:
    """Return which verb may be meant by words of which the first is none; empty if that would be a guess."""
    name, *rest = words
    if name == "help":
        known = rest[:1] if rest and group.get_command(context, rest[0]) is not None else []
        return f"write {quoted(*_path(context), *known, '--help')}"
    for verb in _GROUPS if context.parent is None else ():
        inner = group.get_command(context, verb)
        if isinstance(inner, click.Group) and name in inner.list_commands(context):
            return f"write {quoted(verb, name)}"
    return did_you_mean(name, group.list_commands(context))


def _path(context: click.Context) -> list[str]:
    """Return the verbs on the way to a context."""
    found: list[str] = []
    at: click.Context | None = context
    while at is not None and at.parent is not None:
        found.insert(0, at.info_name or "")
        at = at.parent
    return found
