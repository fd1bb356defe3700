"""Connections to upstreams, kept for whoever comes next: for how long, how many, and which never."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trustme

from presign_proxy.core.way_out import UpstreamTls
from presign_proxy.http.message import Origin
from presign_proxy.mitm.lane import upstream_pool as module
from presign_proxy.mitm.lane.upstream_pool import IDLE, MAX_IDLE, MAX_IDLE_ALL, Pool, PoolKey
from presign_proxy.mitm.lane.write_batch import SMALL, WriteBatch

PATIENCE = 3.0


class Upstream:
    """Accepts, and does nothing that it is not told."""

    def __init__(self) -> None:
        self.ends: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.server: Any = None
        self.port = 0

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ends.append((reader, writer))

    async def closed(self, count: int) -> None:
        """Wait until so many connections have been ended by the other side."""
        async with asyncio.timeout(PATIENCE):
            while sum(map(is_ended, self.ends)) < count:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.005)


def is_ended(end: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
    return end[0].at_eof() or end[0].exception() is not None


class Watched(Pool):
    """Knows all that it ever opened."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.opened: list[Any] = []

    async def open(self, place: PoolKey) -> Any:
        upstream = await super().open(place)
        self.opened.append(upstream)
        return upstream


class Lab:
    def __init__(self, upstream: Upstream, context: ssl.SSLContext | None) -> None:
        self.upstream = upstream
        self.now = 1000.0
        self.contexts = 0
        self._context = context or ssl.create_default_context()
        self.write_batch = WriteBatch()
        self.pool = Watched(self.context, lambda: self.now, self.write_batch)
        scheme = "http" if context is None else "https"
        self.place = PoolKey("conn", Origin(scheme, "localhost", upstream.port), "127.0.0.1")

    def context(self, own: UpstreamTls | None) -> ssl.SSLContext:
        self.contexts += 1
        return self._context

    async def fill(self, count: int, place: PoolKey | None = None) -> list[Any]:
        """So many are opened, then given back in their order."""
        upstreams = [await self.pool.open(place or self.place) for _ in range(count)]
        for upstream in upstreams:
            self.pool.give_back(place or self.place, upstream)
        return upstreams


def story(
    work: Callable[[Lab], Awaitable[None]],
    server: ssl.SSLContext | None = None,
    client: ssl.SSLContext | None = None,
) -> None:
    async def main() -> None:
        upstream = Upstream()
        await upstream.start(server)
        lab = Lab(upstream, client)
        try:
            await work(lab)
        finally:
            # Nothing of it is left to a garbage collection, which may fall into somebody else's test.
            upstream.server.close()
            for transport in [upstream.transport for upstream in lab.pool.opened] + [
                one[1].transport for one in upstream.ends
            ]:
                if transport is not None:
                    transport.abort()
            await asyncio.wait_for(upstream.server.wait_closed(), PATIENCE)

    asyncio.run(main())


def test_it_keeps_a_bounded_number_for_a_bounded_time() -> None:
    """Less than the shortest keep-alive of common servers, which is five seconds."""
    assert (IDLE, MAX_IDLE, MAX_IDLE_ALL) == (4.0, 64, 512)


def test_the_newest_is_handed_out_first_and_each_once() -> None:
    async def work(at: Lab) -> None:
        assert at.pool.take(at.place) is None
        one, two, three = await at.fill(3)
        assert [at.pool.take(at.place) for _ in range(4)] == [three, two, one, None]
        assert (at.pool._idle, at.pool._count) == ({}, 0)
        at.pool.give_back(at.place, two)
        assert at.pool._count == 1
        assert at.pool.take(at.place) is two

    story(work)


@pytest.mark.parametrize("other", [
    {"connection": "other"}, {"origin": Origin("https", "localhost", 1)}, {"address": "127.0.0.2"},
    {"client": "c"}, {"tls": UpstreamTls("another certificate")},
])  # fmt: skip
def test_another_place_gets_none_of_it(other: dict[str, Any]) -> None:
    async def work(at: Lab) -> None:
        (one,) = await at.fill(1)
        assert at.pool.take(at.place._replace(**other)) is None
        assert at.pool.take(at.place) is one

    story(work)


