"""One connection to an upstream: what it says, to whom that is told, and whether anybody else may use it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trustme

from presign_proxy.mitm.lane.upstream import UpstreamConnection
from presign_proxy.mitm.lane.write_batch import WriteBatch
from support.gateways import TLS_NAMES

PATIENCE = 5.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ASK = b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"


class Told:
    """An exchange that notes what it is told."""

    def __init__(self, *, has_body: bool = True) -> None:
        self.all: list[Any] = []
        self.has_body = has_body
        self.on_head: Callable[[], None] = lambda: None
        self.on_data: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self.fails_at = ""

    def _note(self, *what: Any) -> None:
        self.all.append(what if len(what) > 1 else what[0])
        if what[0] == self.fails_at:
            raise ZeroDivisionError

    def head(self, status: int, reason: bytes, fields: Any) -> bool:
        self._note("head", status, reason, dict(fields))
        self.on_head()
        return self.has_body

    def data(self, piece: bytes) -> None:
        self._note("data", bytes(piece))
        self.on_data()

    def received(self) -> None:
        self._note("received")

    def complete(self) -> None:
        self._note("complete")

    def lost(self, why: str = "") -> None:
        self._note("lost", why)
        self.on_lost()

    def hold(self, on: bool) -> None:
        self._note("hold", on)

    def collapse(self, error: Exception) -> None:
        self.all.append(("collapse", type(error).__name__))

    @property
    def kinds(self) -> list[str]:
        return [one if isinstance(one, str) else one[0] for one in self.all]


class Lab:
    def __init__(self, upstream: UpstreamConnection, sock: socket.socket, write_batch: WriteBatch) -> None:
        self.upstream, self.sock, self.write_batch = upstream, sock, write_batch
        self.told = Told()

    def begin(self, *, method: bytes = b"POST", whole: bool = True, told: Told | None = None) -> Told:
        self.told = told or Told()
        self.upstream.begin(self.told, method, whole=whole)
        self.upstream.write(ASK)
        return self.told

    def stuff(self) -> int:
        """Write until the upstream takes no more. Returns how many bytes."""
        transport, sent = self.upstream.transport, 0
        assert transport is not None
        # What the kernel leaves of the last piece may be too little for anybody to be told to hold.
        while transport.get_write_buffer_size() <= transport.get_write_buffer_limits()[1]:
            self.upstream.write(bytes(1 << 20))
            sent += 1 << 20
        return sent

    async def say(self, data: bytes) -> None:
        """Until it was heard."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.sock, data)
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)

    async def read(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)

    async def until(self, is_so: Callable[[], Any]) -> None:
        while not is_so():  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.002)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def story(work: Callable[[Lab], Awaitable[None]]) -> None:
    async def main() -> None:
        loop, write_batch = asyncio.get_running_loop(), WriteBatch()
        failed: list[Any] = []
        loop.set_exception_handler(lambda _, context: failed.append(context))
        async with asyncio.timeout(PATIENCE):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                listener.setblocking(False)
                _, upstream = await loop.create_connection(
                    lambda: UpstreamConnection(write_batch), *listener.getsockname()
                )
                sock, _ = await loop.sock_accept(listener)
                with sock:
                    await work(Lab(upstream, sock, write_batch))
                    upstream.close()
                    await asyncio.sleep(0)
        assert failed == []

    asyncio.run(main())


def test_an_answer_is_told_piece_by_piece_and_leaves_the_connection_to_others() -> None:
    async def work(lab: Lab) -> None:
        assert not lab.upstream.was_kept
        told = lab.begin()
        assert not lab.upstream.has_answered
        assert await lab.read() == ASK
        await lab.say(b"HTTP/1.1 200 Fine\r\nX: y\r\nContent-Length: 4\r\n\r\nab")
        assert lab.upstream.has_answered
        assert told.kinds == ["head", "data", "received"]
        assert told.all[0] == ("head", 200, b"Fine", {b"X": b"y", b"Content-Length": b"4"})
        await lab.say(b"cd")
        assert told.all[3:] == [("data", b"cd"), "complete"]
        assert (lab.upstream.reader, lab.upstream.is_clean, lab.upstream.socket.is_silent()) == (
            None,
            True,
            True,
        )
        lab.upstream.idle_since = 1.0
        assert lab.upstream.was_kept
        again = lab.begin()
        assert not lab.upstream.has_answered
        await lab.say(OK)
        assert again.kinds == ["head", "data", "complete"]
        assert lab.upstream.is_clean

    story(work)


