"""The HTTP/2 half of the recording upstream: `h2` with its header checks off, as it records, not judges."""

import asyncio

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from support.answers import Answer, answer, answers_early
from support.h1server import Peer
from support.seen import Headers, Seen, SeenLog


class H2Server:
    """One HTTP/2 connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        peer: Peer,
        log: SeenLog,
        required: tuple[str, str] | None,
    ) -> None:
        self._reader, self._writer, self._peer, self._log = reader, writer, peer, log
        self._required = required
        self._streams: dict[int, Seen] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._window = asyncio.Event()
        config = h2.config.H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
        )
        self._h2 = h2.connection.H2Connection(config)

    async def serve(self) -> None:
        """Read frames until the peer has had enough."""
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(2**24)
        await self._flush()
        data = b""
        try:
            while data := await self._reader.read(256 * 1024):
                for event in self._h2.receive_data(data):
                    self._handle(event)
                await self._flush()
        except h2.exceptions.ProtocolError:
            self._log.fragment(data)
        finally:
            for task in self._tasks:
                task.cancel()

    def _handle(self, event: h2.events.Event) -> None:
        self._window.set()
        match event:
            case h2.events.RequestReceived():
                self._open(event.stream_id, event.headers)
            case h2.events.DataReceived():
                self._streams[event.stream_id].feed(event.data)
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                self._streams[event.stream_id].trailers += _lines(_text(event.headers))
            case h2.events.StreamEnded():
                self._end(event.stream_id)

    def _open(self, stream: int, fields: list[tuple[bytes, bytes]]) -> None:
        headers = _text(fields)
        pseudo = dict(headers)
        method, path = pseudo.get(":method", ""), pseudo.get(":path", "")
        shown = tuple(field for field in headers if field[0] not in (":method", ":path"))
        head = f"{method} {path} HTTP/2\r\n".encode("latin-1") + _lines(shown) + b"\r\n"
        peer = self._peer
        request = Seen(head, method, path, headers, peer.number, peer.tls, peer.sni, peer.alpn)
        self._streams[stream] = request
        self._log.started(request)
        if answers_early(request):
            self._answer(stream)

    def _end(self, stream: int) -> None:
        request = self._streams[stream]
        self._log.finished(request)
        if not answers_early(request):
            self._answer(stream)

    def _answer(self, stream: int) -> None:
        request = self._streams[stream]
        reply = answer(request, self._required)
        task = asyncio.create_task(self._write(stream, reply, request.method == "HEAD"))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, stream: int, reply: Answer, head_only: bool) -> None:
        await asyncio.sleep(reply.delay)
        if reply.verbatim is not None:
            # HTTP/2 has no way to say something unparseable on one stream: all of these end the connection.
            self._writer.close()
            return
        bodiless = head_only or reply.status in (204, 304)
        self._h2.send_headers(stream, _response_headers(reply), end_stream=bodiless)
        if not bodiless:
            await self._write_body(stream, reply)
        await self._flush()

    async def _write_body(self, stream: int, reply: Answer) -> None:
        if reply.stream is None:
            await self._send(stream, reply.body)
        else:
            async for piece in reply.stream():
                await self._send(stream, piece)
        if reply.trailers:
            trailers = [(name.lower(), value) for name, value in reply.trailers]
            self._h2.send_headers(stream, trailers, end_stream=True)
        else:
            self._h2.end_stream(stream)

    async def _send(self, stream: int, data: bytes) -> None:
        while data:
            room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if room <= 0:
                self._window.clear()
                await self._window.wait()
                continue
            self._h2.send_data(stream, data[:room])
            data = data[room:]
            await self._flush()

    async def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())
        await self._writer.drain()


def _response_headers(reply: Answer) -> list[tuple[str, str]]:
    length = len(reply.body) if reply.stream is None else reply.length
    fields = [(":status", str(reply.status))] + [(name.lower(), value) for name, value in reply.headers]
    if length is not None and reply.status not in (204, 304):
        fields.append(("content-length", str(length)))
    return fields


def _text(fields: list[tuple[bytes, bytes]]) -> Headers:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields)


def _lines(fields: Headers) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")
