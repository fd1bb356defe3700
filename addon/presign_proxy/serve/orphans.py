"""Orphaned processes, which the supervisor inherits if it is process 1 of a container."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection


def reap(mine: Collection[int]) -> None:
    """Reap orphans that have ended, so that they do not stay zombies: programs of secrets may leave some.

    Args:
        mine: process ids of our own children, which other code waits for.
    """
    if os.getpid() != 1:
        return  # only process 1 inherits orphans
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in mine:
                return  # it is reported until its own code reaps it; the next call gets the others
            os.waitpid(ended.si_pid, os.WNOHANG)
