"""One exchange of the lane without sockets: its client, its pool and its upstream note what they are told."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from presign_proxy.core.connection import Conduct
from presign_proxy.core.decision import Deny, Facts, Forward
from presign_proxy.gateway.held_bodies import HeldBodies
from presign_proxy.http.message import Request
from presign_proxy.mitm.lane import request_head
from presign_proxy.mitm.lane.exchange import Exchange
from presign_proxy.mitm.lane.granted_request import granted_request
from presign_proxy.signing.signed_policy import Terms
from support.deciding import request, sent, signed

PATIENCE = 5.0
PLACE: Any = "the place"
REFUSED = Deny("revoked", "it is revoked", "json", Facts("req_test"))
HEAD = "GET /x HTTP/1.1\r\nHost: presign.local\r\n"


class UpstreamConnection:
    """A connection to an upstream."""

    def __init__(self, **state: Any) -> None:
        self.told: list[Any] = []
        self.lost = self.odd = self.has_answered = self.was_kept = False
        self.transport: Any = "a transport"
        vars(self).update(state)

    def begin(self, reader: Any, method: bytes, *, whole: bool) -> None:
        self.told.append(("begin", method, whole))

    def write(self, data: bytes, *, whole: bool = False) -> None:
        self.told.append((data, whole))

    def close(self) -> None:
        self.told.append("close")

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    @property
    def written(self) -> bytes:
        return b"".join(one[0] for one in self.told if isinstance(one, tuple) and isinstance(one[0], bytes))


class Pool:
    """Has what is put into `kept`, and opens what is put into `new`: a connection, or an error."""

    def __init__(self) -> None:
        self.kept: list[UpstreamConnection] = []
        self.new: list[UpstreamConnection | BaseException] = []
        self.back: list[UpstreamConnection] = []
        self.on_open: Callable[[], None] = lambda: None

    def take(self, place: Any) -> Any:
        assert place is PLACE
        return self.kept.pop() if self.kept else None

    def give_back(self, place: Any, upstream: UpstreamConnection) -> None:
        assert place is PLACE
        self.back.append(upstream)

    async def open(self, place: Any) -> Any:
        assert place is PLACE
        await asyncio.sleep(0)
        self.on_open()
        found = self.new.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found


class Admission:
    """Says what is put into it, in that order; in the end, that what was granted holds."""

    def __init__(self) -> None:
        self.held_bodies = HeldBodies()
        self.completes: list[Any] = []
        self.confirms: list[Any] = []
        self.asked: list[Any] = []
        self.confirmed = 0
        self.on_complete: Callable[[], None] = lambda: None

    def answered(self, forward: Forward, status: int) -> None:
        """Take note of an answer: of a credential that has to be minted anew."""

    async def complete(
        self, forward: Forward, asked: Request, client: Any, limit_hold: Any, until: float
    ) -> Any:
        self.asked.append((forward, asked, client, limit_hold))
        await asyncio.sleep(0)
        self.on_complete()
        found = self.completes.pop(0) if self.completes else forward
        if isinstance(found, BaseException):
            raise found
        return found

    def confirm(self, forward: Forward, asked: Request) -> Any:
        self.confirmed += 1
        return self.confirms.pop(0) if self.confirms else forward


class Client:
    """The lane of a client."""

    def __init__(self) -> None:
        self.client = SimpleNamespace(id="client", peername=("192.0.2.7", 7))
        self.writer = self
        self.is_full = False
        self.output = b""
        self.told: list[Any] = []
        self.fails_at = ""

    def _note(self, *what: Any) -> None:
        self.told.append(what if len(what) > 1 else what[0])
        if what[0] == self.fails_at:
            raise ZeroDivisionError

    def send(self, data: bytes) -> None:
        if self.fails_at == "send":
            raise ZeroDivisionError
        self.output += data

    def over(self, exchange: Any, *, close: bool, now: bool = False) -> None:
        self._note("over", close, now)

    def cut(self, exchange: Any) -> None:
        self._note("cut")

    def hold(self, on: bool) -> None:
        self._note("hold", on)

    def proceed(self) -> None:
        self._note("proceed")

    def keep_awake(self) -> None:
        self._note("keep awake")

    def when_drained(self, go_on: Callable[[], None]) -> None:
        self.told.append("when drained")


class LaneShared:
    def __init__(self) -> None:
        self.admission = Admission()
        self.pool = Pool()
        self.exchanges: set[Any] = set()
        self.draining = False
        self.at_once: Any = PLACE
        self.places: list[Any] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.audit_log = SimpleNamespace(write=self._book)
        self.booked: list[Any] = []

    def _book(self, decision: Any, outcome: Any, peer: Any, *, lane: bool) -> None:
        assert (peer, lane) == (("192.0.2.7", 7), True)
        self.booked.append((decision, outcome))

    def place_at_once(self, client: Any, forward: Forward) -> Any:
        assert client.id == "client"
        return self.at_once

    async def place(self, client: Any, forward: Forward) -> Any:
        assert client.id == "client"
        found = self.places.pop(0) if self.places else PLACE
        if isinstance(found, BaseException):
            raise found
        return found

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.get_running_loop().create_task(work))
        return self.tasks[-1]


def granted(*, max_body: int | None = None, conduct: Conduct | None = None, **changes: Any) -> Forward:
    """A grant that waits for nothing, unless it is said."""
    found = sent(request(signed()))
    connection = replace(found.connection, conduct=conduct or Conduct(response_timeout=60, body_timeout=30))
    changes = {"connection": connection, "terms": Terms(max_body=max_body)} | changes
    return found._replace(**changes)


class Lab:
    def __init__(self, *fields: str, method: str = "GET", forward: Forward | None = None) -> None:
        raw = "\r\n".join([f"{method} /x HTTP/1.1", "Host: presign.local", *fields, "", ""]).encode()
        head = request_head.parse(raw)
        assert head is not None
        self.head = head
        self.forward = forward or granted()
        self.request: Any = "the request"
        self.lane, self.shared = Client(), LaneShared()
        self.pool, self.admission = self.shared.pool, self.shared.admission
        self.wire = self.wire_of(self.forward) if self.forward.sent is not None else None
        lane: Any = self.lane
        shared: Any = self.shared
        self.exchange = Exchange(lane, shared, granted_request(head, self.request, self.forward), self.wire)
        self.shared.exchanges.add(self.exchange)
        self.freed = 0
        self.exchange.limit_hold.slot = SimpleNamespace(  # type: ignore[assignment]
            release=self._free, release_now=self._free
        )

    def _free(self) -> None:
        self.freed += 1

    def wire_of(self, forward: Forward) -> bytes:
        assert forward.sent is not None
        return request_head.outgoing(self.head, forward.origin, forward.sent)

    def begin(self, **state: Any) -> UpstreamConnection:
        """Send it on a connection that was kept."""
        upstream = UpstreamConnection(was_kept=True, **state)
        self.pool.kept.append(upstream)
        self.exchange.begin()
        assert self.shared.tasks == []
        return upstream

    async def settle(self) -> None:
        """All that was begun is over."""
        for task in self.shared.tasks:  # grows meanwhile
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None

    def answer(self, *fields: tuple[bytes, bytes], status: int = 200, body: bytes = b"ok") -> bool:
        """A head and the whole body, as a connection tells it."""
        exchange = self.exchange
        has_body = self.say_head(*fields, status=status, size=len(body))
        if body:
            exchange.data(body)
        exchange.complete()
        return has_body

    def say_head(self, *fields: tuple[bytes, bytes], status: int = 200, size: int | None = 2) -> bool:
        sized = ((b"Content-Length", b"%d" % size),) if size is not None else ()
        return self.exchange.head(status, b"Fine", (*sized, *fields))

    @property
    def line(self) -> Any:
        """How it was booked, once."""
        assert len(self.shared.booked) == 1
        return self.shared.booked[0][1]

    @property
    def decision(self) -> Any:
        assert len(self.shared.booked) == 1
        return self.shared.booked[0][0]

    def is_over(self) -> bool:
        """Whether nothing of it is left."""
        left = self.exchange in self.shared.exchanges
        return self.exchange.ended and not left and self.freed > 0 and len(self.shared.booked) == 1


def story(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            await work()

    asyncio.run(main())
