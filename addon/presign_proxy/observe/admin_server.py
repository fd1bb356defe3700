"""The admin listener: whether the gateway lives, whether it is ready, and its figures; nothing else.

Whoever reaches it is told names of connections, and nothing that could be used. Its requests cost little: a
bounded head, no body, one answer a connection, so many connections, so many seconds for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
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

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 64
"""At a time; then the oldest one goes: whoever holds them all shuts nobody out."""
MAX_HEAD: Final = 8192
HEAD_DEADLINE: Final = 5.0
DEADLINE: Final = 20.0
"""Seconds for a whole connection: of a scraper that does not read, too."""

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
"""Whether requests are served, and a line about it."""


PORT_PATIENCE: Final = 5.0
"""Seconds for which a start waits for the port: who was there before may be ending."""


class CannotListen(Foreseen):
    """Nothing can listen there. The text says where and why; `is_taken`: because something else does."""

    def __init__(self, host: str, port: int, error: OSError | UnicodeError) -> None:
        why = (getattr(error, "strerror", None) or "it is no address of this machine").lower()
        super().__init__(f"cannot listen on {f'[{host}]' if ':' in host else host}:{port}: {why}")
        self.is_taken = getattr(error, "errno", None) == errno.EADDRINUSE


def bound(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen there. Raises CannotListen."""
    try:
        return bind_sockets(port, host)
    except (OSError, UnicodeError) as error:
        raise CannotListen(host, port, error) from None


class AdminServer:
    """Serves on sockets that are bound already, in the event loop that runs.

    Args:
        host: as it was configured: a name besides addresses and `localhost` under which it may be asked for.
    """

    def __init__(self, sockets: list[socket.socket], host: str, figures: Figures, ready: Ready) -> None:
        self._sockets = sockets
        self._server = _Server(_AdminHandler(host, figures, ready))
        loop = asyncio.get_running_loop()
        self._accepting = [loop.create_task(self._server.accept(one)) for one in sockets]

    def close(self) -> None:
        for task in self._accepting:
            task.cancel()
        for one in self._sockets:
            # Not before the loop has let go of it: its number may soon be another file's.
            asyncio.get_running_loop().remove_reader(one)
            one.close()
        self._server.close()


class _Server(HTTPServer):
    """tornado's, with bounds: it has none on connections, nor on how long an answer is read."""

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
        """Also while no descriptors are left: tornado's own way of accepting would spin."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)  # tasks begin at once here, and what is told of is not all in place yet
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(0.5)
                continue
            if len(self._open) >= MAX_CONNECTIONS:
                self._end(next(iter(self._open)))
            self.handle_stream(IOStream(accepted, read_chunk_size=4096), address)
            await asyncio.sleep(0)  # where many wait, accepting one does not

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
    """What is said to which question."""

    def __init__(self, host: str, figures: Figures, ready: Ready) -> None:
        self._host = host.lower()
        self._figures = figures
        self._ready = ready
        self._rendering: asyncio.Task[bytes] | None = None

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:  # noqa: ARG002
        return _Question(self, request_conn)

    async def answer(self, line: RequestStartLine, headers: HTTPHeaders) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        if not self.is_addressed(headers) or _is_foreign(headers):
            return 403, _PLAIN, b"ask for it by its address\n"
        path = line.path.partition("?")[0]
        if path not in ("/livez", "/readyz", "/metrics"):
            return 404, _PLAIN, b"there are /livez, /readyz and /metrics\n"
        if line.method not in ("GET", "HEAD"):
            return 405, _PLAIN, b"GET or HEAD\n"
        if path == "/metrics":
            return 200, CONTENT_TYPE, await self._metrics()
        ready, said = self._ready() if path == "/readyz" else (True, "alive")
        return 200 if ready else 503, _PLAIN, f"{said}\n".encode()

    def is_addressed(self, headers: HTTPHeaders) -> bool:
        """Whether it was asked for as ourselves: a page in a browser may lead a name of its own here (DNS
        rebinding), and would then read the answer.
        """
        origin = parse_authority(headers.get("Host", ""), "http")
        if origin is None:
            return False
        return origin.host in ("localhost", self._host) or parse_address(origin.host) is not None

    async def _metrics(self) -> bytes:
        """One rendering at a time, and not in the event loop: there may be thousands of series."""
        if self._rendering is None or self._rendering.done():
            self._rendering = asyncio.get_running_loop().create_task(self._render())
        return await asyncio.shield(self._rendering)

    async def _render(self) -> bytes:
        return await asyncio.to_thread(render, await self._figures())


class _Question(HTTPMessageDelegate):
    """One request: answered as soon as its head is there, whatever it says of a body."""

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
    """Whether a browser says that another site's page asks."""
    return headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
