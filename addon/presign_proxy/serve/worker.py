"""One worker: it reads everything, waits as a spare, serves, drains and ends, as its supervisor orders."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, Final

from mitmproxy import exceptions

from ..config.descriptors import limit_of_serve, shortage
from . import listeners
from .capacity import Room
from .channel import Channel, Message
from .drain import Drain
from .log import open_log
from .master import GatewayMaster
from .plan import Plan

logger = logging.getLogger(__name__)

EVERY: Final = 1.0
"""Seconds between reports."""
_LAST_WORDS: Final = 2.0


class _Findings(logging.Handler):
    """Errors and warnings logged during reading. mitmproxy only logs that an addon fails to load."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        lines = self.errors if record.levelno >= logging.ERROR else self.warnings
        lines += [line.removeprefix("presign: ") for line in record.getMessage().splitlines()]


class Worker:
    """A worker that follows the orders from its channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._plan = Plan("", "", 1, 0)
        self._sockets: list[socket.socket] = []
        self._room: Room | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._reloading: asyncio.Task[Any] | None = None

    async def run(self) -> int:
        """Run the worker. Return the exit code."""
        hello = await self._channel.receive()
        if hello is None:
            return 1
        self._plan = Plan(**hello["plan"])
        open_log(f"worker {os.getpid()}", as_json=self._plan.as_json)
        self._sockets = [socket.socket(fileno=one) for one in hello["sockets"]]
        self._install_signal_handlers()
        found = self._load()
        if found.errors:
            self._channel.send({"is": "failed", "why": found.errors})
            await self._channel.sent()
            return 1
        found.warnings += self._shortage()
        _freeze()
        self._room = Room(hello["room"], hello["row"], self._master.clients)
        self._do(self._report())
        running = self._do(self._master.run())
        admin = self._master.guard.gateway.live_config.admin_address
        self._channel.send({"is": "loaded", "warnings": found.warnings, "admin": admin})
        orders = self._do(self._follow_orders())
        await asyncio.wait({running, orders}, return_when=asyncio.FIRST_COMPLETED)
        self._accept_no_more()
        self._master.shutdown()
        await asyncio.wait({running}, timeout=_LAST_WORDS)
        if running.done():
            running.result()
        return 0

    def _load(self) -> _Findings:
        """Read everything. Return the errors and warnings, which the supervisor logs once."""
        found, root = _Findings(), logging.getLogger()
        others, root.handlers = root.handlers, [found]
        try:
            self._master = GatewayMaster(self._plan)
            self._master.load(self._plan)
        except OSError as error:
            found.errors.append(self._failed(error))
        except (exceptions.OptionsError, ValueError) as error:
            found.errors += str(error).splitlines()
        finally:
            root.removeHandler(found)
            root.handlers += others
        return found

    def _shortage(self) -> list[str]:
        """That there are too few descriptors, before the night in which that is noticed."""
        loaded = self._master.guard.gateway.live_config.loaded
        few = shortage(loaded.config.gateway.max_clients, limit_of_serve()) if loaded else ""
        return [few] if few else []

    def _failed(self, error: OSError) -> str:
        name, confdir = str(error.filename), self._plan.confdir
        text = f"{name}: {(error.strerror or 'failed').lower()}"
        # By default, confdir is in the home directory, which a service may not have.
        if confdir.startswith(name) or name.startswith(confdir):
            return f"{text}; name another directory with --confdir DIR"
        return text

    async def _follow_orders(self) -> None:
        """Follow orders until the supervisor has gone, or the worker cannot serve."""
        while (order := await self._channel.receive()) is not None:
            what = order.get("do")
            if what == "serve" and not self._draining:
                if not await self._serve():
                    return
            elif what == "reload":
                self._order_reload()
            elif what == "drain":
                self._drain()
            elif what == "list":
                self._channel.send({"is": "list", "list": self._master.guard.gateway.status.under_way()})

    async def _serve(self) -> bool:
        """Start serving. Return whether it worked: two gateways may bind one port, only one can listen."""
        if self._room is None:
            return False  # nothing has been read yet
        try:
            await self._master.server.serve(self._sockets, self._room)
        except OSError as error:
            why = listeners.reason(self._sockets[0].getsockname(), error)
            self._channel.send({"is": "failed", "why": [why]})
            await self._channel.sent()
            return False
        self._channel.send({"is": "serving"})
        return True

    def _order_reload(self) -> None:
        """Read the configuration again. One answer is given for all orders that come until then.

        Each answer that is waited for costs time again and again, and a program may send signals in a loop.
        """
        if self._reloading is None or self._reloading.done():
            self._reloading = self._do(self._reload())
        else:
            self._master.guard.gateway.request_reload()

    async def _reload(self) -> None:
        good, why = await self._master.guard.gateway.reloaded()
        self._channel.send({"is": "reloaded", "good": good, "why": why})

    def _drain(self) -> None:
        if not self._draining:
            self._draining = True
            self._channel.send({"is": "draining"})
            self._do(self._drain_and_end())

    async def _drain_and_end(self) -> None:
        self._accept_no_more()
        lost = await Drain(self._master.guard, self._master.server).run(self._plan.drain)
        if lost:
            logger.warning("the deadline cut off %d connection(s)", lost)
        self._master.shutdown()

    def _accept_no_more(self) -> None:
        if self._room is not None:
            self._room.close()
        self._master.server.stop_accepting()
        listeners.close(self._sockets)

    async def _report(self) -> None:
        while True:
            self._channel.send({"is": "report", **self._state()})
            await asyncio.sleep(EVERY)

    def _state(self) -> Message:
        """Return the state of this worker, for the supervisor's admin listener."""
        if self._room is not None and self._master.server.acceptors():
            self._room.tell()  # a new configuration may have raised max_clients
        return {
            "ready": self._master.guard.gateway.status.readiness(),
            "connections": len(self._master.server.connections),
            "figures": self._master.guard.gateway.status.figures(),
            "admin": self._master.guard.gateway.live_config.admin_address,
        }

    def _do(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _install_signal_handlers(self) -> None:
        """Handle signals: SIGTERM drains. Ctrl-C reaches the whole group, and the supervisor handles it."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, self._drain)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # until the guard handles it as a reload
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP, signal.SIGTERM})


def _freeze() -> None:
    """Exempt everything that was read from garbage collection.

    Young objects are collected less often than Python does by default; old ones are not. Each client leaves
    fifty objects that refer to each other, and they are old when it goes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 2, 4)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop if it is installed (the extra `uvloop`), else None for Python's own."""
    with contextlib.suppress(ImportError):
        import uvloop

        found: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return found
    return None


async def _work(channel: int) -> int:
    return await Worker(await Channel.over(socket.socket(fileno=channel))).run()


def main(channel: int) -> None:
    """Run a worker, then exit.

    Args:
        channel: the descriptor of one end of a socket pair.
    """
    code = 1
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            code = runner.run(_work(channel))
        except Exception as error:
            logger.exception("presign: failed (%s)", type(error).__name__)
        finally:
            # Exit without joining threads: they may wait for a program that prints a secret, or for a name.
            logging.shutdown()
            os._exit(code)
