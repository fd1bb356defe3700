"""The list of what is under way in all workers. They are asked when somebody asks the admin listener."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..observe.under_way import Listing, joined
from .channel import Message
from .worker_process import WorkerProcess

_PATIENCE: Final = 2.0
"""Seconds for the answers of all workers. One that hangs is left out."""


class Inventory:
    """Asks the workers for their lists."""

    def __init__(self, workers: Callable[[], Sequence[WorkerProcess]]) -> None:
        """Args: workers: those that may have something under way."""
        self._workers = workers
        self._asked: dict[WorkerProcess, asyncio.Future[Any]] = {}

    async def listing(self) -> Listing:
        """Return the list of all workers. It is asked for by one client at a time."""
        loop = asyncio.get_running_loop()
        self._asked = {one: loop.create_future() for one in self._workers()}
        for one in self._asked:
            one.channel.send({"do": "list"})
        done = (await asyncio.wait(self._asked.values(), timeout=_PATIENCE))[0] if self._asked else set()
        self._asked = {}
        return joined(found for one in done if (found := one.result()))

    def take(self, worker: WorkerProcess, message: Message) -> None:
        """Take a worker's answer; an empty one if it has ended."""
        answer = self._asked.get(worker)
        if answer is not None and not answer.done():
            answer.set_result(message.get("list"))
