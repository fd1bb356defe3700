"""The supervisor, which keeps the requested number of workers serving and one more in reserve.

The supervisor holds the sockets and nothing else: no configuration, no secret, no mitmproxy. A spare worker
has read everything and accepts nothing. It replaces a dead worker within milliseconds, even while the
configuration on the disk is broken, because it read the configuration when that was valid.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Iterator
from typing import Final

from ..observe.admin_server import PORT_PATIENCE
from . import listeners, orphans
from .admin import Overseer
from .capacity import RoomTable
from .channel import Message
from .pace import Pace
from .plan import Plan
from .systemd import Notifier
from .worker_process import WorkerProcess

logger = logging.getLogger(__name__)

TICK: Final = 0.5
STARTING: Final = 120.0
"""Seconds in which a new worker must read everything."""
SILENCE: Final = 20.0
"""Seconds without a report after which a worker is killed; it reports every second."""
MUTE: Final = 2.5
"""Seconds without a report after which a worker does not count as ready: two reports are missing."""
GRACE: Final = 3.0
"""Seconds after the deadline of a drain in which workers end by themselves."""
_STALLED: Final = 5.0
"""Seconds without a turn of the supervisor's loop after which the age of reports says nothing."""


class Supervisor:
    """The supervisor of one `presign serve`."""

    def __init__(self, plan: Plan, sockets: list[socket.socket], notifier: Notifier) -> None:
        self._plan = plan
        self._sockets = sockets
        self._notifier = notifier
        self._workers: list[WorkerProcess] = []
        self._table = RoomTable()
        serving, at_work = (lambda: len(self._of("serving"))), (lambda: self._of("serving", "draining"))
        self._overseer = Overseer(self.ready, serving, at_work, plan.workers)
        self._changed = asyncio.Event()
        self._stopping: float | None = None
        self._leaving = False
        self._ended_by: int | None = None
        self._served = False
        self._admin_wanted = 0.0
        self.failed: list[str] = []
        """Why no worker ever served."""
        self._pace = Pace(plan.workers)
        self._last = time.monotonic()
        self._reloading: list[WorkerProcess] = []

    # -- state for other objects ------------------------------------------------------------------------

    def ready(self) -> tuple[bool, str]:
        """Return whether the gateway should get requests, and why not."""
        if self._leaving:
            return False, "draining"
        now = time.monotonic()
        serving = self._of("serving")
        # The last report of a worker that hangs or is stopped says nothing about the present.
        mute = [one for one in serving if now - one.reported_at > MUTE]
        reports = [one.said.get("ready") or (False, "starting") for one in serving if one not in mute]
        late = [f"worker {one.pid} has not reported for {now - one.reported_at:.0f} s" for one in mute]
        good = [why for is_ready, why in reports if is_ready]
        if not good:
            return False, ", ".join(late) or (reports[0][1] if reports else "starting")
        return True, ", ".join([*[why for why in good if why != "serving"][:1], *late]) or "serving"

    def reports(self) -> Iterator[tuple[int, Message]]:
        """Yield the last report of each worker that serves or drains, with its process id."""
        yield from ((one.pid, one.said) for one in self._of("serving", "draining"))

    # -- from start to end ------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until a signal stops the gateway. Return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        try:
            while not self._is_over():
                await self._tend()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), self._pause())
                self._changed.clear()
        finally:
            await self._end_all()
        if self.failed:
            return 1
        return 0 if self._ended_by is None else 128 + self._ended_by

    def _is_over(self) -> bool:
        if self.failed or self._ended_by is not None:
            return True
        return self._stopping is not None and not self._workers

    def _pause(self) -> float:
        return max(0.01, min(TICK, self._pace.pause(time.monotonic()))) if self._must_wait() else TICK

    def _must_wait(self) -> bool:
        return self._pace.pause(time.monotonic()) > 0

    # -- workers ----------------------------------------------------------------------------------------

    def _of(self, *stages: str) -> list[WorkerProcess]:
        return [one for one in self._workers if one.stage in stages]

    async def _tend(self) -> None:
        """Do what is due: end silent workers, call spares, start new workers."""
        now = time.monotonic()
        if now - self._last > _STALLED:
            # This process, or the machine, was stopped for a while: reports have arrived, but were not read.
            for one in self._workers:
                one.reported_at = now
        self._last = now
        orphans.reap([one.pid for one in self._workers])
        self._end_the_silent(now)
        if self._stopping is not None:
            if now > self._stopping:
                for one in self._workers:
                    one.kill("did not end in time")
            return
        if not self._served and self._overseer.trouble:
            self._wait_for_admin(now)
            return
        missing = self._plan.workers - len(self._of("called", "serving"))
        for spare in self._of("spare")[: max(0, missing)]:
            spare.call()
        # The first worker creates what the others find: the certificate authority, the store.
        wanted = self._plan.workers + 1 if self._served else 1
        # Stop after a failure: the loop would retry for ever, and handle no signal.
        while not self.failed and self._count_of_live() < wanted and not self._must_wait():
            await self._start_one()

    def _wait_for_admin(self, now: float) -> None:
        """Wait for the admin listener's port, which the last gateway has until its drain ends."""
        patience = self._plan.notice + self._plan.drain + PORT_PATIENCE
        if not self._admin_wanted:
            logger.info("a gateway that drains has this port until it ends: waiting up to %.0f s", patience)
        self._admin_wanted = self._admin_wanted or now
        if now - self._admin_wanted > patience:
            self.failed = [f"{self._overseer.trouble}: end the gateway that has it, or name another port"]

    def _count_of_live(self) -> int:
        return len(self._of("starting", "spare", "called", "serving"))

    async def _start_one(self) -> None:
        hello = {"do": "start", "plan": self._plan.as_message() | {"again": self._served}}
        try:
            worker = await WorkerProcess.start(hello, self._sockets, self._table, self._on_message)
        except OSError as error:
            self._lost(f"a worker cannot be started: {(error.strerror or 'it failed').lower()}", [])
            return
        self._workers.append(worker)
        if self._stopping is not None:
            worker.kill()  # the stop signal came while it was being started

    def _end_the_silent(self, now: float) -> None:
        for one in self._of("starting"):
            if now - one.since > STARTING:
                one.kill(f"did not start within {STARTING:.0f} s")
        for one in self._of("spare", "called", "serving", "draining"):
            if now - one.reported_at > SILENCE:
                one.kill(f"did not report for {SILENCE:.0f} s and was ended")

    def _on_message(self, worker: WorkerProcess, message: Message) -> None:
        """Handle a message of a worker. An empty message means that it has ended."""
        self._changed.set()
        said = message.get("is")
        if not message:
            self._has_ended(worker)
        elif said == "failed":
            worker.failure = [str(line) for line in message.get("why", ())]
        elif said == "loaded" and worker.stage == "starting":
            worker.enter("spare")
            if self._served:
                logger.info("worker %d is in reserve", worker.pid)
            else:
                self._overseer.listen(message.get("admin"))
                for line in message.get("warnings", ()):
                    logger.warning("%s", line)
        elif said == "serving" and worker.stage == "called":
            self._serves(worker)
        elif said == "draining" and worker.stage == "serving":
            worker.enter("draining")  # somebody sent it SIGTERM; it will be replaced
        elif said == "reloaded":
            self._reloaded(worker)
        elif said == "list":
            self._overseer.take_list(worker, message)
        elif said == "report":
            worker.said = message
            self._overseer.take_report(worker, message)

    def _serves(self, worker: WorkerProcess) -> None:
        worker.enter("serving")
        logger.info("worker %d serves", worker.pid)
        if not self._served:
            self._served = True
            where = " and ".join(listeners.addresses_of(self._sockets))
            logger.info("listening on %s with %d worker(s)", where, self._plan.workers)
            self._notifier.ready(f"listening on {where}")

    def _has_ended(self, worker: WorkerProcess) -> None:
        self._workers.remove(worker)
        self._table.give_back(worker.row)
        self._overseer.lost(worker)
        self._reloaded(worker)
        if self._stopping is not None:
            if worker.killed_for and worker.killed_for != "was not needed":
                logger.warning("worker %d %s", worker.pid, worker.killed_for)
        elif worker.has_drained:
            logger.info("worker %d has drained and ended", worker.pid)
        else:
            self._lost(f"worker {worker.pid} {worker.how_it_ended()}", worker.failure)

    def _lost(self, what: str, why: list[str]) -> None:
        """Schedule the replacement of a lost worker: at once, or later if its predecessors died too."""
        if not self._served:
            self.failed = self.failed or why or [f"{what} before it could serve"]
            return
        now = time.monotonic()
        self._pace.lost(now, some_serve=bool(self._of("called", "serving")))
        pause = self._pace.pause(now)
        again = f"another starts in {pause:.1f} s" if pause else "another takes its place"
        logger.error("%s; %s", what, again)
        for line in why:
            logger.error("%s", line)

    # -- signals ----------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Have every worker read the configuration again."""
        if self._leaving:
            return
        self._pace.reset()  # its cause may have been removed
        self._notifier.reloading()
        self._reloading = self._of("spare", "called", "serving")
        for one in self._workers:
            one.channel.send({"do": "reload"})
        if not self._reloading:
            self._notifier.ready("reloaded")

    def _reloaded(self, worker: WorkerProcess) -> None:
        if worker in self._reloading:
            self._reloading.remove(worker)
            if not self._reloading:
                self._notifier.ready(self.ready()[1])

    def _stop(self, number: int) -> None:
        """Drain at the first signal, after the notice. End at once at the second."""
        self._changed.set()
        if self._leaving:
            self._ended_by = number
            return
        self._leaving = True
        self._notifier.stopping()
        if self._plan.notice and self._served:
            logger.info("no longer ready: serving for another %.0f s", self._plan.notice)
            asyncio.get_running_loop().call_later(self._plan.notice, self._drain)
        else:
            self._drain()

    def _drain(self) -> None:
        """Begin the drain. Balancers have had the time of the notice to stop sending clients here."""
        self._changed.set()
        self._stopping = time.monotonic() + self._plan.drain + GRACE
        logger.info("draining: requests under way have %.0f s", self._plan.drain)
        listeners.close(self._sockets)
        for one in self._workers:
            if one.stage in ("called", "serving"):
                one.drain()
            elif one.stage != "draining":
                one.kill("was not needed")

    async def _end_all(self) -> None:
        self._overseer.close()
        listeners.close(self._sockets)
        for one in self._workers:
            one.kill("was not needed")
        ends = time.monotonic() + GRACE
        while self._workers and time.monotonic() < ends:  # noqa: ASYNC110 - it lasts GRACE at most
            await asyncio.sleep(0.01)
        if not self._workers:
            self._table.close()
