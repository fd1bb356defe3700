"""The admin listener by itself: who is answered, what, and how much of its time anybody gets."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from presign_proxy.observe import admin_server

HOST = "127.0.0.1"
PATIENCE = 3.0


class Known:
    """An admin listener, and what it has to say."""

    def __init__(self, host: str = HOST) -> None:
        self.ready = (True, "ready")
        self.asked = 0
        self.wait: asyncio.Event | None = None
        self.sockets = admin_server.bound(HOST, 0)
        self.port = int(self.sockets[0].getsockname()[1])
        self.server = admin_server.AdminServer(
            self.sockets, host, lambda: self.ready, self.figures, self.under_way
        )

    async def figures(self) -> Any:
        self.asked += 1
        if self.wait is not None:
            await self.wait.wait()
        if self.asked == 13:
            raise RuntimeError("a secret in an exception")
        return {"presign_connection_requests_total": [[["conn_a", "deny", "expired"], self.asked]]}

    async def under_way(self) -> Any:
        return {"requests": 1, "oldest": [{"connection": "conn_a", "path": "/v1/\u2028"}]}

    async def say(self, data: bytes) -> bytes:
        """All that comes back, to the end."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        writer.write(data)
        try:
            async with asyncio.timeout(PATIENCE):
                return await reader.read()
        finally:
            writer.close()

    async def ask(self, path: str, method: str = "GET", host: str | None = None, *fields: str) -> bytes:
        named = [] if host == "" else [f"Host: {host or HOST}"]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *named, *fields, "", ""])
        return await self.say(head.encode())


def story(work: Callable[[Known], Awaitable[None]], host: str = HOST) -> None:
    async def main() -> None:
        handler = Known(host)
        try:
            await work(handler)
        finally:
            handler.server.close()

    asyncio.run(main())


def status(answer: bytes) -> int:
    return int(answer[9:12]) if answer else 0


def test_the_answer_has_a_length_and_says_what_it_may_be_used_for() -> None:
    async def work(handler: Known) -> None:
        answer = await handler.ask("/livez")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert body == b"alive\n"
        assert head.split(b"\r\n")[0] == b"HTTP/1.1 200 OK"
        assert set(head.split(b"\r\n")[1:]) == {
            b"Content-Type: text/plain; charset=utf-8",
            b"Content-Length: 6",
            b"Cache-Control: no-store",
            b"X-Content-Type-Options: nosniff",
            b"Cross-Origin-Resource-Policy: same-origin",
            b"Connection: close",
        }

    story(work)


def test_whether_it_is_ready_is_asked_each_time() -> None:
    async def work(handler: Known) -> None:
        for ready, said, code in ((True, "ready", 200), (False, "draining", 503), (True, "again", 200)):
            handler.ready = (ready, said)
            answer = await handler.ask("/readyz?x=1")
            assert (status(answer), answer.endswith(f"\r\n\r\n{said}\n".encode())) == (code, True)
            assert status(await handler.ask("/livez")) == 200  # it lives all the same
        assert b" 503 Service Unavailable\r\n" in b" " + (await not_ready(handler))[9:]

    async def not_ready(handler: Known) -> bytes:
        handler.ready = (False, "draining")
        return await handler.ask("/readyz")

    story(work)


@pytest.mark.parametrize(("path", "method", "code"), [
    ("/", "GET", 404), ("/Livez", "GET", 404), ("/livez/", "GET", 404), ("/metricsX", "GET", 404),
    ("//livez", "GET", 404), ("http://127.0.0.1/livez", "GET", 404), ("/livez", "POST", 405),
    ("/metrics", "DELETE", 405), ("/livez", "get", 405), ("/none", "POST", 404), ("/metrics", "GET", 200),
    ("/under-way", "GET", 200), ("/under-way", "POST", 405),
])  # fmt: skip
def test_there_are_four_paths_and_two_methods(path: str, method: str, code: int) -> None:
    async def work(handler: Known) -> None:
        answer = await handler.ask(path, method)
        assert status(answer) == code
        assert (b"\r\nAllow: GET, HEAD\r\n" in answer) == (code == 405)
        assert handler.asked == (path == "/metrics" and code == 200)

    story(work)


