"""Work, counted instead of timed: how many Python lines and calls a piece of code runs through.

A clock on a shared machine says little. The number of steps is the same each time.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

_TOOL = 4
_EVENTS = sys.monitoring.events.LINE | sys.monitoring.events.CALL


def steps(call: Callable[[], Any]) -> int:
    """Lines that this thread runs and calls that it makes, those into C included, whatever others do."""
    count, mine = 0, threading.get_ident()

    def one(*_: object) -> None:
        nonlocal count
        if threading.get_ident() == mine:
            count += 1

    sys.monitoring.use_tool_id(_TOOL, "work")
    try:
        sys.monitoring.register_callback(_TOOL, sys.monitoring.events.LINE, one)
        sys.monitoring.register_callback(_TOOL, sys.monitoring.events.CALL, one)
        sys.monitoring.set_events(_TOOL, _EVENTS)
        call()
    finally:
        sys.monitoring.set_events(_TOOL, 0)
        sys.monitoring.free_tool_id(_TOOL)
    return count
