"""The audit log with what was rotated away: the files beside it that logrotate and others made of it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from .audit_reader import Lines, opened

_OPENERS: Final[dict[str, Callable[[BinaryIO], Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
Unreadable = (OSError, EOFError, lzma.LZMAError, zlib.error)
"""What reading a file may raise, if it is none of ours or was cut off."""


def files_of(path: Path) -> list[Path]:
    """Return the audit log and its rotated files, the newest first. Raises OSError.

    Such files have names like `audit.jsonl.1`, `audit.jsonl.2.gz`, `audit.jsonl-20261130.gz` or
    `audit-20261130.jsonl`.
    """
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    packed = rf"(?:{'|'.join(map(re.escape, _OPENERS))})?"
    number = r"[.-][0-9][0-9TZ_.:-]*"
    form = re.compile(rf"(?:{stem}{suffix}{number}|{stem}{number}{suffix}|{stem}{suffix}){packed}")
    directory = path.parent
    found = [one for one in directory.iterdir() if one != path and form.fullmatch(one.name) and one.is_file()]
    found.sort(key=lambda one: one.stat().st_mtime, reverse=True)
    return [*([path] if path.exists() else []), *found]


def records_with(path: Path, text: bytes) -> Iterator[dict[str, object]]:
    """Yield the records of a file, compressed or not, whose line contains a text. Raises `Unreadable`."""
    opener = _OPENERS.get(path.suffix)
    with opened(path) as plain:
        file = plain if opener is None else opener(plain)
        lines = Lines(file, containing=text)
        yield from lines.records()
        yield from lines.end()
