"""The end of a worker with its supervisor, without which it could not be reloaded, drained or noticed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, if it can (prctl(2)).

    This works even before there is an event loop, and while that is stuck. On other systems, the end of the
    channel ends the worker.

    Args:
        parent: the process id of the parent, as the parent passed it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent had ended before prctl was called
        os._exit(1)