@pytest.mark.parametrize(
    ("method", "whole", "spent"),
    [
        (b"GET", True, False),
        (b"POST", False, False),
        (b"PUT", False, False),
        (b"GET", False, True),
        (b"HEAD", True, True),
        (b"HEAD", False, True),
        (b"DELETE", True, False),
    ],
)
def test_only_a_request_that_is_read_and_answered_plainly_leaves_it_to_others(
    method: bytes, whole: bool, spent: bool
) -> None:
    """What the upstream leaves unread is the beginning of somebody else's request to it."""

    async def work(lab: Lab) -> None:
        lab.begin(method=method, whole=whole)
        await asyncio.sleep(0)
        assert lab.upstream.spent is spent
        assert lab.upstream.is_clean is not spent

    story(work)


def test_an_answer_before_the_whole_request_costs_the_connection() -> None:
    async def work(lab: Lab) -> None:
        lab.begin(whole=False)
        await lab.read()
        await lab.say(OK)
        assert lab.told.kinds == ["head", "data", "complete"]
        lab.upstream.write(b"the rest", whole=True)
        assert lab.upstream.spent

    story(work)


def test_an_answer_behind_the_whole_request_costs_nothing() -> None:
    async def work(lab: Lab) -> None:
        lab.begin(whole=False)
        lab.upstream.write(b"the rest", whole=True)
        lab.upstream.write(b"")  # what comes behind takes nothing back
        await lab.say(OK)
        assert lab.upstream.is_clean

    story(work)


def test_an_interim_answer_before_the_whole_request_costs_nothing() -> None:
    async def work(lab: Lab) -> None:
        lab.begin(whole=False)
        await lab.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert lab.told.kinds == ["received"]
        lab.upstream.write(b"the rest", whole=True)
        await lab.say(OK)
        assert lab.upstream.is_clean

    story(work)


def test_an_answer_that_began_before_the_whole_request_costs_the_connection_though_it_ends_behind_it() -> (
    None
):
    async def work(lab: Lab) -> None:
        lab.begin(whole=False)
        await lab.say(OK[:20])
        lab.upstream.write(b"the rest", whole=True)
        await lab.say(OK[20:])
        assert lab.told.kinds == ["received", "head", "data", "complete"]
        assert lab.upstream.spent

    story(work)


def test_an_answer_while_the_request_has_not_left_costs_the_connection() -> None:
    """All of it was written here, and the upstream does not take it."""

    async def work(lab: Lab) -> None:
        lab.begin(whole=False)
        lab.stuff()
        lab.upstream.write(b"the end", whole=True)
        assert ("hold", True) in lab.told.all
        await lab.say(OK)
        assert lab.upstream.spent
        lab.sock.setblocking(False)
        while ("hold", False) not in lab.told.all:
            try:
                lab.sock.recv(1 << 20)
            except BlockingIOError:
                await asyncio.sleep(0.001)

    story(work)


def test_what_waits_for_the_end_of_the_turn_has_not_left() -> None:
    async def work(lab: Lab) -> None:
        assert lab.upstream.is_clean
        lab.upstream.write(b"x")
        assert not lab.upstream.is_clean
        await asyncio.sleep(0)
        assert lab.upstream.is_clean

    story(work)


@pytest.mark.parametrize("held", [True, False])
def test_a_connection_that_is_full_is_not_clean(held: bool) -> None:
    async def work(lab: Lab) -> None:
        lab.upstream.pause_writing()
        assert not lab.upstream.is_clean
        if held:
            told = lab.begin()
            lab.upstream.pause_writing()
            lab.upstream.resume_writing()
            assert told.all == [("hold", True), ("hold", False)]
        else:
            lab.upstream.resume_writing()  # nobody sends anything
        await asyncio.sleep(0)
        assert lab.upstream.is_clean

    story(work)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nx",
    ],
)
def test_an_answer_behind_which_nobody_may_ask_is_told_and_the_connection_not_used_again(
    answer: bytes,
) -> None:
    async def work(lab: Lab) -> None:
        lab.begin()
        await lab.say(answer)
        assert lab.told.kinds[-1] == "complete"
        assert b"".join(one[1] for one in lab.told.all if one[0] == "data") == b"ok"
        assert lab.upstream.odd
        assert not lab.upstream.is_clean

    story(work)


