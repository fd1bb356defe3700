"""Commands that send to one peer, joined into few writes."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, TypeGuard

from mitmproxy.proxy import commands

Commands = Generator[commands.Command, Any, None]

SMALL: Final = 16 * 1024
"""Bytes up to which copying is cheaper than a write."""


def in_one_piece(stock: Commands) -> Commands:
    """Pass commands on, and join what one event sends to the same peer in a row, such as a head and its body.

    Nothing overtakes what is joined. Where a later command fails, it is sent all the same.
    """
    held: commands.SendData | None = None
    try:
        for command in stock:
            small = command if _is_small(command) else None
            if held is not None:
                if small is not None and small.connection is held.connection and _is_small(held):
                    held = commands.SendData(held.connection, held.data + small.data)
                    continue
                due, held = held, None
                yield due
            if small is not None:
                held = small
            else:
                yield command
    except Exception:
        if held is not None:
            yield held
        raise
    if held is not None:
        yield held


def _is_small(command: commands.Command) -> TypeGuard[commands.SendData]:
    return type(command) is commands.SendData and len(command.data) <= SMALL
