"""The supervisor: workers that die, say nothing, never start or do not end; what is told to whom."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from presign_proxy.serve import supervisor, worker_process
from presign_proxy.serve.capacity import RoomTable
from presign_proxy.serve.channel import Channel
from presign_proxy.serve.plan import Plan
from presign_proxy.serve.supervisor import Supervisor
from presign_proxy.serve.systemd import Notifier
from presign_proxy.serve.worker_process import WorkerProcess
from support.descriptors import descriptors
from support.places import TESTS

WORKER = TESTS / "support" / "scripts" / "worker.py"
READY = {"is": "report", "ready": [True, "serving"]}
GOOD = {
    "start": [{"is": "loaded"}],
    "serve": [{"is": "serving"}, READY],
    "drain": [{"is": "draining"}, "end 0"],
    "reload": [{"is": "reloaded"}],
}


# -- one worker ---------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are processes, and start at once."""
    assert worker_process._MAIN.name == "__main__.py"
    monkeypatch.setattr(worker_process, "_MAIN", WORKER)


@pytest.fixture
def orders(tmp_path: Path) -> Callable[..., Path]:
    def give(**changes: Any) -> Path:
        path = tmp_path / "orders.json"
        path.write_text(json.dumps(GOOD | changes))
        return path

    return give


def log_of(path: Path) -> list[dict[str, Any]]:
    log = path.with_name(path.name + ".log")
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def plan(path: Path | str, workers: int = 1, **more: Any) -> Plan:
    return Plan(**{"config": str(path), "confdir": "c", "workers": workers, "drain": 5.0, **more})


@contextlib.contextmanager
def listener() -> Iterator[socket.socket]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one