@pytest.mark.parametrize(("path", "method", "host", "said"), [
    ("/", "GET", HOST, "404 Not Found: there are /livez, /readyz, /metrics and /under-way\n"),
    ("/livez", "POST", HOST, "405 Method Not Allowed: GET or HEAD\n"),
    ("/livez", "GET", "other.test", "403 Forbidden: ask for it by its address\n"),
])  # fmt: skip
def test_a_refusal_says_what_to_do(path: str, method: str, host: str, said: str) -> None:
    async def work(handler: Known) -> None:
        answer = (await handler.ask(path, method, host)).decode()
        reason, _, body = said.partition(": ")
        assert answer.startswith(f"HTTP/1.1 {reason}\r\n")
        assert answer.endswith(f"\r\n\r\n{body}")

    story(work)


def test_who_has_been_answered_is_forgotten() -> None:
    async def work(handler: Known) -> None:
        for _ in range(3):
            assert status(await handler.ask("/livez")) == 200
        server = handler.server._server
        async with asyncio.timeout(PATIENCE):
            while server._open or server._connections:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)

    story(work)


def test_a_number_that_another_file_has_afterwards_is_its_own() -> None:
    """The event loop must not take a later file of the same number for the listener."""

    async def main() -> None:
        handler = Known()
        await asyncio.sleep(0.05)
        number = handler.sockets[0].fileno()
        handler.server.close()
        one, other = socket.socketpair()
        heard = asyncio.Event()
        loop = asyncio.get_running_loop()
        assert one.fileno() == number
        loop.add_reader(one, heard.set)
        await asyncio.sleep(0.05)
        other.send(b"x")
        async with asyncio.timeout(PATIENCE):
            await heard.wait()
        loop.remove_reader(one)
        one.close()
        other.close()

    asyncio.run(main())


def test_head_has_the_length_and_no_body() -> None:
    async def work(handler: Known) -> None:
        answer = await handler.ask("/livez", "HEAD")
        assert answer.endswith(b"\r\n\r\n")
        assert b"\r\nContent-Length: 6\r\n" in answer

    story(work)


@pytest.mark.parametrize(("host", "code"), [
    (HOST, 200), ("127.0.0.1:1", 200), ("localhost", 200), ("LOCALHOST:80", 200), ("[::1]:9", 200),
    ("10.1.2.3", 200), ("admin.test", 200), ("Admin.Test:1", 200), ("other.test", 403), ("", 403),
    ("localhost.evil.test", 403), ("evil.test#admin.test", 403), ("admin.test.", 200), ("a b", 403),
])  # fmt: skip
def test_it_is_asked_as_itself_or_by_an_address(host: str, code: int) -> None:
    async def work(handler: Known) -> None:
        answer = await handler.ask("/metrics", "GET", host)
        assert status(answer) in ((code, 400) if code == 403 else (code,))
        assert (b'connection="conn_a"' in answer) == (code == 200)

    story(work, "Admin.Test")


@pytest.mark.parametrize(("said", "code"), [
    ("none", 200), ("same-origin", 200), ("cross-site", 403), ("same-site", 403), ("", 403),
])  # fmt: skip
def test_another_sites_page_is_told_nothing(said: str, code: int) -> None:
    async def work(handler: Known) -> None:
        assert status(await handler.ask("/metrics", "GET", None, f"Sec-Fetch-Site: {said}")) == code

    story(work)


def test_figures_that_fail_are_told_without_their_words_and_asked_for_again() -> None:
    async def work(handler: Known) -> None:
        handler.asked = 12
        answer = await handler.ask("/metrics")
        assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert answer.endswith(b"\r\n\r\nit failed; see the log\n")
        assert b"secret" not in answer
        assert status(await handler.ask("/metrics")) == 200

    story(work)


def test_many_who_ask_at_once_cost_one_rendering() -> None:
    async def work(handler: Known) -> None:
        handler.wait = asyncio.Event()
        many = [asyncio.ensure_future(handler.ask("/metrics")) for _ in range(5)]
        hasty_reader, hasty = await asyncio.open_connection(HOST, handler.port)
        hasty.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await asyncio.sleep(0.1)
        hasty.close()  # who goes away takes nothing from the others
        handler.wait.set()
        answers = await asyncio.gather(*many)
        assert {status(one) for one in answers} == {200}
        assert handler.asked == 1
        assert status(await handler.ask("/metrics")) == 200
        assert handler.asked == 2
        assert hasty_reader is not None

    story(work)


def test_a_head_over_its_size_is_not_answered_with_figures() -> None:
    async def work(handler: Known) -> None:
        for size, answered in ((7000, True), (admin_server.MAX_HEAD + 1000, False)):
            answer = await handler.ask("/livez", "GET", None, f"X: {'a' * size}")
            assert (status(answer) == 200) is answered

    story(work)


