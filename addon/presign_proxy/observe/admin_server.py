"""The admin listener: whether the gateway is alive and ready, its figures, and what is under way.

Its answers contain names of connections, paths and clients, but nothing that grants access. A request costs
little: the head is bounded, there is no body, and a connection gets one answer. Connections are bounded in
number and duration.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import bind_sockets

from ..config_problems import Foreseen
from ..http.hosts import parse_address, parse_authority
from .metrics import Snapshot
from .prometheus import CONTENT_TYPE, render
from .under_way import List

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 64
"""The most connections at a time. Beyond that the oldest is closed, so a client that holds all of them does
not shut others out.
"""
MAX_HEAD: Final = 8192
HEAD_DEADLINE: Final = 5.0
DEADLINE: Final = 20.0
"""Seconds for a whole connection, also if the scraper does not read."""

_PATHS: Final = ("/livez", "/readyz", "/metrics", "/under-way")
_PLAIN: Final = "text/plain; charset=utf-8"
_REASONS: Final = {
    200: "OK",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

Figures = Callable[[], Awaitable[Snapshot]]
Ready = Callable[[], tuple[bool, str]]
"""Returns whether requests are served, and a line about it."""


PORT_PATIENCE: Final = 5.0
"""Seconds for which a start waits for the port: its last owner may be ending."""


class CannotListen(Foreseen):
    """An address that cannot be bound. The text says where and why. `is_taken`: another socket has it."""

    def __init__(self, host: str, port: int, error: OSError | UnicodeError) -> None:
        why = (getattr(error, "strerror", None) or "it is no address of this machine").lower()
        super().__init__(f"cannot listen on {f'[{host}]' if ':' in host else host}:{port}: {why}")
        self.is_taken = getattr(error, "errno", None) == errno.EADDRINUSE


def bound(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on an address. Raises CannotListen."""
    try:
        return bind_sockets(port, host)
    except (OSError, UnicodeError) as error:
        raise CannotListen(host, port, error) from None


class AdminServer:
    """The server of the admin listener, on sockets that are bound already, in the running event loop.

    Args:
        host: the configured host. It is accepted in the Host header besides addresses and `localhost`.
    """

    def __init__(
        self, sockets: list[socket.socket], host: str, ready: Ready, figures: Figures, under_way: List
    ) -> None:
        self._sockets = sockets
        self._server = _Server(_AdminHandler(host, ready, figures, under_way))
        loop = asyncio.get_running_loop()
        self._accepting = [loop.create_task(self._server.accept(one)) for one in sockets]

    def close(self) -> None:
        for task in self._accepting:
            task.cancel()
        for one in self._sockets:
            # Remove it from the loop before closing it: its number may soon belong to another file.
            asyncio.get_running_loop().remove_reader(one)
            one.close()
        self._server.close()


