"""Processes that nobody waits for: as the first one of a container, the supervisor inherits them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection


def bury(mine: Collection[int]) -> None:
    """Wait for those that have ended, lest they stay zombies: what programs of secrets have started.

    Args:
        mine: process ids of children that somebody here waits for.
    """
    if os.getpid() != 1:
        return  # nobody else's come to us
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in mine:
                return  # it is shown until it is waited for; the others come with the next look
            os.waitpid(ended.si_pid, os.WNOHANG)
