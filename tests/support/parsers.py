"""Upstreams that are real HTTP parsers: each tells what it took for a request, and answers with that.

The answer repeats all header fields, and with them the credential: the gateway has to mask it.
"""

import asyncio
import contextlib
import importlib.util
import json
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import trustme

Pairs = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Parsed:
    """One request as a parser read it, to its end. `folded`: it shows names upper-case with `_`, as CGI."""

    parser: str
    method: bytes
    target: bytes
    fields: Pairs
    body: bytes
    folded: bool = False

    def answer(self) -> bytes:
        """What the application says: everything it knows."""
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.fields]
        seen = {"target": self.target.decode("latin-1"), "fields": fields, "length": len(self.body)}
        return json.dumps(seen).encode()


class Parsers:
    """All parsers that are installed, each on a port of its own, in this process. Thread-safe."""

    NAMES = ("h11", "uvicorn", "aiohttp", "tornado", "gunicorn", "waitress")
    NEEDS: ClassVar = {"uvicorn": ("uvicorn", "httptools")}

    def __init__(self, cert: trustme.LeafCert) -> None:
        self.ports: dict[str, int] = {}
        self.tls_port = 0
        self.missing = [name for name in self.NAMES if not self._installed(name)]
        self._lock = threading.Lock()
        self._parsed: list[Parsed] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cert.configure_cert(self._context)
        self._context.set_alpn_protocols(["http/1.1"])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="parsers", daemon=True)
        self._cleanup: list[Callable[[], Any]] = []

    @classmethod
    def _installed(cls, name: str) -> bool:
        return all(importlib.util.find_spec(module) for module in cls.NEEDS.get(name, (name,)))

    def start(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(20)
        return self

    def stop(self) -> None:
        for clean in reversed(self._cleanup):
            with contextlib.suppress(Exception):
                clean()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def take(self) -> list[Parsed]:
        """All requests since the last call, in the order in which their ends arrived."""
        with self._lock:
            taken, self._parsed = self._parsed, []
            return taken

    def _note(self, parsed: Parsed) -> bytes:
        with self._lock:
            self._parsed.append(parsed)
        return parsed.answer()

    async def _start(self) -> None:
        for name in self.NAMES:
            if name not in self.missing:
                listening = socket.create_server(("127.0.0.1", 0), backlog=512)
                self.ports[name] = listening.getsockname()[1]
                await getattr(self, f"_{name}")(listening)
        secure = await asyncio.start_server(self._h11_connection, "127.0.0.1", 0, ssl=self._context)
        self.tls_port = secure.sockets[0].getsockname()[1]

    # -- h11 ------------------------------------------------------------------------------------------

    async def _h11(self, listening: socket.socket) -> None:
        self._h11_server = await asyncio.start_server(self._h11_connection, sock=listening)

    async def _h11_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import h11

        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=256 * 1024)
        request, body = None, b""
        try:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Request):
                    request, body = event, b""
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage) and request is not None:
                    fields = tuple(request.headers.raw_items())
                    answer = self._note(Parsed("h11", request.method, request.target, fields, body))
                    head = [("Content-Length", str(len(answer))), ("Content-Type", "application/json")]
                    writer.write(connection.send(h11.Response(status_code=200, headers=head)) or b"")
                    if request.method != b"HEAD":
                        writer.write(connection.send(h11.Data(data=answer)) or b"")
                    writer.write(connection.send(h11.EndOfMessage()) or b"")
                    await writer.drain()
                    if connection.our_state is h11.MUST_CLOSE:
                        break
                    connection.start_next_cycle()
                else:
                    break
        except h11.RemoteProtocolError:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        except OSError:
            pass
        writer.close()

    # -- uvicorn, with httptools ----------------------------------------------------------------------

    async def _uvicorn(self, listening: socket.socket) -> None:
        import uvicorn

        config = uvicorn.Config(
            self._asgi, interface="asgi3", http="httptools", ws="none", lifespan="off", log_level="error"
        )
        server = uvicorn.Server(config)
        self._uvicorn_task = asyncio.create_task(server.serve(sockets=[listening]))
        self._cleanup.append(lambda: setattr(server, "should_exit", True))

    async def _asgi(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        fields = tuple((name, value) for name, value in scope["headers"])
        answer = self._note(Parsed("uvicorn", scope["method"].encode(), target, fields, body))
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": answer})

    # -- aiohttp --------------------------------------------------------------------------------------

    async def _aiohttp(self, listening: socket.socket) -> None:
        from aiohttp import web

        async def handle(request: web.BaseRequest) -> web.Response:
            body = await request.read()
            path = request.raw_path.encode("utf-8", "surrogateescape")
            method = request.method.encode()
            answer = self._note(Parsed("aiohttp", method, path, tuple(request.raw_headers), body))
            return web.Response(body=answer, content_type="application/json")

        runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        self._cleanup.append(lambda: asyncio.run_coroutine_threadsafe(runner.cleanup(), self._loop).result(5))

    # -- tornado --------------------------------------------------------------------------------------

    async def _tornado(self, listening: socket.socket) -> None:
        from tornado import httputil
        from tornado.httpserver import HTTPServer

        note = self._note

        class Delegate(httputil.HTTPMessageDelegate):
            def __init__(self, connection: httputil.HTTPConnection) -> None:
                self.connection, self.body = connection, b""

            def headers_received(self, start_line: Any, headers: httputil.HTTPHeaders) -> None:
                self.line, self.headers = start_line, headers

            def data_received(self, chunk: bytes) -> None:
                self.body += chunk

            def finish(self) -> None:
                fields = tuple((n.encode("latin-1"), v.encode("latin-1")) for n, v in self.headers.get_all())
                target = self.line.path.encode("latin-1")
                parsed = Parsed("tornado", self.line.method.encode("latin-1"), target, fields, self.body)
                answer = note(parsed)
                head = httputil.HTTPHeaders({"Content-Type": "application/json"})
                head["Content-Length"] = str(len(answer))
                line = httputil.ResponseStartLine("HTTP/1.1", 200, "OK")
                with contextlib.suppress(Exception):  # a client that has gone
                    self.connection.write_headers(line, head, b"" if self.line.method == "HEAD" else answer)
                    self.connection.finish()

        class Application(httputil.HTTPServerConnectionDelegate):
            def start_request(self, server_conn: object, request_conn: Any) -> Delegate:
                return Delegate(request_conn)

        listening.setblocking(False)
        server = HTTPServer(Application())
        server.add_sockets([listening])
        self._tornado_server = server

    # -- gunicorn: its parser alone, because its server forks -----------------------------------------

    async def _gunicorn(self, listening: socket.socket) -> None:
        self._accept_in_thread(listening, self._gunicorn_connection)

    def _gunicorn_connection(self, sock: socket.socket, peer: Any) -> None:
        from gunicorn.config import Config
        from gunicorn.http.parser import RequestParser

        try:
            for request in RequestParser(Config(), sock, peer):
                body = request.body.read()
                fields = tuple((n.encode("latin-1"), v.encode("latin-1")) for n, v in request.headers)
                method, target = request.method.encode("latin-1"), request.uri.encode("latin-1")
                if any(n == b"CONTENT-LENGTH" and int(v) > len(body) for n, v in fields):
                    break  # cut off, of which the parser alone says nothing
                answer = self._note(Parsed("gunicorn", method, target, fields, body))
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                sock.sendall(head % len(answer) + (b"" if method == b"HEAD" else answer))
                if request.should_close():
                    break
        except Exception:
            with contextlib.suppress(OSError):
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        sock.close()

    def _accept_in_thread(
        self, listening: socket.socket, serve: Callable[[socket.socket, Any], None]
    ) -> None:
        listening.setblocking(True)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted = listening.accept()
                    threading.Thread(target=serve, args=accepted, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        self._cleanup.append(lambda: listening.shutdown(socket.SHUT_RDWR))

    # -- waitress -------------------------------------------------------------------------------------

    async def _waitress(self, listening: socket.socket) -> None:
        from waitress.server import create_server

        server = create_server(self._wsgi, sockets=[listening], threads=4, _start=True, ident=None)
        threading.Thread(target=server.run, daemon=True).start()

    def _wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        body = environ["wsgi.input"].read()
        fields = [
            (name.removeprefix("HTTP_").encode("latin-1"), value.encode("latin-1"))
            for name, value in environ.items()
            if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
        ]
        method = environ["REQUEST_METHOD"].encode("latin-1")
        target = environ["REQUEST_URI"].encode("latin-1")
        answer = self._note(Parsed("waitress", method, target, tuple(fields), body, folded=True))
        head = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
        start_response("200 OK", head)
        return [answer]