def test_one_that_was_idle_for_too_long_is_closed_and_not_handed_out() -> None:
    async def work(at: Lab) -> None:
        (old,) = await at.fill(1)
        at.now += IDLE
        assert at.pool.take(at.place) is old  # not a moment too early
        at.pool.give_back(at.place, old)
        at.now += IDLE + 0.001
        assert at.pool.take(at.place) is None
        assert at.pool._count == 0
        await at.upstream.closed(1)

    story(work)


def test_sweeping_closes_what_is_idle_for_too_long_and_nothing_else() -> None:
    async def work(at: Lab) -> None:
        other = at.place._replace(connection="other")
        old = await at.fill(2)
        elsewhere = await at.fill(1, other)
        at.now += IDLE - 1
        young = await at.fill(1)
        at.pool.sweep()
        assert at.pool._count == 4
        at.now += 1
        at.pool.sweep()  # not a moment too early
        assert at.pool._count == 4
        at.now += 0.001
        at.pool.sweep()
        assert at.pool._count == 1
        assert list(at.pool._idle) == [at.place]
        await at.upstream.closed(3)
        assert at.pool.take(at.place) is young[0]
        assert all(upstream.odd for upstream in old + elsewhere)

    story(work)


def test_sweeping_lets_go_of_what_its_upstream_has_closed() -> None:
    async def work(at: Lab) -> None:
        one, two = await at.fill(2)
        while len(at.upstream.ends) < 2:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)
        at.upstream.ends[0][1].transport.abort()
        async with asyncio.timeout(PATIENCE):
            while not one.lost:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.005)
        at.pool.sweep()
        assert at.pool._count == 1
        assert at.pool.take(at.place) is two

    story(work)


async def spoil(at: Lab, upstream: Any, fault: str) -> None:
    """Its upstream closes it; or a mark that it has for other reasons."""
    if fault != "lost":
        setattr(upstream, fault, True)
        return
    async with asyncio.timeout(PATIENCE):
        while not at.upstream.ends:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.005)
        for _, writer in at.upstream.ends:
            writer.close()
        while not upstream.lost:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("fault", ["lost", "odd", "spent"])
def test_one_on_which_something_odd_has_happened_is_not_kept(fault: str) -> None:
    async def work(at: Lab) -> None:
        one = await at.pool.open(at.place)
        await spoil(at, one, fault)
        at.pool.give_back(at.place, one)
        assert (at.pool._idle, at.pool._count) == ({}, 0)
        assert at.pool.take(at.place) is None
        (two,) = await at.fill(1)
        await spoil(at, two, fault)  # while it was kept
        assert at.pool.take(at.place) is None
        await at.upstream.closed(2)

    story(work)


def test_one_that_was_given_back_is_nobodys() -> None:
    """Its upstream may say that it takes no more: who asked before is not to hear of it."""

    async def work(at: Lab) -> None:
        one = await at.pool.open(at.place)
        one.sender = one.reader = object()  # type: ignore[assignment]
        one.reader = None
        at.pool.give_back(at.place, one)
        assert one.sender is None

    story(work)


def test_of_one_place_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IDLE", 2)

    async def work(at: Lab) -> None:
        first = await at.fill(3)
        assert at.pool._count == 2
        await at.upstream.closed(1)
        assert at.pool.take(at.place) is first[1]

    story(work)


def test_of_all_places_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IDLE_ALL", 2)

    async def work(at: Lab) -> None:
        for number in range(3):
            await at.fill(1, at.place._replace(connection=f"conn_{number}"))
        assert at.pool._count == 2
        await at.upstream.closed(1)
        assert at.pool.take(at.place._replace(connection="conn_2")) is None
        assert at.pool.take(at.place._replace(connection="conn_1")) is not None
        assert at.pool._count == 1

    story(work)


def test_after_a_reset_nothing_that_was_opened_before_is_handed_out() -> None:
    async def work(at: Lab) -> None:
        in_use = await at.pool.open(at.place)
        await at.fill(2)
        at.pool.reset()
        assert (at.pool._idle, at.pool._count) == ({}, 0)
        await at.upstream.closed(2)
        at.pool.give_back(at.place, in_use)
        assert at.pool.take(at.place) is None
        await at.upstream.closed(3)
        (new,) = await at.fill(1)
        assert at.pool.take(at.place) is new

    story(work)


def test_the_system_asks_whether_the_upstream_is_there() -> None:
    async def work(at: Lab) -> None:
        upstream = await at.pool.open(at.place)
        assert upstream.transport is not None
        sock = upstream.transport.get_extra_info("socket")
        assert sock.getsockopt(1, 9) == 1  # SOL_SOCKET, SO_KEEPALIVE

    story(work)


