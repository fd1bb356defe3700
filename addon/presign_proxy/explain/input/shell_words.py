"""A command line as a POSIX shell splits it: the words of its first command, and what cut it off."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .urls import UnreadableUrl

_PART = re.compile(
    r"""
    (?P<joined>\\\r?\n)                     # a line that goes on
  | \\(?P<escaped>.)
  | '(?P<single>[^']*)'
  | \$'(?P<ansi>(?:[^'\\]|\\.)*)'           # bash and zsh, also what browsers copy
  | "(?P<double>(?:[^"\\]|\\.)*)"
  | (?P<redirect>(?<![^\s])[0-9]?(?:>>?|<)(?:&[0-9-])?)
  | (?P<blank>[ \t]+)
  | (?P<end>[&;|()<>]|\r?\n)
  | (?P<unknown>\$[A-Za-z0-9_{(@*#?!-]|`)
  | (?P<plain>[^\\'"\s&;|()<>`$]+|\$)
    """,
    re.VERBOSE | re.DOTALL,
)
_IN_DOUBLE = re.compile(r'\\(\r?\n|["\\$`])')
_UNKNOWN_IN_DOUBLE = re.compile(r"(?<!\\)(?:\\\\)*(?:\$[A-Za-z_{(]|`)")
_IN_ANSI = re.compile(r"\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|(.))", re.DOTALL)
_CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r", "e": "\x1b", "0": "\0"}


class Words(NamedTuple):
    """The words of the first command; `end` is the unquoted character that ended it, empty for none."""

    words: tuple[str, ...]
    end: str


def split(text: str) -> Words:
    """Split a command line. Raises Unreadable for an open quote, and for a variable."""
    words: list[str] = []
    word: str | None = None
    skipped, end, at = False, "", 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:
            raise UnreadableUrl("the command line has a quote that is not closed, or ends in a backslash")
        at = match.end()
        kind = match.lastgroup or ""
        if kind in ("blank", "end", "redirect"):
            if word is not None and not skipped:
                words.append(word)
            skipped = skipped and word is None
            word = None
        if kind == "redirect":
            skipped = "&" not in match[0]
        elif kind == "end":
            end = match[0].strip() or "\n"
            break
        elif kind == "unknown":
            raise UnreadableUrl("the command line holds a shell variable or `…`: put its value there")
        elif kind not in ("blank", "joined"):
            word = (word or "") + _text(kind, match[kind])
    if word is not None and not skipped:
        words.append(word)
    rest = text[at:].strip()
    return Words(tuple(words), end if rest or end != "\n" else "")


def _text(kind: str, quoted: str) -> str:
    if kind == "ansi":
        return _IN_ANSI.sub(_ansi, quoted)
    if kind == "double":
        if _UNKNOWN_IN_DOUBLE.search(quoted):
            raise UnreadableUrl("the command line holds a shell variable or `…`: put its value there")
        return _IN_DOUBLE.sub(lambda match: "" if "\n" in match[1] else match[1], quoted)
    return quoted


def _ansi(match: re.Match[str]) -> str:
    digits = match[1] or match[2]
    return chr(int(digits, 16)) if digits else _CONTROLS.get(match[3], match[3])