def test_what_is_said_behind_an_answer_is_nobodys_and_ends_the_connection() -> None:
    async def work(lab: Lab) -> None:
        lab.begin()
        await lab.say(OK)
        assert lab.upstream.is_clean
        lab.upstream.sender = None
        await lab.say(OK)
        assert lab.told.kinds == ["head", "data", "complete"]
        assert lab.upstream.odd
        assert lab.upstream.transport is not None
        assert lab.upstream.transport.is_closing()

    story(work)


def test_what_is_said_behind_an_answer_ends_the_upload_that_goes_on() -> None:
    async def work(lab: Lab) -> None:
        lab.begin(whole=False)
        await lab.say(OK)
        await lab.say(b"more")
        assert lab.told.kinds == ["head", "data", "complete", "lost"]
        assert lab.upstream.odd

    story(work)


def test_what_has_come_and_was_not_read_makes_it_unusable() -> None:
    """It would pass for the answer to the next request, which carries somebody's credential."""

    async def work(lab: Lab) -> None:
        assert lab.upstream.socket.is_silent()
        assert lab.upstream.socket.is_silent()
        lab.sock.sendall(b"early")
        assert not lab.upstream.socket.is_silent()
        assert lab.upstream.is_clean, "as far as is known without asking the socket"

    story(work)


def test_an_end_that_has_come_and_was_not_read_makes_it_unusable() -> None:
    async def work(lab: Lab) -> None:
        lab.sock.shutdown(socket.SHUT_WR)
        assert not lab.upstream.socket.is_silent()

    story(work)


def test_what_the_upstream_has_not_taken_makes_it_unusable() -> None:
    """The next request would wait behind it, with its credential, for as long as the upstream likes."""

    async def work(lab: Lab) -> None:
        from presign_proxy.mitm.tcp import unsent

        descriptor = lab.upstream.transport.get_extra_info("socket").fileno()  # type: ignore[union-attr]
        while not unsent(descriptor):
            lab.upstream.write(bytes(4096))
            await asyncio.sleep(0)
        assert lab.upstream.is_clean
        assert not lab.upstream.socket.is_silent()

    story(work)


@pytest.mark.parametrize("how", ["closed", "lost", "never open"])
def test_what_is_no_open_connection_is_not_silent_but_dead(how: str) -> None:
    async def work(lab: Lab) -> None:
        upstream = UpstreamConnection(lab.write_batch) if how == "never open" else lab.upstream
        if how == "closed":
            assert upstream.transport is not None
            upstream.transport.close()
        if how == "lost":
            upstream.connection_lost(None)
        assert upstream.socket.is_silent() is False
        if how == "never open":
            assert upstream.is_clean
            upstream.write(b"x")
            upstream.pause()
            upstream.resume()
            upstream.leave(1.0)
            assert upstream.odd
            upstream.close()

    story(work)


# -- answers that are none --------------------------------------------------------------------------------


def test_what_is_no_answer_ends_it_and_says_why() -> None:
    async def work(lab: Lab) -> None:
        lab.begin()
        await lab.say(b"SSH-2.0-OpenSSH\r\n\r\n")
        ((kind, why),) = lab.told.all
        assert kind == "lost"
        assert "no status line" in why
        assert lab.upstream.odd
        assert (lab.upstream.reader, lab.upstream.sender) == (None, None)

    story(work)


def test_a_body_that_breaks_off_in_its_framing_is_told_after_what_was_good_of_it() -> None:
    async def work(lab: Lab) -> None:
        lab.begin()
        await lab.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nnot a size\r\n")
        assert lab.told.kinds == ["head", "data", "received", "lost"]
        assert lab.told.all[-1][1]

    story(work)


def test_an_answer_to_head_has_no_body_whatever_it_says() -> None:
    async def work(lab: Lab) -> None:
        told = lab.begin(method=b"HEAD", told=Told(has_body=False))
        await lab.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        assert told.kinds == ["head", "complete"]

    story(work)


@pytest.mark.parametrize("where", ["head", "data"])
def test_nothing_more_is_told_to_who_has_closed_it_meanwhile(where: str) -> None:
    async def work(lab: Lab) -> None:
        told = lab.begin()
        setattr(told, f"on_{where}", lab.upstream.close)
        await lab.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
        assert told.kinds == (["head"] if where == "head" else ["head", "data"])

    story(work)


