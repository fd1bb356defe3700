"""The lane as mitmproxy sees it, without sockets: a test says what comes, and sees what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context

from presign_proxy.mitm.backpressure import GatedReader
from presign_proxy.mitm.client_state import ClientStates
from presign_proxy.mitm.lane import client_gate, layer, pipeline, request_head
from presign_proxy.mitm.lane.layer import Lane

PATIENCE = 5.0
FOREIGN = b"GET /foreign HTTP/1.1\r\nHost: x\r\n\r\n"


def head(path: str = "a", body: int = 0) -> bytes:
    length = f"Content-Length: {body}\r\n" if body else ""
    return f"GET /{path} HTTP/1.1\r\nHost: x\r\n{length}\r\n".encode()


class Exchange:
    """One that is granted. It takes its body, at most `step` bytes at a time where that is said."""

    def __init__(self, lab: Lab, raw: bytes) -> None:
        found = request_head.parse(raw)
        assert found is not None, raw
        self.lab, self.raw = lab, raw
        self.left = found.length or 0
        self.stage = "sending" if self.left else "waiting"
        self.step = 10**9
        self.body = b""
        self.told: list[Any] = []
        self.fails_at = lab.fails_at
        self.on_upload: Callable[[], None] = lambda: None

    @property
    def is_sending(self) -> bool:
        return self.left > 0 and self.stage in ("sending", "receiving", "trailing")

    @property
    def wants_more(self) -> bool:
        return self.left > 0

    def _note(self, *what: Any) -> None:
        self.told.append(what if len(what) > 1 else what[0])
        if what[0] == self.fails_at:
            raise ZeroDivisionError

    def begin(self) -> None:
        self._note("begin")

    def upload(self, data: bytes) -> bytes:
        if self.fails_at == "upload":
            raise ZeroDivisionError
        assert type(data) is bytes
        size = min(self.left, len(data), self.step)
        self.body += data[:size]
        self.left -= size
        if not self.left:
            self.stage = "waiting"
        self.on_upload()
        return data[size:]

    def abandon(self, why: str) -> None:
        self._note("abandon", why)

    def lose(self, why: str) -> None:
        self._note("lose", why)

    def collapse(self, error: Exception) -> None:
        self._note("collapse")


class Stock:
    """mitmproxy's own layer."""

    quiet = False

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.asks: list[commands.Command] = []
        """What it asks for at its next event."""
        self.waits_for: list[events.Event] = []
        self.has_answered = False
        self.fails = False

    def handle_event(self, event: events.Event) -> Any:
        self.told.append(event)
        asks, self.asks = self.asks, []
        return iter(asks)

    def is_between_requests(self) -> bool:
        if self.fails:
            raise ZeroDivisionError
        return self.has_answered

    def awaits(self, event: events.Event) -> bool:
        return event in self.waits_for

    @property
    def heard(self) -> list[Any]:
        """The kinds of events, and the data of those that bring some."""
        return [getattr(one, "data", type(one).__name__) for one in self.told]


class Reader(GatedReader):
    def __init__(self) -> None:
        self.held: list[bool] = []

    def hold(self, on: bool, by: object) -> None:
        self.held.append(on)


