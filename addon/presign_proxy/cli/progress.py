"""What a long command is doing: one line on a terminal's standard error, from the second second on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

_AFTER: Final = 1.0
"""Seconds after which a command shows what it is doing. Most commands are done by then."""
_EVERY: Final = 0.2
_CLEARED: Final = "\r\x1b[K"


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show what is being done and for how long, while the block runs."""
    if not _is_wanted():
        yield
        return
    import threading  # few commands show progress

    done, began = threading.Event(), time.monotonic()

    def show() -> None:
        wait = _AFTER
        while not done.wait(wait):
            _write(f"{_CLEARED}{what}: {time.monotonic() - began:.0f} s")
            wait = _EVERY

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if time.monotonic() - began > _AFTER:
            _write(_CLEARED)


def counting[Item](what: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """Yield the items, and show how many of them are done."""
    if not _is_wanted():
        yield from items
        return
    shown_at = time.monotonic() + _AFTER
    is_shown = False
    try:
        for number, item in enumerate(items):
            if time.monotonic() >= shown_at:
                shown_at, is_shown = time.monotonic() + _EVERY, True
                _write(f"{_CLEARED}{what}: {number:,} of {total:,}")
            yield item
    finally:
        if is_shown:
            _write(_CLEARED)


def _is_wanted() -> bool:
    """Return whether standard error is a terminal that can rewrite a line."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # nobody looks any more