@pytest.mark.parametrize("where", ["head", "data", "received", "complete"])
def test_whoever_fails_at_an_answer_is_told_so_and_the_connection_closed(where: str) -> None:
    async def work(lab: Lab) -> None:
        told = lab.begin()
        told.fails_at = where
        await lab.say(OK[:-1] if where == "received" else OK)
        assert told.all[-1] == ("collapse", "ZeroDivisionError")
        assert lab.upstream.odd
        assert lab.upstream.transport is not None
        assert lab.upstream.transport.is_closing()
        await asyncio.sleep(0.01)
        assert told.kinds.count("collapse") == 1

    story(work)


def test_whoever_fails_at_more_than_an_answer_is_told_so() -> None:
    async def work(lab: Lab) -> None:
        told = lab.begin(whole=False)
        await lab.say(OK)
        told.fails_at = "lost"
        await lab.say(b"more")
        assert told.kinds[-1] == "collapse"

    story(work)


# -- ends -------------------------------------------------------------------------------------------------


async def ended(lab: Lab, how: str) -> None:
    if how == "FIN":
        lab.sock.close()
    else:
        lab.reset()
    await lab.until(lambda: lab.upstream.lost)
    await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_an_end_before_the_answer_is_told_once(how: str) -> None:
    async def work(lab: Lab) -> None:
        lab.begin()
        await lab.read()
        await ended(lab, how)
        assert lab.told.all == [("lost", "")]
        assert (lab.upstream.reader, lab.upstream.sender) == (None, None)
        assert not lab.upstream.is_clean
        lab.upstream.pause()
        lab.upstream.resume()
        lab.upstream.write(b"x")

    story(work)


@pytest.mark.parametrize(("how", "last"), [("FIN", "complete"), ("RST", "lost")])
def test_an_answer_that_ends_with_its_connection_is_whole_only_where_that_was_closed(
    how: str, last: str
) -> None:
    async def work(lab: Lab) -> None:
        lab.begin()
        await lab.say(b"HTTP/1.1 200 OK\r\n\r\nsome")
        assert lab.told.kinds == ["head", "data", "received"]
        await lab.read()
        await ended(lab, how)
        assert lab.told.kinds == ["head", "data", "received", last]

    story(work)


def test_an_answer_that_says_its_length_is_not_whole_before_that() -> None:
    async def work(lab: Lab) -> None:
        lab.begin()
        await lab.say(OK[:-1])
        await lab.read()
        await ended(lab, "FIN")
        assert lab.told.kinds[-1] == "lost"

    story(work)


def test_an_end_behind_an_answer_is_told_to_who_still_sends() -> None:
    async def work(lab: Lab) -> None:
        lab.begin(whole=False)
        await lab.say(OK)
        await lab.read()
        await ended(lab, "FIN")
        assert lab.told.kinds == ["head", "data", "complete", "lost"]

    story(work)


def test_an_end_that_nobody_waits_for_is_told_to_nobody() -> None:
    async def work(lab: Lab) -> None:
        lab.begin()
        await lab.say(OK)
        lab.upstream.sender = None
        await lab.read()
        await ended(lab, "FIN")
        assert lab.told.kinds == ["head", "data", "complete"]
        assert lab.upstream.spent

    story(work)


def test_an_upstream_that_says_no_more_and_then_takes_the_upload_fails_nothing_in_the_event_loop() -> None:
    """What hears of the end closes the connection, as every exchange does."""

    async def work(lab: Lab) -> None:
        told = lab.begin(whole=False)
        transport = lab.upstream.transport
        assert transport is not None
        lab.stuff()
        told.on_lost = lab.upstream.close
        lab.sock.shutdown(socket.SHUT_WR)
        await lab.until(transport.is_closing)
        while await lab.read():
            pass
        await lab.until(lambda: lab.upstream.lost)
        await asyncio.sleep(0.01)
        assert told.kinds.count("lost") == 1

    story(work)


def test_whoever_fails_at_an_end_is_told_so() -> None:
    async def work(lab: Lab) -> None:
        told = lab.begin()
        told.fails_at = "lost"
        await lab.read()
        await ended(lab, "FIN")
        assert told.kinds == ["lost", "collapse"]

    story(work)