class ClientReader:
    """What stands in for mitmproxy's reader."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def give_back(self) -> None:
        self.told.append("give back")

    def read(self, on: bool) -> None:
        self.told.append(("read", on))


class Lab:
    def __init__(self, patch: pytest.MonkeyPatch, *, tls: bool = False, **client: Any) -> None:
        given = {"peername": ("192.0.2.1", 1), "sockname": ("192.0.2.2", 2), "state": ConnectionState.OPEN}
        self.client = Client(**(given | client))
        self.client.tls = tls
        self.context = Context(self.client, Options())
        self.stock: Any = Stock()
        self.fails_at = ""
        self.exchanges: list[Exchange] = []
        self.judged: list[bytes] = []
        self.output = b""
        """What was written beside mitmproxy, and flushed."""
        self.written = b""
        self.waiting = 0
        self.aborted = 0
        self.active = 0
        self.kept_awake = 0
        self.drains: list[asyncio.Future[None]] = []
        self.intakes: list[ClientReader] = []
        self.takes_over = True
        self.tasks: list[asyncio.Task[None]] = []
        self.done: list[Any] = []
        self.clients = ClientStates()
        self.reader = Reader()
        transport = SimpleNamespace(get_write_buffer_size=lambda: self.waiting, abort=self._abort)
        writer = SimpleNamespace(transport=transport, drain=self._drain)
        self.io: Any = SimpleNamespace(reader=self.reader, writer=writer, handler=None)
        watchdog = SimpleNamespace(register_activity=self._act)
        self.handler: Any = SimpleNamespace(
            transports={self.client: self.io}, timeout_watchdog=watchdog, server_event=self._server_event
        )
        self.shared: Any = SimpleNamespace(
            clients=self.clients,
            open=True,
            exchanges=set(),
            write_batch=SimpleNamespace(write=self._write, flush=self._flush),
            run=self._run,
        )
        patch.setattr(layer, "handler_of", lambda client: self.handler)
        patch.setattr(pipeline, "keep_awake", self._keep_awake)
        patch.setattr(pipeline, "Judge", lambda *_: SimpleNamespace(granted=self._judge))
        patch.setattr(client_gate, "ClientReader", SimpleNamespace(over=self._take_over))
        stock: Any = self.stock
        self.lane: Any = Lane(self.context, stock, self.shared)
        self.pipeline: Any = self.lane.pipeline

    # -- what stands around it

    def _abort(self) -> None:
        self.aborted += 1

    def _act(self) -> None:
        self.active += 1

    def _keep_awake(self, client: Client) -> None:
        assert client is self.client
        self.kept_awake += 1

    async def _drain(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.drains.append(future)
        await future

    def _write(self, transport: Any, data: bytes) -> None:
        assert transport is self.io.writer.transport
        self.written += data

    def _flush(self, transport: Any) -> None:
        assert transport is self.io.writer.transport
        self.output, self.written = self.output + self.written, b""

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.get_running_loop().create_task(work))
        return self.tasks[-1]

    async def _server_event(self, event: events.Event) -> None:
        self.handle(event)

    def _judge(self, raw: bytes, client_side: Any) -> Any:
        assert client_side is self.pipeline
        self.judged.append(raw)
        if raw.startswith(b"GET /fails "):
            raise ZeroDivisionError
        if not raw.startswith(b"GET /") or raw == FOREIGN:
            return None
        self.exchanges.append(Exchange(self, raw))
        return self.exchanges[-1]

    def _take_over(self, writer: Any, reader: Any, taker: Any) -> Any:
        assert (writer, reader, taker) == (self.io.writer, self.reader, self.pipeline)
        if not self.takes_over:
            return None
        self.intakes.append(ClientReader())
        return self.intakes[-1]

    # -- what the test says

    def handle(self, event: events.Event) -> list[Any]:
        found = list(self.lane.handle_event(event))
        self.done += found
        return found

    def start(self) -> Lab:
        self.handle(events.Start())
        return self

    def say(self, data: bytes) -> list[Any]:
        return self.handle(events.DataReceived(self.client, data))

    def take(self, data: bytes = b"") -> ClientReader:
        """Let the lane do without mitmproxy's reader, and say something there."""
        self.io.handler = asyncio.current_task()
        self.say(head("first"))
        self.over()
        client_reader = self.intakes[-1]
        if data:
            self.pipeline.received(data)
        return client_reader

    def shut(self) -> list[Any]:
        """The client says no more."""
        self.client.state &= ~ConnectionState.CAN_READ
        return self.handle(events.ConnectionClosed(self.client))

    def over(self, index: int = -1, *, close: bool = False, now: bool = False) -> None:
        exchange: Any = self.exchanges[index]
        self.pipeline.over(exchange, close=close, now=now)

    async def settle(self) -> None:
        """All that was to be done beside is done, but for what waits for the client."""
        for _ in range(20):
            await asyncio.sleep(0)

    @property
    def last(self) -> Exchange:
        return self.exchanges[-1]

    @property
    def is_closed(self) -> bool:
        """Whether mitmproxy was asked to close the client's connection."""
        return self.client in [
            one.connection for one in self.done if isinstance(one, commands.CloseConnection)
        ]

    @property
    def sent(self) -> bytes:
        """What mitmproxy was asked to send."""
        return b"".join(one.data for one in self.done if isinstance(one, commands.SendData))


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            await work()

    asyncio.run(main())


Story = Callable[[Callable[[Lab], Awaitable[None]]], None]


def with_lane(patch: pytest.MonkeyPatch) -> Story:
    """Runs something with a lane that has begun; nothing of it fails beside."""

    def told(work: Callable[[Lab], Awaitable[None]]) -> None:
        async def main() -> None:
            lab = Lab(patch).start()
            await work(lab)
            for task in lab.tasks:
                assert not task.done() or task.cancelled() or task.exception() is None
                task.cancel()

        run(main)

    return told