@pytest.mark.parametrize(
    "body", ["Content-Length: 5", "Content-Length: 99999999", "Transfer-Encoding: chunked"]
)
def test_a_body_is_not_waited_for(body: str) -> None:
    async def work(handler: Known) -> None:
        assert status(await handler.ask("/livez", "GET", None, body)) in (200, 400, 0)
        assert status(await handler.ask("/livez")) == 200

    story(work)


def test_one_answer_and_the_connection_ends() -> None:
    async def work(handler: Known) -> None:
        one = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n\r\n"
        assert (await handler.say(one + one)).count(b"HTTP/1.1 200") == 1

    story(work)


def test_a_head_that_does_not_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_server, "HEAD_DEADLINE", 0.2)

    async def work(handler: Known) -> None:
        assert await handler.say(b"GET /livez HTTP/1.1\r\nHost") == b""
        assert not handler.server._server._open

    story(work)


def test_who_does_not_read_is_cut_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_server, "DEADLINE", 0.3)
    monkeypatch.setattr(admin_server, "HEAD_DEADLINE", 60)

    async def work(handler: Known) -> None:
        _, idle = await asyncio.open_connection(HOST, handler.port)
        assert status(await handler.ask("/livez")) == 200
        async with asyncio.timeout(PATIENCE):
            while handler.server._server._open:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.02)
        idle.close()

    story(work)


def test_of_too_many_who_say_nothing_the_oldest_goes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admin_server, "MAX_CONNECTIONS", 3)

    async def work(handler: Known) -> None:
        waiting = []
        for _ in range(4):
            waiting.append(await asyncio.open_connection(HOST, handler.port))
            await asyncio.sleep(0.05)
        async with asyncio.timeout(PATIENCE):
            assert await waiting[0][0].read() == b""
        assert len(handler.server._server._open) == 3
        assert [reader.at_eof() for reader, _ in waiting] == [True, False, False, False]
        assert status(await handler.ask("/livez")) == 200
        for _, writer in waiting:
            writer.close()

    story(work)
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


def test_accepting_goes_on_after_there_were_no_descriptors_and_stands_in_nobodys_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(handler: Known) -> None:
        loop: Any = asyncio.get_running_loop()
        real, failures, enough = loop.sock_accept, [], []
        loop.call_later(0.2, enough.append, True)

        async def failing(listening: socket.socket) -> Any:
            if not enough:
                failures.append(1)
                if len(failures) > 100:
                    raise RuntimeError("it does not let others have their turn")
                raise OSError(24, "Too many open files")
            return await real(listening)

        monkeypatch.setattr(loop, "sock_accept", failing)
        assert status(await handler.ask("/livez")) == 200
        assert 1 <= len(failures) < 5

    story(work)


def test_once_it_is_closed_nobody_is_answered_and_nothing_listens() -> None:
    async def main() -> None:
        handler = Known()
        reader, writer = await asyncio.open_connection(HOST, handler.port)
        await asyncio.sleep(0.05)
        handler.server.close()
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        assert [one.fileno() for one in handler.sockets] == [-1]
        with pytest.raises(OSError):
            await asyncio.open_connection(HOST, handler.port)
        assert all(task.cancelling() or task.done() for task in handler.server._accepting)
        writer.close()

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(("host", "said"), [
    ("198.51.100.7", "198.51.100.7"), ("no.such.host.invalid", "no.such.host.invalid"),
    ("2001:db8::7", "[2001:db8::7]"),
])  # fmt: skip
def test_an_address_that_is_none_of_this_machine_is_told(host: str, said: str) -> None:
    with pytest.raises(admin_server.CannotListen) as caught:
        admin_server.bound(host, 1)
    assert str(caught.value).startswith(f"cannot listen on {said}:1: ")
    assert not caught.value.is_taken
    del caught
    gc.collect()  # tornado closes nothing where binding fails


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_port_that_is_taken_is_told_so() -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(admin_server.CannotListen) as caught:
            admin_server.bound(HOST, port)
    assert str(caught.value) == f"cannot listen on {HOST}:{port}: address already in use"
    assert caught.value.is_taken
    del caught
    gc.collect()
    assert str(admin_server.CannotListen("a", 1, UnicodeError())) == (
        "cannot listen on a:1: it is no address of this machine"
    )


def test_what_is_under_way_is_one_line_of_json() -> None:
    async def work(handler: Known) -> None:
        head, _, body = (await handler.ask("/under-way")).partition(b"\r\n\r\n")
        assert b"\r\nContent-Type: application/json\r\n" in head
        assert json.loads(body) == await handler.under_way()
        assert body.count(b"\n") == 1

    story(work)