async def refuse(lab: Lab, answer: bytes) -> None:
    """Answer and reset; then writing fails before anything is read."""
    assert lab.upstream.transport is not None
    lab.upstream.transport.pause_reading()
    await asyncio.get_running_loop().sock_sendall(lab.sock, answer)
    lab.reset()
    while not lab.upstream.lost:
        lab.upstream.write(b"more of the upload" * 1000)
        await asyncio.sleep(0.001)
    await asyncio.sleep(0)


def test_a_refusal_that_came_before_writing_failed_is_told() -> None:
    async def work(lab: Lab) -> None:
        lab.begin(whole=False)
        await refuse(lab, OK)
        assert lab.told.kinds[:3] == ["head", "data", "complete"]
        assert lab.told.all[1] == ("data", b"ok")

    story(work)


def test_what_came_behind_a_refusal_before_writing_failed_is_nobodys() -> None:
    async def work(lab: Lab) -> None:
        lab.begin(whole=False)
        await lab.say(OK)
        await refuse(lab, b"HTTP/1.1 500 No\r\n\r\n")
        assert lab.told.kinds == ["head", "data", "complete", "lost"]

    story(work)


# -- leaving ----------------------------------------------------------------------------------------------


def test_a_connection_that_is_closed_is_closed_at_once() -> None:
    async def work(lab: Lab) -> None:
        lab.begin()
        lab.upstream.close()
        assert (lab.upstream.reader, lab.upstream.sender, lab.upstream.odd) == (None, None, True)
        await asyncio.sleep(0.01)
        assert lab.told.all == []
        lab.sock.settimeout(PATIENCE)
        with pytest.raises(ConnectionResetError):
            while lab.sock.recv(1000):
                pass
            raise ConnectionResetError

    story(work)


def test_an_upstream_that_is_left_gets_the_rest_of_its_request_and_is_not_listened_to() -> None:
    async def work(lab: Lab) -> None:
        lab.begin()
        lab.upstream.leave(PATIENCE)
        assert (lab.upstream.reader, lab.upstream.sender, lab.upstream.odd) == (None, None, True)
        assert await lab.read() == ASK
        assert await lab.read() == b""
        assert lab.told.all == []

    story(work)


def test_an_upstream_that_is_left_and_takes_nothing_is_left_for_good_after_a_while() -> None:
    async def work(lab: Lab) -> None:
        lab.begin(whole=False)
        lab.stuff()
        lab.upstream.leave(0.05)
        assert not lab.upstream.lost
        await lab.until(lambda: lab.upstream.lost)

    story(work)


def test_an_upstream_that_is_left_and_takes_it_in_time_gets_all_of_it() -> None:
    async def work(lab: Lab) -> None:
        lab.begin(whole=False)
        sent = len(ASK) + lab.stuff()
        lab.upstream.leave(0.3)
        got = 0
        while data := await lab.read():
            got += len(data)
        assert got == sent
        await lab.until(lambda: lab.upstream.lost)
        await asyncio.sleep(0.35)  # its time is over: to abort it then once failed, for it was gone
        assert lab.told.kinds == ["hold"]

    story(work)


@pytest.mark.parametrize("how", ["odd", "closing"])
def test_a_connection_on_which_something_went_wrong_is_not_left_but_closed(how: str) -> None:
    async def work(lab: Lab) -> None:
        transport = lab.upstream.transport
        assert transport is not None
        lab.begin()
        if how == "closing":
            transport.close()
        else:
            lab.upstream.odd = True
        lab.upstream.leave(PATIENCE)
        assert (lab.upstream.reader, lab.upstream.odd) == (None, True)
        try:
            left = await lab.read()
        except ConnectionResetError:
            left = b""
        assert left == b"", "what waited for the end of the turn goes nowhere"
        assert transport.is_closing()

    story(work)


def test_little_that_has_not_left_holds_up_the_next_request_too() -> None:
    async def work(lab: Lab) -> None:
        transport = lab.upstream.transport
        assert transport is not None
        while not transport.get_write_buffer_size():
            lab.upstream.write(bytes(4096))
            await asyncio.sleep(0)
        assert transport.get_write_buffer_size() < 64 * 1024, "asyncio does not say yet that it is full"
        assert not lab.upstream.is_clean

    story(work)


def test_what_was_spent_stays_so_where_reading_stops() -> None:
    async def work(lab: Lab) -> None:
        lab.begin(method=b"HEAD")
        lab.upstream.pause()
        assert lab.upstream.spent

    story(work)


