"""A second script that lists the calls and lines of the product that one request runs through, and can make
any one of them fail.

$TRACE_SOCKET is where it listens: one JSON object per line, one answer per line.

* `{"do": "trace"}`: from now on, note each call that code of the product makes, of Python or of C.
* `{"do": "arm", "point": …, "error": …, "sticky": …}`: from now on, raise at that point, and at every one
  behind it where `sticky`.
* `{"do": "stop"}`: stop either; answers with the points that were noted, or with whether the fault struck.

Both begin and end only when no client is connected, so that what belongs to another request is not counted.
What other threads and the housekeeper do at the same time is left out.

A point is `file:function:offset#n`: the n-th time in this request that this instruction calls something
(`line` in place of the offset, where it is the beginning of a line).
"""

import asyncio
import dis
import gc
import json
import os
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

from mitmproxy import ctx

import presign_proxy

TOOL = 3
PACKAGE = str(Path(presign_proxy.__file__).parent)
# They stand for functions of mitmproxy's own, which are not made to fail either.
SHORTCUTS = str(Path(PACKAGE, "mitm/patches.py"))
TEXT = "EXCEPTION-TEXT that no client may read"
ERRORS = {"RuntimeError": RuntimeError, "MemoryError": MemoryError, "RecursionError": RecursionError}
# Where a request is decided on or leaves: a fault below any of these is before the commit, or is the commit.
DECISIVE = {
    "Guard.requestheaders",
    "Committer._wait",
    "Guard.http_connect",
    "Guard.server_connect",
    "LayerGuard.next_layer",
    "GuardedStream._arrive",
    "GuardedStream._checked",
    "GuardedStream._decided",
    "GuardedStream._tunnelled",
}
# What returns when a request is handed to the wire.
SENDING = "SendingStream._send_head"
PATIENCE = 3.0
HARMLESS = re.compile(
    "NOP|RESUME|CACHE|LOAD_(CONST|FAST(_LOAD_FAST|_AND_CLEAR)?)|STORE_FAST.*|POP_JUMP_.*|JUMP_.*|TO_BOOL|RETURN_(CONST|VALUE)|POP_TOP|COPY"
    "|SWAP|PUSH_NULL|IS_OP|UNARY_NOT|EXTENDED_ARG|RERAISE|PUSH_EXC_INFO|POP_EXCEPT|COPY_FREE_VARS|MAKE_CELL|END_.*"
)
"""Instructions that raise nothing of their own."""


