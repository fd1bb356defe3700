"""A worker does not outlive its supervisor: nobody could reload it, drain it, or know that it serves."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(parent: int) -> None:
    """Where the kernel can (prctl(2)), be killed with the parent, also while nothing is heeded: before there
    is an event loop, and while that is stuck. Elsewhere the end of the channel says so.

    Args: parent: the process id of the parent, as that knows it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has ended before the kernel was asked
        os._exit(1)
