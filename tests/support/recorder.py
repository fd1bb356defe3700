"""A recording upstream: real sockets in a thread of its own, plain HTTP and, with a certificate, TLS."""

import asyncio
import contextlib
import ssl
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Self

import trustme

from support.h1server import HEAD_LIMIT, Peer, serve_h1
from support.h2server import H2Server
from support.seen import Seen, SeenLog

Accepted = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Recorder:
    """Records every request and answers by the last path segment (`support.answers`).

    `port` speaks HTTP/1.1; `tls_port` exists where `cert` is given and offers `alpn`. `required` is a header
    and its value without which every request gets 401.
    """

    def __init__(
        self,
        cert: trustme.LeafCert | None = None,
        alpn: Sequence[str] = ("http/1.1",),
        required: tuple[str, str] | None = None,
        port: int = 0,
        tls_port: int = 0,
        host: str = "127.0.0.1",
    ) -> None:
        self.host, self.port, self.tls_port = host, port, tls_port
        self.required = required
        self.errors: list[str] = []
        self._servers: list[asyncio.Server] = []
        self._log = SeenLog()
        self._sni: weakref.WeakKeyDictionary[Any, str | None] = weakref.WeakKeyDictionary()
        self._context = self._tls_context(cert, alpn) if cert else None
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: self.errors.append(str(context)))
        self._thread = threading.Thread(target=self._loop.run_forever, name="recorder", daemon=True)

    def start(self) -> Self:
        """Listen. Raises OSError where a wanted port is taken or reserved."""
        self._thread.start()
        try:
            self._submit(self._listen()).result(10)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        if self._loop.is_closed():
            return
        self._submit(self._cancel()).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def requests(self) -> list[Seen]:
        """All requests since the last `clear`, also those whose body is still under way."""
        return self._log.requests

    @property
    def fragments(self) -> list[bytes]:
        """Bytes that never became a request."""
        return self._log.fragments

    @property
    def connections(self) -> int:
        """Connections accepted since the last `clear`."""
        return self._log.connections

    @property
    def touched(self) -> bool:
        """Whether any byte arrived."""
        return bool(self.requests or self.fragments)

    def clear(self) -> None:
        self._log.clear()

    def take(self) -> tuple[list[Seen], list[bytes]]:
        """The requests and the fragments since the last time, each handed out once."""
        return self._log.take()

    def wait_for(self, count: int, timeout: float = 5.0) -> list[Seen]:
        """Wait until `count` requests were received to their end; returns all, also on time-out."""
        return self._log.wait_for(count, timeout)

    def wait_for_heads(self, count: int, timeout: float = 5.0) -> list[Seen]:
        """Wait until `count` heads have arrived, their bodies perhaps still under way."""
        return self._log.wait_for_heads(count, timeout)

    def _submit(self, coroutine: Any) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _tls_context(self, cert: trustme.LeafCert, alpn: Sequence[str]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cert.configure_cert(context)
        context.set_alpn_protocols(list(alpn))

        def note(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            self._sni[tls] = name

        context.sni_callback = note
        return context

    async def _listen(self) -> None:
        self.port = await self._serve_on(self._plain, self.port, None)
        if self._context:
            self.tls_port = await self._serve_on(self._secure, self.tls_port, self._context)

    async def _serve_on(self, accepted: Accepted, port: int, context: ssl.SSLContext | None) -> int:
        server = await asyncio.start_server(
            accepted, self.host, port, limit=HEAD_LIMIT, backlog=1024, ssl=context
        )
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _cancel(self) -> None:
        for server in self._servers:
            server.close()
        # A connection that was being accepted has its task only in the next round.
        for _ in range(3):
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0.01)

    async def _plain(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._serve(reader, writer, Peer(self._log.connected()))

    async def _secure(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        peer = Peer(self._log.connected(), True, self._sni.get(tls), tls.selected_alpn_protocol())
        await self._serve(reader, writer, peer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
        # A peer that goes away in the middle is an ordinary event for an upstream, not a failure of the test.
        try:
            with contextlib.suppress(
                ConnectionError, ssl.SSLError, asyncio.IncompleteReadError, TimeoutError
            ):
                if peer.alpn == "h2":
                    await H2Server(reader, writer, peer, self._log, self.required).serve()
                else:
                    await serve_h1(reader, writer, peer, self._log, self.required)
        finally:
            writer.close()  # also where the whole recorder is stopped
