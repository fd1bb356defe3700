"""Connecting to the first of several addresses that answers (RFC 8305, Happy Eyeballs)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Final

STAGGER: Final = 0.25
"""Seconds that an attempt has before the next address is tried beside it (RFC 8305, 5)."""
MOST: Final = 16
"""Addresses of a name that are tried at most."""

Address = tuple[str, int]


def in_turns(addresses: Sequence[Address]) -> list[Address]:
    """Return the addresses with their families in turns, the family of the first one first (RFC 8305, 4).

    Within a family they stay in the order in which the system has sorted them (RFC 6724).
    """
    first = ":" in addresses[0][0] if addresses else False
    ours = [one for one in addresses if (":" in one[0]) is first]
    others = [one for one in addresses if (":" in one[0]) is not first]
    mixed = chain.from_iterable(zip_longest(ours, others))
    return list(dict.fromkeys([one for one in mixed if one is not None]))


async def connected(addresses: Sequence[Address], local: Address | None = None) -> socket.socket:
    """Return a socket that is connected to one of the addresses, all of which may be dialled.

    The next address is tried when an attempt has failed, or has taken `STAGGER` seconds. A name whose first
    address is dead neither fails nor waits for the whole deadline.

    Raises OSError, the one of the last attempt to fail, if no address answers.
    """
    waiting, attempts = in_turns(addresses)[:MOST], set[asyncio.Task[socket.socket]]()
    problem = OSError("there is no address")
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.ensure_future(_attempt(waiting.pop(0), local)))
            pause = STAGGER if waiting else None
            done, attempts = await asyncio.wait(attempts, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            won = [one for one in done if one.exception() is None]
            for late in won[1:]:
                late.result().close()
            if won:
                return won[0].result()
            problem = next((found for one in done if isinstance(found := one.exception(), OSError)), problem)
        raise problem
    finally:
        for one in attempts:
            one.add_done_callback(_close)
            one.cancel()


def _close(attempt: asyncio.Task[socket.socket]) -> None:
    """Close what has connected although another attempt had won."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _attempt(address: Address, local: Address | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setblocking(False)
        with contextlib.suppress(OSError):
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if local is not None:
            found.bind(local)
        await asyncio.get_running_loop().sock_connect(found, address)
    except BaseException:
        found.close()
        raise
    return found