def contexts(authority: trustme.CA, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(name).configure_cert(server)
    authority.configure_trust(client)
    return server, client


def test_over_tls_the_name_is_checked_and_the_address_is_the_judged_one(ca: trustme.CA) -> None:
    async def work(at: Lab) -> None:
        for _ in range(2):
            upstream = await at.pool.open(at.place)
            assert upstream.transport is not None
            assert upstream.transport.get_extra_info("ssl_object").server_hostname == "localhost"
            assert upstream.transport.get_extra_info("peername")[0] == "127.0.0.1"
            await asyncio.sleep(0.02)  # what belongs to the handshake comes behind it
            at.pool.give_back(at.place, upstream)
            assert at.pool.take(at.place) is upstream
        assert at.contexts == 1  # which is as dear as the rest
        at.pool.reset()
        await at.pool.open(at.place)
        assert at.contexts == 2

    story(work, *contexts(ca, "localhost"))


def test_over_tls_another_name_is_refused(ca: trustme.CA) -> None:
    async def work(at: Lab) -> None:
        with pytest.raises(ssl.SSLCertVerificationError):
            await at.pool.open(at.place)

    story(work, *contexts(ca, "other.test"))


def test_without_tls_nothing_is_verified_and_no_context_made() -> None:
    async def work(at: Lab) -> None:
        upstream = await at.pool.open(at.place)
        assert upstream.transport is not None
        assert upstream.transport.get_extra_info("ssl_object") is None
        assert at.contexts == 0

    story(work)


# -- what is written in one turn --------------------------------------------------------------------------


class Transport:
    def __init__(self, *, closing: bool = False, fails: bool = False) -> None:
        self.written: list[bytes] = []
        self.closing = closing
        self.fails = fails
        self.aborted = False

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        if self.fails:
            raise RuntimeError("cannot")
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


def test_a_piece_that_waits_for_the_others_is_small() -> None:
    assert SMALL == 16 * 1024


def test_what_is_written_in_one_turn_goes_out_at_once_and_in_order() -> None:
    async def main() -> None:
        box, one, other = WriteBatch(), Transport(), Transport()
        box.write(one, b"a")
        box.write(other, b"x")
        box.write(one, b"b")
        assert one.written == other.written == []
        assert box.holds(one)
        assert box.holds(other)
        assert not box.holds(Transport())
        await asyncio.sleep(0)
        assert (one.written, other.written) == ([b"ab"], [b"x"])
        assert not box.holds(one)
        box.write(one, b"c")
        await asyncio.sleep(0)
        assert one.written == [b"ab", b"c"]

    asyncio.run(main())


def test_a_large_piece_does_not_wait_but_for_what_was_written_before() -> None:
    async def main() -> None:
        box, one = WriteBatch(), Transport()
        box.write(one, bytes(SMALL))
        assert one.written == [bytes(SMALL)]
        assert not box.holds(one)
        box.write(one, b"a" * (SMALL - 1))
        assert len(one.written) == 1
        box.write(one, b"b" * (SMALL - 1))
        assert len(one.written) == 1
        box.write(one, b"c" * SMALL)
        assert one.written[1] == b"a" * (SMALL - 1) + b"b" * (SMALL - 1) + b"c" * SMALL
        assert not box.holds(one)

    asyncio.run(main())


def test_what_waits_is_sent_when_asked_and_only_once() -> None:
    async def main() -> None:
        box, one = WriteBatch(), Transport()
        box.flush(one)
        box.write(one, b"a")
        box.flush(one)
        assert one.written == [b"a"]
        await asyncio.sleep(0)
        assert one.written == [b"a"]

    asyncio.run(main())


def test_one_that_is_closing_is_not_written_to_and_one_that_fails_is_ended_alone() -> None:
    async def main() -> None:
        box, closing, failing, good = (
            WriteBatch(),
            Transport(closing=True),
            Transport(fails=True),
            Transport(),
        )
        for one in (closing, failing, good):
            box.write(one, b"a")
        await asyncio.sleep(0)
        assert (closing.written, good.written) == ([], [b"a"])
        assert (failing.aborted, good.aborted, closing.aborted) == (True, False, False)
        box.write(closing, bytes(SMALL))
        assert closing.written == []

    asyncio.run(main())