class Tracer:
    """What is being noted or broken at the moment."""

    def __init__(self) -> None:
        self.mode = ""
        self.point = ""
        self.error: type[Exception] = RuntimeError
        self.sticky = False
        self.struck = 0
        self.sent = False
        self.where: dict[str, Any] = {}
        self.counts: Counter[str] = Counter()
        self.noted: list[tuple[str, str, str]] = []
        self.names: dict[CodeType, str] = {}
        self.watched: dict[CodeType, int] = {}
        self.risky: dict[CodeType, frozenset[int]] = {}
        self.main = threading.get_ident()

    def install(self) -> None:
        events = sys.monitoring.events
        sys.monitoring.use_tool_id(TOOL, "faults")
        sys.monitoring.register_callback(TOOL, events.CALL, self._on_call)
        sys.monitoring.register_callback(TOOL, events.LINE, self._on_line)
        sys.monitoring.register_callback(TOOL, events.PY_RETURN, self._on_sent)
        for code in set(_codes()):
            self.risky[code] = _risky(code)
            self.names[code] = f"{Path(code.co_filename).relative_to(PACKAGE)}:{code.co_qualname}"

    def watch(self, function: str | None) -> None:
        """Be told of every call and line of one function, by its name; of all where that is empty, of none
        where there is none. To be told takes several times as long as the request itself.
        """
        events = sys.monitoring.events
        wanted = {}
        for code, name in self.names.items():
            if function is not None and function in ("", name):
                wanted[code] = events.CALL | events.LINE
            if function is not None and code.co_qualname == SENDING:
                wanted[code] = wanted.get(code, 0) | events.PY_RETURN
        for code in {*self.watched, *wanted}:
            if self.watched.get(code) != wanted.get(code):
                sys.monitoring.set_local_events(TOOL, code, wanted.get(code, 0))
        self.watched = wanted

    def _on_call(self, code: CodeType, offset: int, called: Any, _: object) -> None:
        if self.mode and self._is_request():
            self._meet(f"{self.names[code]}:{offset}", called)

    def _on_line(self, code: CodeType, line: int) -> None:
        if line not in self.risky[code]:
            return
        if self.mode and self._is_request():
            self._meet(f"{self.names[code]}:line {line}", None)

    def _on_sent(self, *_: Any) -> None:
        if self.mode and self._is_request():
            self.sent = True

    def _is_request(self) -> bool:
        if threading.get_ident() != self.main:
            return False
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return True
        return task is None or task.get_coro().__qualname__ != "Deadlines._run"

    def _meet(self, place: str, called: Any) -> None:
        self.counts[place] += 1
        point = f"{place}#{self.counts[place]}"
        if self.mode == "trace":
            self.noted.append((point, _named(called), _decisive()))
        elif point == self.point or (self.sticky and self.struck):
            if not self.struck:
                self.where = {"sent": self.sent, "decisive": _decisive()}
            self.struck += 1
            raise self.error(f"{TEXT} ({point})")

    # -- by order of the test --------------------------------------------------------------------------

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        idle = _wait_for_idle()
        if order["do"] == "stop":
            self.mode = ""
            self.watch(None)
            return {"idle": idle, "points": self.noted, "struck": self.struck, **self.where}
        self.counts.clear()
        self.noted, self.struck, self.sent, self.where = [], 0, False, {}
        self.point = order.get("point", "")
        self.error = ERRORS[order.get("error", "RuntimeError")]
        self.sticky = order.get("sticky", False)
        # Behind the first fault of several, each may be the next.
        self.watch("" if order["do"] == "trace" or self.sticky else self.point.rpartition(":")[0])
        self.mode = order["do"]
        return {"idle": idle}


def _codes() -> Iterator[CodeType]:
    for found in gc.get_objects():
        if not isinstance(found, FunctionType) or found.__code__.co_filename == SHORTCUTS:
            continue
        if found.__code__.co_filename.startswith(PACKAGE):
            yield from _nested(found.__code__)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _risky(code: CodeType) -> frozenset[int]:
    """The lines that hold an instruction that may raise: not `try:`, nor a test or an assignment of what is
    local or constant.
    """
    found = set()
    for one in dis.get_instructions(code):
        if one.positions is not None and one.positions.lineno and not HARMLESS.fullmatch(one.opname):
            found.add(one.positions.lineno)
    return frozenset(found)


def _named(called: Any) -> str:
    return str(getattr(called, "__qualname__", None) or type(called).__name__)


def _decisive() -> str:
    """The innermost decisive function that is being run; empty where none is."""
    frame: FrameType | None = sys._getframe(3)
    while frame is not None:
        if frame.f_code.co_qualname in DECISIVE and frame.f_code.co_filename.startswith(PACKAGE):
            return frame.f_code.co_qualname
        frame = frame.f_back
    return ""


def _wait_for_idle() -> bool:
    deadline = time.monotonic() + PATIENCE
    while ctx.master.addons.get("proxyserver").connections:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def _serve(listener: socket.socket) -> None:
    while True:
        with listener.accept()[0] as peer, peer.makefile("rw", encoding="utf-8") as lines:
            for line in lines:
                lines.write(json.dumps(TRACER.obey(json.loads(line))) + "\n")
                lines.flush()


TRACER = Tracer()
TRACER.install()
_listener = socket.socket(socket.AF_UNIX)
_listener.bind(os.environ["TRACE_SOCKET"] + ".draft")
_listener.listen()
Path(os.environ["TRACE_SOCKET"] + ".draft").rename(os.environ["TRACE_SOCKET"])
threading.Thread(target=_serve, args=(_listener,), daemon=True).start()