class _Server(HTTPServer):
    """tornado's server with bounds on the number of connections and on the time for reading an answer."""

    def initialize(self, handler: HTTPServerConnectionDelegate) -> None:  # type: ignore[override]
        super().initialize(
            handler,
            no_keep_alive=True,
            max_header_size=MAX_HEAD,
            idle_connection_timeout=HEAD_DEADLINE,
            max_body_size=0,
        )
        self._open: dict[Any, asyncio.TimerHandle] = {}

    async def accept(self, listening: socket.socket) -> None:
        """Accept connections, even if descriptors run out: then tornado's own loop would spin."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)  # the task starts eagerly, before its creator has finished setting up
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(0.5)
                continue
            if len(self._open) >= MAX_CONNECTIONS:
                self._end(next(iter(self._open)))
            self.handle_stream(IOStream(accepted, read_chunk_size=4096), address)
            await asyncio.sleep(0)  # `sock_accept` does not yield while connections are waiting

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        self._open[stream] = asyncio.get_running_loop().call_later(DEADLINE, stream.close)
        super().handle_stream(stream, address)

    def on_close(self, server_conn: Any) -> None:
        super().on_close(server_conn)
        self._end(server_conn.stream)

    def _end(self, stream: IOStream) -> None:
        timer = self._open.pop(stream, None)
        if timer is not None:
            timer.cancel()
        stream.close()

    def close(self) -> None:
        for stream in list(self._open):
            self._end(stream)


class _AdminHandler(HTTPServerConnectionDelegate):
    """Answers the requests."""

    def __init__(self, host: str, ready: Ready, figures: Figures, under_way: List) -> None:
        self._host = host.lower()
        self._ready = ready
        self._figures = figures
        self._under_way = under_way
        self._rendering: dict[str, asyncio.Task[bytes]] = {}

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:  # noqa: ARG002
        return _Question(self, request_conn)

    async def answer(self, line: RequestStartLine, headers: HTTPHeaders) -> tuple[int, str, bytes]:
        """Return status, content type and body."""
        if not self.is_addressed(headers) or _is_foreign(headers):
            return 403, _PLAIN, b"ask for it by its address\n"
        path = line.path.partition("?")[0]
        if path not in _PATHS:
            return 404, _PLAIN, f"there are {', '.join(_PATHS[:-1])} and {_PATHS[-1]}\n".encode()
        if line.method not in ("GET", "HEAD"):
            return 405, _PLAIN, b"GET or HEAD\n"
        if path == "/metrics":
            return 200, CONTENT_TYPE, await self._once(path, self._metrics)
        if path == "/under-way":
            return 200, "application/json", await self._once(path, self._requests)
        ready, said = self._ready() if path == "/readyz" else (True, "alive")
        return 200 if ready else 503, _PLAIN, f"{said}\n".encode()

    def is_addressed(self, headers: HTTPHeaders) -> bool:
        """Return whether the Host header names this listener.

        Otherwise a web page could point a name of its own here (DNS rebinding), and read the answer.
        """
        origin = parse_authority(headers.get("Host", ""), "http")
        if origin is None:
            return False
        return origin.host in ("localhost", self._host) or parse_address(origin.host) is not None

    async def _once(self, path: str, rendered: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """Render an answer, once at a time for all who ask."""
        rendering = self._rendering.get(path)
        if rendering is None or rendering.done():
            rendering = self._rendering[path] = asyncio.get_running_loop().create_task(rendered())
        return await asyncio.shield(rendering)

    async def _metrics(self) -> bytes:
        # Off the event loop, because there may be thousands of series.
        return await asyncio.to_thread(render, await self._figures())

    async def _requests(self) -> bytes:
        return json.dumps(await self._under_way()).encode() + b"\n"


class _Question(HTTPMessageDelegate):
    """One request. It is answered as soon as its head is complete, whatever the head says about a body."""

    def __init__(self, handler: _AdminHandler, connection: HTTPConnection) -> None:
        self._handler = handler
        self._connection = connection

    async def headers_received(self, start_line: Any, headers: HTTPHeaders) -> None:
        try:
            status, kind, body = await self._handler.answer(start_line, headers)
        except Exception as error:
            logger.error("presign: the admin listener failed (%s)", type(error).__name__)
            status, kind, body = 500, _PLAIN, b"it failed; see the log\n"
        said = HTTPHeaders(
            {
                "Content-Type": kind,
                "Content-Length": str(len(body)),
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
                "Cross-Origin-Resource-Policy": "same-origin",
                "Connection": "close",
            }
        )
        if status == 405:
            said["Allow"] = "GET, HEAD"
        line = ResponseStartLine("HTTP/1.1", status, _REASONS[status])
        with contextlib.suppress(StreamClosedError):
            sent = self._connection.write_headers(line, said, None if start_line.method == "HEAD" else body)
            self._connection.finish()
            await sent


def _is_foreign(headers: HTTPHeaders) -> bool:
    """Return whether the browser says that a page of another site made the request."""
    return headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