def test_reading_stops_and_goes_on_as_the_client_takes_it() -> None:
    async def work(lab: Lab) -> None:
        told = lab.begin()
        lab.upstream.pause()
        await lab.say(OK)
        assert told.all == []
        assert not lab.upstream.spent, "what is not read stays on the socket, which is looked at"
        lab.upstream.resume()
        await lab.until(lambda: told.kinds == ["head", "data", "complete"])

    story(work)


# -- TLS --------------------------------------------------------------------------------------------------


def over_tls(ca: trustme.CA, work: Callable[[UpstreamConnection, Any], Awaitable[None]]) -> None:
    served, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert(*TLS_NAMES).configure_cert(served)
    ca.configure_trust(trusting)

    async def main() -> None:
        loop, write_batch = asyncio.get_running_loop(), WriteBatch()
        accepted: asyncio.Future[Any] = loop.create_future()
        server = await asyncio.start_server(
            lambda *ends: accepted.set_result(ends), "127.0.0.1", 0, ssl=served
        )
        async with asyncio.timeout(PATIENCE):
            port = server.sockets[0].getsockname()[1]
            transport, upstream = await loop.create_connection(
                lambda: UpstreamConnection(write_batch),
                "127.0.0.1",
                port,
                ssl=trusting,
                server_hostname="localhost",
            )
            ends = await accepted
            await work(upstream, ends)
            transport.abort()
            ends[1].transport.abort()
            server.close()
            await asyncio.sleep(0.01)

    asyncio.run(main())


def test_over_tls_a_connection_whose_reading_was_stopped_serves_nobody_else(ca: trustme.CA) -> None:
    """TLS reads on, and keeps what no look at the socket shows."""

    async def work(upstream: UpstreamConnection, _: Any) -> None:
        upstream.begin(Told(), b"GET", whole=True)
        assert not upstream.spent
        upstream.pause()
        assert upstream.spent
        upstream.resume()
        assert upstream.spent

    over_tls(ca, work)


def test_over_tls_an_upstream_that_says_goodbye_is_asked_nothing_more(ca: trustme.CA) -> None:
    async def work(upstream: UpstreamConnection, ends: Any) -> None:
        ends[1].close()
        while not upstream.spent and not upstream.lost:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        assert not upstream.is_clean

    over_tls(ca, work)


def test_over_tls_an_upstream_that_does_not_say_goodbye_is_left_for_good_after_a_while(
    ca: trustme.CA,
) -> None:
    async def work(upstream: UpstreamConnection, ends: Any) -> None:
        ends[1].transport.pause_reading()  # it never hears our goodbye
        upstream.leave(0.05)
        while not upstream.lost:  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    over_tls(ca, work)


def test_over_tls_an_upstream_that_is_left_gets_the_rest_of_its_request(ca: trustme.CA) -> None:
    async def work(upstream: UpstreamConnection, ends: Any) -> None:
        told, transport = Told(), upstream.transport
        assert transport is not None
        upstream.begin(told, b"POST", whole=False)
        sent = 0
        while not transport.get_write_buffer_size():
            upstream.write(bytes(1 << 18))
            sent += 1 << 18
            await asyncio.sleep(0)
        upstream.leave(PATIENCE)
        got = 0
        while data := await ends[0].read(1 << 16):
            got += len(data)
        assert got == sent
        assert set(told.kinds) <= {"hold"}

    over_tls(ca, work)


def test_over_tls_nothing_that_is_encrypted_is_taken_for_an_answer(ca: trustme.CA) -> None:
    """What came before writing failed is decrypted by whoever stands below, or is lost."""

    async def work(upstream: UpstreamConnection, ends: Any) -> None:
        told, transport = Told(), upstream.transport
        assert transport is not None
        upstream.begin(told, b"POST", whole=False)
        await asyncio.sleep(0.02)  # what belongs to the handshake comes behind it
        raw: Any = transport._ssl_protocol._transport  # type: ignore[attr-defined]
        raw.pause_reading()
        ends[1].write(OK)
        await ends[1].drain()
        sock = ends[1].get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ends[1].transport.abort()
        while not upstream.lost:
            upstream.write(b"more of the upload" * 1000)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        assert [one for one in told.all if one[0] != "hold"] == [("lost", "")]

    over_tls(ca, work)