async def until(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - other processes bring it about
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def started(path: Path) -> AsyncIterator[tuple[WorkerProcess, list[dict[str, Any]], int]]:
    said: list[dict[str, Any]] = []
    with listener() as sock:
        hello = {"do": "start", "plan": plan(path).as_message()}
        table = RoomTable()
        worker = await WorkerProcess.start(hello, [sock], table, lambda _, message: said.append(message))
        try:
            yield worker, said, sock.getsockname()[1]
        finally:
            worker.kill()
            await until(lambda: worker.stage == "gone")
            table.close()


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_a_worker_inherits_the_sockets_and_nothing_else(orders: Callable[..., Path]) -> None:
    async def work() -> None:
        path = orders()
        async with started(path) as (worker, said, port):
            await until(lambda: said)
            assert worker.stage == "starting"
            (told,) = log_of(path)
            assert told["ports"] == [port]
            assert told["pid"] == worker.pid
            assert told["supervisor"] == str(os.getpid())
            assert told["stdin"] is True
            assert told["flags"][0] is True, "-P: no module is looked for in the working directory"
            assert said == [{"is": "loaded"}]

    run(work)


def test_a_signal_that_comes_before_a_worker_knows_what_to_do_waits(orders: Callable[..., Path]) -> None:
    async def work() -> None:
        path = orders()
        async with started(path) as (_, said, _):
            await until(lambda: said)
            (told,) = log_of(path)
            assert set(told["held"]) == {signal.SIGINT, signal.SIGHUP, signal.SIGTERM}

    run(work)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set(), "and is heard by the supervisor"


def test_a_worker_is_called_drained_and_gone(orders: Callable[..., Path]) -> None:
    async def work() -> None:
        path = orders()
        async with started(path) as (worker, said, _):
            await until(lambda: said)
            before = worker.reported_at
            worker.call()
            assert worker.stage == "called"
            await until(lambda: len(said) == 3)
            assert worker.reported_at > before
            worker.drain()
            assert worker.stage == "draining"
            await until(lambda: said[-1] == {})
            assert worker.stage == "gone"
            assert worker.has_drained
            assert worker.how_it_ended() == "ended with exit code 0"
            assert [one.get("do") for one in log_of(path)[1:]] == ["serve", "drain"]
            assert not worker.channel._writer.transport.get_extra_info("socket") or (
                worker.channel._writer.is_closing()
            )

    before = len(descriptors())
    run(work)
    assert len(descriptors()) == before


@pytest.mark.parametrize(
    ("start", "ended"),
    [(["end 3"], "ended with exit code 3"), (["end 0"], "ended with exit code 0")],
)
def test_a_worker_that_ends_by_itself_has_not_drained(
    start: list[str], ended: str, orders: Callable[..., Path]
) -> None:
    async def work() -> None:
        async with started(orders(start=start)) as (worker, said, _):
            await until(lambda: said)
            assert said == [{}]
            assert worker.how_it_ended() == ended
            assert not worker.has_drained

    run(work)


@pytest.mark.parametrize(("code", "has_drained"), [("end 1", False), ("end 0", True)])
def test_a_drain_that_fails_is_no_drain(code: str, has_drained: bool, orders: Callable[..., Path]) -> None:
    async def work() -> None:
        async with started(orders(drain=[code])) as (worker, said, _):
            await until(lambda: said)
            worker.drain()
            await until(lambda: said[-1] == {})
            assert worker.has_drained is has_drained

    run(work)


def test_a_worker_that_was_killed_says_what_for_or_by_what(orders: Callable[..., Path]) -> None:
    async def work() -> None:
        for why, ended in (("was slow", "was slow"), ("", "was ended by SIGKILL")):
            async with started(orders()) as (worker, said, _):
                await until(lambda said=said: said)
                worker.kill(why)
                worker.kill("later")
                await until(lambda said=said: said[-1] == {})
                assert worker.how_it_ended() == (ended if why else "later")
                worker.killed_for = ""
                assert worker.how_it_ended() == "was ended by SIGKILL"
                worker.kill()

    run(work)


def test_a_worker_that_hangs_up_and_does_not_end_is_ended(
    orders: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worker_process._LAST_WORDS == 3.0
    monkeypatch.setattr(worker_process, "_LAST_WORDS", 0.1)

    async def work() -> None:
        async with started(orders(start=["hang up", "hang"])) as (worker, said, _):
            await until(lambda: said)
            assert worker.how_it_ended() == "was ended by SIGKILL"

    run(work)


def test_a_worker_is_as_optimised_as_its_supervisor(
    orders: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under -O no assertion is run; a worker with others than its supervisor would be another program."""
    here = SimpleNamespace(flags=SimpleNamespace(optimize=2), executable=worker_process.sys.executable)
    monkeypatch.setattr(worker_process, "sys", here)

    async def work() -> None:
        path = orders()
        async with started(path) as (_, said, _):
            await until(lambda: said)
            assert log_of(path)[0]["flags"] == [True, 2]

    run(work)


def test_a_worker_that_was_killed_while_it_drained_has_not_drained(orders: Callable[..., Path]) -> None:
    async def work() -> None:
        async with started(orders()) as (worker, said, _):
            await until(lambda: said)
            worker.killed_for = "did not end in time"
            worker.drain()
            await until(lambda: said[-1] == {})
            assert not worker.has_drained

    run(work)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (None, "ended with exit code None"),
        (0, "ended with exit code 0"),
        (1, "ended with exit code 1"),
        (-1, "was ended by SIGHUP"),
        (-15, "was ended by SIGTERM"),
        (-99, "ended with exit code -99"),
    ],
)
def test_how_a_worker_ended_is_told_in_words(code: int | None, told: str) -> None:
    child = Child(7)
    child.returncode = code
    worker = WorkerProcess(child, Wire(), 0)  # type: ignore[arg-type]
    assert worker.how_it_ended() == told
    assert not worker.has_drained
    worker.kill()
    assert child.kills == (code is None), "its number may be somebody else's"


def test_a_worker_that_cannot_be_started_leaves_nothing_open(
    orders: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    pairs: list[socket.socket] = []

    def pair() -> Any:
        pairs.extend(made := socketpair())
        return made

    socketpair = socket.socketpair

    async def work() -> None:
        path, table = orders(), RoomTable()
        monkeypatch.setattr(worker_process.socket, "socketpair", pair)
        async with started(path):
            assert pairs[1].fileno() == -1, "the worker's end is the worker's alone, or its end were not seen"
        monkeypatch.setattr(worker_process.subprocess, "Popen", fail)
        with pytest.raises(PermissionError):
            await WorkerProcess.start({"plan": plan(path).as_message()}, [], table, lambda *_: None)
        assert table.take() == 0, "its row is another one's"
        assert [one.fileno() for one in pairs[2:]] == [-1, -1]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()

    run(work)


# -- the channel --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def channels() -> AsyncIterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    found = await Channel.over(ours)
    try:
        yield found, theirs
    finally:
        found.close()
        theirs.close()


@pytest.mark.parametrize("end", [b"", b'{"a":', b"junk\n", b"[1]\n", b"7\n", b'{"a":2}'])
def test_a_channel_ends_with_the_other_side_and_with_nonsense(end: bytes) -> None:
    async def work() -> None:
        async with channels() as (channel, theirs):
            theirs.sendall(b'{"a": 1}\n' + end)
            theirs.shutdown(socket.SHUT_WR)
            assert await channel.receive() == {"a": 1}
            assert await channel.receive() is None

    run(work)


def test_messages_of_any_size_arrive_whole_and_in_order() -> None:
    async def work() -> None:
        async with channels() as (channel, theirs):
            other = await Channel.over(theirs.dup())
            sizes = [5, 1_000_000, 0, 12_000_000, 1]
            for size in sizes:
                other.send({"a": "x" * size})
            for size in sizes:
                assert await asyncio.wait_for(channel.receive(), 10) == {"a": "x" * size}
            other.close()

    run(work)


def test_what_was_sent_by_one_that_ends_at_once_arrives() -> None:
    async def work() -> None:
        async with channels() as (channel, theirs):
            other = await Channel.over(theirs.dup())
            other.send({"why": ["x" * 3_000_000]})
            receiving = asyncio.ensure_future(channel.receive())
            await asyncio.wait_for(other.sent(), 10)
            other._writer.transport.abort()
            assert await asyncio.wait_for(receiving, 10) == {"why": ["x" * 3_000_000]}
            await asyncio.wait_for(other.sent(), 10)

    run(work)


def test_what_is_sent_to_nobody_fails_nowhere() -> None:
    async def work() -> None:
        async with channels() as (channel, theirs):
            channel.send({"do": "serve"})
            await asyncio.sleep(0.01)
            assert theirs.recv(100) == b'{"do": "serve"}\n'
            theirs.close()
            for _ in range(5):
                channel.send({"do": "drain"})
                await asyncio.sleep(0)
            channel.close()
            channel.close()
            channel.send({"do": "drain"})

    run(work)


# -- the state of all ---------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Child:
    """A process as `Popen` sees it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.kills = 0

    def kill(self) -> None:
        self.kills += 1

    def poll(self) -> int | None:
        return self.returncode


class Wire:
    """A channel whose other end is the test."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message["do"])


class Told(Notifier):
    """What a service manager hears, in the words that go over the socket."""

    def __init__(self) -> None:
        super().__init__("nowhere")
        self.heard: list[str] = []

    def _tell(self, *lines: str) -> None:
        self.heard.append(" ".join(line for line in lines if not line.startswith(("MAINPID", "MONO"))))


class Team:
    """A supervisor whose workers start when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, workers: int = 2, **more: Any) -> None:
        self.clock = Clock()
        # Not that of the event loop, which would wait for ever.
        for module in (supervisor, worker_process):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=self.clock))
        self.notifier = Told()
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.it = Supervisor(plan("x", workers, **more), [self.sock], self.notifier)
        self.started: list[WorkerProcess] = []
        self.hellos: list[dict[str, Any]] = []
        self.fails: OSError | None = None
        monkeypatch.setattr(WorkerProcess, "start", self._start)

    async def _start(self, hello: dict[str, Any], sockets: Any, table: Any, told: Any) -> WorkerProcess:
        if self.fails is not None:
            raise self.fails
        self.hellos.append(hello)
        assert sockets == [self.sock]
        assert told == self.it._on_message
        child: Any = Child(100 + len(self.started))
        self.started.append(WorkerProcess(child, Wire(), table.take()))  # type: ignore[arg-type]
        return self.started[-1]

    async def tend(self, seconds: float = 0.0) -> None:
        for _ in range(int(seconds)):
            self.clock.now += 1.0
            for one in self.started:
                one.reported_at = self.clock.now
            await self.it._tend()
        if not seconds:
            await self.it._tend()

    def says(self, at: int, what: str = "", **more: Any) -> None:
        self.started[at].reported_at = self.clock.now
        self.it._on_message(self.started[at], {"is": what, **more} if what else {})

    def dies(self, at: int, code: int = 1) -> None:
        one = self.started[at]
        one._child.returncode = code
        one.has_drained = one.stage == "draining" and code == 0 and not one.killed_for
        one.enter("gone")
        self.says(at)

    @property
    def stages(self) -> list[str]:
        return [one.stage for one in self.started]

    async def serve(self) -> None:
        """Until all serve and one is in reserve."""
        for _ in range(2 + self.it._plan.workers):
            await self.tend()
            for at, stage in enumerate(self.stages):
                if stage == "starting":
                    self.says(at, "loaded")
            await self.tend()
            for at, stage in enumerate(self.stages):
                if stage == "called":
                    self.says(at, "serving")
                    self.says(at, "report", ready=[True, "serving"])


