"""The help of a verb, laid out for the terminal: nothing is cut off, and no line is too long."""

from __future__ import annotations

from typing import Final

import click

from .colours import styled
from .examples import EXAMPLES
from .groups import grouped
from .width import NARROWEST, columns, commands, wrapped

WIDEST: Final = 100
"""Longer lines are hard to read."""
_PIPED: Final = 80
_TERMS: Final = 30
"""The widest term beside which its definition stands."""
_SIDE_BY_SIDE: Final = 64
"""From this width on, a definition may stand beside its term, else it is below it."""


class Formatter(click.HelpFormatter):
    """click's formatter, with lines for narrow terminals and headings that stand out."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        heading = (prefix or "Usage:").rstrip()
        text = "\n".join(wrapped(f"{heading} {prog} {args}".rstrip(), self.width, 4))
        self.write(f"{styled(heading, 'heading')}{text.removeprefix(heading)}\n")

    def write_heading(self, heading: str) -> None:
        self.write(f"{'':>{self.current_indent}}{styled(f'{heading}:', 'heading')}\n")

    def write_text(self, text: str) -> None:
        for at, paragraph in enumerate(text.split("\n\n")):
            head = " " * self.current_indent
            lines = wrapped(head + " ".join(paragraph.split()), self.width, self.current_indent)
            self.write(("\n" if at else "") + "\n".join(lines) + "\n")

    def write_dl(self, rows: object, col_max: int = _TERMS, col_spacing: int = 2) -> None:
        listed: list[tuple[str, str]] = list(rows)  # type: ignore[call-overload]
        indent = self.current_indent
        side = min(max(len(term) for term, _ in listed), col_max) + indent + col_spacing
        if self.width < _SIDE_BY_SIDE:
            side = indent + 6
        for term, text in listed:
            lines = wrapped(" " * side + " ".join(text.split()), self.width, side) if text else []
            if self.width >= _SIDE_BY_SIDE and len(term) + indent + col_spacing <= side and lines:
                lines[0] = (" " * indent + term).ljust(side) + lines[0][side:]
                self.write("\n".join(lines) + "\n")
            else:
                self.write("\n".join([*self._term(term), *lines]) + "\n")

    def _term(self, term: str) -> list[str]:
        """Return a term; a long list of choices goes on behind a bar."""
        indent = self.current_indent
        spaced = wrapped(" " * indent + term.replace("|", "| "), self.width, indent + 6)
        if len(term) + indent > self.width:
            return [line.replace("| ", "|") for line in spaced]
        return [" " * indent + term]


def help_of(context: click.Context) -> str:
    """Return the help of a command, with its examples at the end."""
    formatter, command = Formatter(width=min(columns() or _PIPED, WIDEST)), context.command
    command.format_help(context, formatter)
    if examples := _examples(context):
        with formatter.section("Examples"):
            for example in examples:
                formatter.write("\n".join(commands(example, formatter.width, 2)) + "\n")
    return formatter.getvalue().rstrip("\n")


def _examples(context: click.Context) -> list[str]:
    """Return the examples of a verb. presign-signer has some of the verbs only."""
    found, command = EXAMPLES.get(name_of(context), ()), context.command
    if context.parent is not None or not isinstance(command, click.Group):
        return list(found)
    return [example for example in found if example.split()[1] in command.list_commands(context)]


def name_of(context: click.Context) -> str:
    """Return the verb of a context, without the command's own name: `connections add`."""
    names: list[str] = []
    while context.parent is not None:
        names.insert(0, context.info_name or "")
        context = context.parent
    return " ".join(names)


def write_verbs(verbs: dict[str, str], formatter: click.HelpFormatter) -> None:
    """Write the verbs by job, each with its help in one sentence."""
    for job, members in grouped(verbs):
        with formatter.section(job):
            formatter.write_dl([(name, verbs[name]) for name in members], col_max=max(map(len, verbs)))


def usage_of(context: click.Context) -> str:
    """Return the usage line of a command."""
    formatter = Formatter(width=max(columns() or _PIPED, NARROWEST))
    context.command.format_usage(context, formatter)
    return formatter.getvalue().rstrip("\n")