@pytest.fixture
def make_team(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Team]]:
    made: list[Team] = []

    def make(workers: int = 2, **more: Any) -> Team:
        made.append(Team(monkeypatch, workers, **more))
        return made[-1]

    yield make
    for team in made:
        team.it._overseer.close()
        team.sock.close()


def words(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_one_worker_starts_alone_and_then_all_and_one_in_reserve(
    make_team: Callable[..., Team], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def work() -> None:
        team = make_team()
        await team.tend()
        assert team.stages == ["starting"]
        assert team.hellos == [{"do": "start", "plan": team.it._plan.as_message()}]
        await team.tend()
        assert team.stages == ["starting"], "the first makes what the others find"
        assert team.it.ready() == (False, "starting")
        team.says(0, "loaded", warnings=["beware"])
        await team.tend()
        assert team.stages == ["called"]
        assert team.started[0].channel.sent == ["serve"]  # type: ignore[attr-defined]
        assert team.notifier.heard == []
        team.says(0, "serving")
        where = f"listening on 127.0.0.1:{team.sock.getsockname()[1]}"
        assert team.notifier.heard == [f"READY=1 STATUS={where}"]
        await team.tend()
        assert team.stages == ["serving", "starting", "starting"]
        team.says(1, "loaded")
        team.says(2, "loaded")
        await team.tend()
        assert team.stages == ["serving", "called", "spare"]
        team.says(1, "serving")
        await team.tend()
        assert team.stages == ["serving", "serving", "spare"]
        assert len(team.notifier.heard) == 1
        assert list(team.it.reports()) == [(100, {}), (101, {})]

    run(work)
    assert words(caplog)[:3] == [
        "beware",
        "worker 100 serves",
        words(caplog)[2],
    ]
    assert words(caplog)[2].endswith("with 2 worker(s)")
    assert "worker 102 is in reserve" in words(caplog)


def test_the_gateway_is_as_ready_as_its_best_worker(make_team: Callable[..., Team]) -> None:
    async def work() -> None:
        team = make_team()
        await team.serve()
        assert team.it.ready() == (True, "serving")
        team.says(0, "report", ready=[False, "the store is down"])
        assert team.it.ready() == (True, "serving")
        team.says(1, "report", ready=[True, "stale configuration"])
        assert team.it.ready() == (True, "stale configuration")
        team.says(0, "report", ready=[True, "serving"])
        assert team.it.ready() == (True, "stale configuration")
        team.says(0, "report", ready=[False, "the store is down"])
        team.says(1, "report", ready=[False, "starting"])
        assert team.it.ready() == (False, "the store is down")
        team.started[0].said = {}
        assert team.it.ready() == (False, "starting")

    run(work)


def test_a_spare_takes_the_place_of_a_worker_that_dies(
    make_team: Callable[..., Team], caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        team = make_team()
        await team.serve()
        team.dies(0, -11)
        assert team.it._changed.is_set()
        await team.tend()
        assert team.stages == ["gone", "serving", "called", "starting"]
        assert team.started[0] not in team.it._workers

    run(work)
    assert words(caplog) == ["worker 100 was ended by SIGSEGV; another takes its place"]


def test_a_worker_that_others_told_to_drain_is_replaced_and_its_end_is_no_failure(
    make_team: Callable[..., Team], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def work() -> None:
        team = make_team()
        await team.serve()
        team.says(0, "draining")
        await team.tend()
        assert team.stages == ["draining", "serving", "called", "starting"]
        assert [pid for pid, _ in team.it.reports()] == [100, 101]
        team.dies(0, 0)
        assert team.it._pace.failures == 0

    run(work)
    assert words(caplog)[-1] == "worker 100 has drained and ended"


def test_words_that_come_at_the_wrong_time_change_nothing(make_team: Callable[..., Team]) -> None:
    async def work() -> None:
        team = make_team()
        await team.serve()
        for what in ("loaded", "serving", "draining", "unheard of"):
            team.says(2, what)
        assert team.stages == ["serving", "serving", "spare"]
        team.started[1].enter("called")
        team.says(1, "unheard of")
        assert team.stages == ["serving", "called", "spare"]
        team.started[1].enter("starting")
        team.says(1, "unheard of")
        assert team.stages == ["serving", "starting", "spare"]
        team.started[1].enter("serving")
        team.says(0, "loaded")
        assert team.stages[0] == "serving"
        await team.tend()
        assert team.stages == ["serving", "serving", "spare"]

    run(work)


# -- what does not live -------------------------------------------------------------------------------


def test_a_gateway_whose_first_worker_cannot_serve_fails_with_its_words(
    make_team: Callable[..., Team],
) -> None:
    async def work() -> None:
        team = make_team()
        await team.tend()
        assert not team.it._is_over()
        team.says(0, "failed", why=["line 3", 4])
        team.dies(0, 1)
        assert team.it.failed == ["line 3", "4"]
        assert team.it._is_over()
        other = make_team()
        await other.tend()
        other.dies(0, 7)
        assert other.it.failed == ["worker 100 ended with exit code 7 before it could serve"]

    run(work)


def test_a_gateway_whose_first_worker_cannot_be_started_ends_and_says_so(
    make_team: Callable[..., Team],
) -> None:
    """It tried again without end, and heard no signal meanwhile: where no process could be had, for one."""

    async def work() -> None:
        team = make_team()
        team.fails = PermissionError(13, "Permission denied")
        await team.tend()
        assert team.it.failed == ["a worker cannot be started: permission denied before it could serve"]
        assert team.it._is_over()

    run(work)


def pauses(team: Team, times: int) -> list[float]:
    """How long each worker that is lost keeps the next from starting."""
    found = []
    for _ in range(times):
        team.it._lost("it", [])
        found.append(max(0.0, team.it._pace.not_before - team.clock.now))
        team.clock.now = max(team.clock.now, team.it._pace.not_before)
    return found


def test_workers_that_do_not_live_are_started_ever_later(make_team: Callable[..., Team]) -> None:
    async def work() -> None:
        team = make_team()
        await team.serve()
        assert pauses(team, 12) == [0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30, 30]
        team.clock.now += 30.0
        assert pauses(team, 1) == [30], "not yet forgotten"
        team.clock.now += 30.1
        assert pauses(team, 4) == [0, 0, 0, 1]

    run(work)


def test_where_nobody_serves_the_next_is_not_kept_waiting_so_long(make_team: Callable[..., Team]) -> None:
    async def work() -> None:
        team = make_team()
        await team.serve()
        team.it._workers.clear()
        assert pauses(team, 9) == [0, 0, 0, 1, 2, 4, 5, 5, 5]
        other = make_team()
        await other.serve()
        for one in other.started:
            one.enter("called")
        assert pauses(other, 7)[-1] == 8, "one that is about to serve is as good"

    run(work)


def test_workers_that_die_together_are_one_failure(
    make_team: Callable[..., Team], caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        team = make_team()
        await team.serve()
        pauses(team, 3)
        caplog.clear()
        team.it._lost("one", ["because"])
        until_ = team.it._pace.not_before
        assert until_ == team.clock.now + 1.0
        team.clock.now += 0.5
        team.it._lost("two", [])
        assert (team.it._pace.not_before, team.it._pace.failures) == (until_, 4)
        assert team.it._must_wait()
        assert team.it._pause() == 0.5
        team.clock.now += 0.3
        assert abs(team.it._pause() - 0.2) < 1e-6
        team.clock.now += 0.195
        assert team.it._pause() == 0.01
        count = len(team.started)
        team.it._workers.pop()
        await team.it._tend()
        assert len(team.started) == count
        team.clock.now += 0.005
        assert not team.it._must_wait()
        assert team.it._pause() == supervisor.TICK == 0.5
        await team.it._tend()
        assert len(team.started) == count + 1

    run(work)
    assert words(caplog) == [
        "one; another starts in 1.0 s",
        "because",
        "two; another starts in 0.5 s",
    ]


def test_a_worker_that_cannot_be_started_later_is_tried_again(
    make_team: Callable[..., Team], caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        team = make_team()
        await team.serve()
        team.fails = OSError()
        team.dies(0)
        caplog.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await team.it._tend()
        assert team.it.failed == []
        team.fails = None
        team.clock.now = team.it._pace.not_before
        await team.it._tend()
        assert team.stages[-1] == "starting"

    run(work)
    assert words(caplog)[0] == "a worker cannot be started: it failed; another takes its place"


@pytest.mark.parametrize(
    ("stage", "seconds", "why"),
    [
        ("starting", supervisor.STARTING, "did not start within 120 s"),
        ("spare", supervisor.SILENCE, "did not report for 20 s and was ended"),
        ("called", supervisor.SILENCE, "did not report for 20 s and was ended"),
        ("serving", supervisor.SILENCE, "did not report for 20 s and was ended"),
        ("draining", supervisor.SILENCE, "did not report for 20 s and was ended"),
    ],
)
def test_a_worker_that_says_nothing_is_ended(
    stage: str, seconds: float, why: str, make_team: Callable[..., Team]
) -> None:
    assert (supervisor.STARTING, supervisor.SILENCE) == (120.0, 20.0)

    async def work() -> None:
        team = make_team()
        await team.serve()
        one = team.started[0]
        one.stage = stage  # type: ignore[assignment]
        one.since = one.reported_at = team.clock.now
        team.it._end_the_silent(team.clock.now + seconds)
        assert one.killed_for == ""
        team.it._end_the_silent(team.clock.now + seconds + 0.1)
        assert one.killed_for == why
        assert one._child.kills == 1  # type: ignore[attr-defined]

    run(work)


def test_a_worker_that_starts_need_not_say_anything_meanwhile(make_team: Callable[..., Team]) -> None:
    async def work() -> None:
        team = make_team()
        await team.tend()
        team.it._end_the_silent(team.clock.now + supervisor.SILENCE + 50)
        assert team.started[0].killed_for == ""

    run(work)


@pytest.mark.parametrize(("gap", "is_ended"), [(5.0, True), (5.1, False)])
def test_a_machine_that_was_asleep_blames_no_worker(
    gap: float, is_ended: bool, make_team: Callable[..., Team]
) -> None:
    """Nobody was heard because nobody listened."""

    async def work() -> None:
        team = make_team()
        await team.serve()
        for one in team.started:
            one.reported_at = team.clock.now - supervisor.SILENCE
        team.it._last = team.clock.now
        team.clock.now += gap
        await team.it._tend()
        assert bool(team.started[0].killed_for) is is_ended
        assert team.it._last == team.clock.now

    run(work)


# -- what the operator says ---------------------------------------------------------------------------


def test_a_reload_reaches_every_worker_and_is_over_when_all_have_answered(
    make_team: Callable[..., Team],
) -> None:
    async def work() -> None:
        team = make_team()
        await team.serve()
        pauses(team, 5)
        team.started[1].enter("called")
        team.notifier.heard.clear()
        team.it.reload()
        assert [one.channel.sent[-1] for one in team.started] == ["reload"] * 3  # type: ignore[attr-defined]
        assert (team.it._pace.failures, team.it._pace.not_before) == (0, 0.0)
        assert team.notifier.heard == ["RELOADING=1"]
        team.says(0, "reloaded")
        team.says(0, "reloaded")
        team.says(1, "reloaded")
        assert len(team.notifier.heard) == 1
        team.dies(2)
        assert team.notifier.heard[1:] == ["READY=1 STATUS=serving"]
        team.says(1, "reloaded")
        assert len(team.notifier.heard) == 2

    run(work)


@pytest.mark.parametrize("last", [0, 1, 2])
def test_a_reload_is_not_over_before_the_last_has_answered(last: int, make_team: Callable[..., Team]) -> None:
    """One that serves, one that is about to, and one in reserve."""

    async def work() -> None:
        team = make_team()
        await team.serve()
        team.started[1].enter("called")
        team.notifier.heard.clear()
        team.it.reload()
        for at in {0, 1, 2} - {last}:
            team.says(at, "reloaded")
        assert team.notifier.heard == ["RELOADING=1"]
        team.says(last, "reloaded")
        assert team.notifier.heard[1:] == ["READY=1 STATUS=serving"]

    run(work)


def test_a_reload_without_a_worker_is_over_at_once_and_one_of_a_gateway_that_ends_is_none(
    make_team: Callable[..., Team],
) -> None:
    async def work() -> None:
        team = make_team()
        await team.tend()
        team.it.reload()
        assert team.notifier.heard == ["RELOADING=1", "READY=1 STATUS=reloaded"]
        assert team.started[0].channel.sent == ["reload"]  # type: ignore[attr-defined]
        team.it._stop(15)
        before = list(team.notifier.heard)
        team.it.reload()
        assert team.notifier.heard == before

    run(work)


def test_at_the_first_signal_it_drains_and_at_the_second_it_ends(
    make_team: Callable[..., Team], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def work() -> None:
        team = make_team()
        await team.serve()
        team.it._changed.clear()
        caplog.clear()
        team.it._stop(signal.SIGTERM)
        assert team.it._changed.is_set()
        assert team.it.ready() == (False, "draining")
        assert team.notifier.heard[-1] == "STOPPING=1 STATUS=draining"
        assert team.stages == ["draining", "draining", "spare"]
        assert team.started[2].killed_for == "was not needed"
        assert team.sock.fileno() == -1
        assert team.it._stopping == team.clock.now + 5.0 + supervisor.GRACE
        assert supervisor.GRACE == 3.0
        assert not team.it._is_over()
        team.dies(2, -9)
        team.dies(0, 0)
        await team.it._tend()
        assert len(team.started) == 3, "nobody is replaced"
        team.clock.now += 8.0
        team.started[1].reported_at = team.clock.now
        await team.it._tend()
        assert team.started[1].killed_for == ""
        team.clock.now += 0.1
        await team.it._tend()
        assert team.started[1].killed_for == "did not end in time"
        team.dies(1, -9)
        assert team.it._is_over()
        assert team.it._ended_by is None
        team.it._changed.clear()
        team.it._stop(signal.SIGINT)
        assert team.it._ended_by == signal.SIGINT
        assert team.it._changed.is_set()

    run(work)
    assert words(caplog) == [
        "draining: requests under way have 5 s",
        "worker 101 did not end in time",
    ]


def test_a_worker_that_drains_already_is_left_to_it(make_team: Callable[..., Team]) -> None:
    async def work() -> None:
        team = make_team()
        await team.serve()
        team.says(0, "draining")
        team.started[1].enter("called")
        team.it._stop(signal.SIGTERM)
        assert team.started[0].killed_for == team.started[1].killed_for == ""
        assert "drain" not in team.started[0].channel.sent  # type: ignore[attr-defined]
        assert team.started[1].channel.sent[-1] == "drain"  # type: ignore[attr-defined]

    run(work)


def test_a_notice_is_served_out_before_the_drain(
    make_team: Callable[..., Team], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def work() -> None:
        later: list[tuple[float, Any]] = []
        team = make_team(notice=7.0)
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_later", lambda seconds, what: later.append((seconds, what)))
        await team.serve()
        team.it._stop(signal.SIGTERM)
        assert later == [(7.0, team.it._drain)]
        assert team.it.ready() == (False, "draining")
        assert team.it._stopping is None
        assert team.stages == ["serving", "serving", "spare"]
        team.it._changed.clear()
        later[0][1]()
        assert team.it._changed.is_set()
        assert team.stages[0] == "draining"
        other = make_team(notice=7.0)
        await other.tend()
        other.it._changed.clear()
        other.it._stop(signal.SIGTERM)
        assert other.it._stopping is not None, "nobody was ever sent here"

    run(work)
    assert "no longer ready: serving for another 7 s" in words(caplog)


def test_a_worker_that_was_being_started_when_it_was_told_to_stop_is_ended(
    make_team: Callable[..., Team],
) -> None:
    async def work() -> None:
        team = make_team()
        team.it._stopping = 1.0
        await team.it._start_one()
        assert team.started[0]._child.kills == 1  # type: ignore[attr-defined]
        other = make_team()
        await other.it._start_one()
        assert other.started[0]._child.kills == 0  # type: ignore[attr-defined]

    run(work)


# -- with real processes ------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running(path: Path, workers: int = 2, **more: Any) -> AsyncIterator[tuple[Supervisor, Any]]:
    with listener() as sock:
        it = Supervisor(plan(path, workers, **more), [sock], Notifier(""))
        task = asyncio.ensure_future(it.run())
        try:
            yield it, task
        finally:
            if not task.done():
                it._ended_by = 1
                it._changed.set()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_gateway_that_is_told_to_stop_drains_and_ends_with_0(
    number: int, orders: Callable[..., Path]
) -> None:
    async def work() -> None:
        path = orders()
        async with running(path) as (it, task):
            await until(lambda: len(it._of("serving")) == 2 and it._of("spare") and it.ready()[0])
            pids = [one.pid for one in it._workers]
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: sum(one.get("do") == "reload" for one in log_of(path)) == 3)
            os.kill(os.getpid(), number)
            assert await asyncio.wait_for(task, 20) == 0
            assert it._workers == []
            for pid in pids:
                with pytest.raises(ProcessLookupError):
                    os.kill(pid, 0)

    run(work)


def test_a_gateway_that_is_told_twice_ends_at_once_with_the_signal(orders: Callable[..., Path]) -> None:
    async def work() -> None:
        async with running(orders(drain=["hang"]), drain=60.0) as (it, task):
            await until(lambda: len(it._of("serving")) == 2)
            workers = list(it._workers)
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: it._stopping is not None)
            os.kill(os.getpid(), signal.SIGTERM)
            assert await asyncio.wait_for(task, 20) == 128 + signal.SIGTERM
            assert all(one.stage == "gone" for one in workers)

    run(work)


def test_a_gateway_without_a_worker_that_can_serve_ends_with_1(orders: Callable[..., Path]) -> None:
    async def work() -> None:
        start = [{"is": "failed", "why": ["config.yaml: is wrong"]}, "end 1"]
        async with running(orders(start=start)) as (it, task):
            assert await asyncio.wait_for(task, 20) == 1
            assert it.failed == ["config.yaml: is wrong"]

    run(work)


def test_a_worker_that_is_killed_is_replaced(orders: Callable[..., Path]) -> None:
    async def work() -> None:
        async with running(orders()) as (it, _):
            await until(lambda: len(it._of("serving")) == 2 and it._of("spare"))
            victim = it._of("serving")[0]
            os.kill(victim.pid, signal.SIGKILL)
            await until(lambda: victim not in it._workers and len(it._of("serving")) == 2)
            assert victim.how_it_ended() == "was ended by SIGKILL"

    run(work)


def test_workers_that_do_not_end_are_not_waited_for_for_ever(
    make_team: Callable[..., Team], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        team = make_team()
        await team.serve()
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            team.clock.now += 1.0

        monkeypatch.setattr(supervisor.asyncio, "sleep", sleep)
        await team.it._end_all()
        assert [one.killed_for for one in team.started] == ["was not needed"] * 3
        assert slept == [0.01] * 3
        assert team.sock.fileno() == -1
        team.it._workers.clear()
        await team.it._end_all()
        assert len(slept) == 3

    run(work)


def test_the_admin_listener_belongs_to_the_supervisor_and_ends_with_it(
    make_team: Callable[..., Team],
) -> None:
    async def work() -> None:
        team = make_team()
        await team.serve()
        with listener() as free:
            port = free.getsockname()[1]
        figures = {"presign_source_lookups": [[[], 3]]}
        team.says(0, "report", ready=[True, "serving"], admin=["127.0.0.1", port], figures=figures)
        team.says(1, "report", ready=[True, "serving"], admin=["127.0.0.1", port], figures=figures)
        total = await team.it._overseer._figures()
        assert total["presign_source_lookups"] == [[[], 6]]
        assert team.started[0].said["admin"] == ["127.0.0.1", port]
        assert team.it._overseer._server is not None
        team.dies(0)
        total = await team.it._overseer._figures()
        assert total["presign_source_lookups"] == [[[], 3]]
        team.it._workers.clear()
        await team.it._end_all()
        assert team.it._overseer._server is None

    run(work)
