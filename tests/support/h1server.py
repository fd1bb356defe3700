"""The HTTP/1.1 half of the recording upstream: strict about framing, and losing no byte of what it reads."""

import asyncio
import re
from dataclasses import dataclass
from http import HTTPStatus

from support.answers import Answer, answer, answers_early
from support.seen import Headers, Seen, SeenLog

HEAD_LIMIT = 1024 * 1024
READ_SIZE = 256 * 1024


class Unframed(Exception):
    """The request's body has no agreed end: the ambiguity that request smuggling lives on."""


@dataclass(frozen=True)
class Peer:
    """What is known of a connection before its first request."""

    number: int
    tls: bool = False
    sni: str | None = None
    alpn: str | None = None


async def serve_h1(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    peer: Peer,
    log: SeenLog,
    required: tuple[str, str] | None,
) -> None:
    """Answer requests on one connection until either side has had enough."""
    while (head := await _read_head(reader, log)) is not None:
        request = _parse(head, peer)
        log.started(request)
        try:
            if not await _serve_one(reader, writer, request, log, required):
                return
        except Unframed:
            await _write(writer, request, Answer(400, body=b'{"error": "framing"}'))
            return


async def _serve_one(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: Seen,
    log: SeenLog,
    required: tuple[str, str] | None,
) -> bool:
    """Read and answer one request; false where the connection ends with it."""
    early = answers_early(request)
    if early:
        await _write(writer, request, answer(request, required))
    elif (request.header("expect") or "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await _read_body(reader, request)
    log.finished(request)
    if not early and not await _write(writer, request, answer(request, required)):
        return False
    return "close" not in (request.header("connection") or "").lower() and b"HTTP/1.0\r\n" not in request.raw


async def _read_head(reader: asyncio.StreamReader, log: SeenLog) -> bytes | None:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as end:
        log.fragment(end.partial)
    except asyncio.LimitOverrunError:
        log.fragment(await reader.read(HEAD_LIMIT))
    return None


def _parse(head: bytes, peer: Peer) -> Seen:
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    fields = tuple((name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines))
    return Seen(
        raw=head,
        method=method,
        target=rest.rpartition(" ")[0],
        headers=fields,
        connection=peer.number,
        tls=peer.tls,
        sni=peer.sni,
        alpn=peer.alpn,
    )


async def _read_body(reader: asyncio.StreamReader, request: Seen) -> None:
    lengths, codings = request.all("content-length"), request.all("transfer-encoding")
    if not re.search(rb" HTTP/1\.[01]\r\n", request.raw) or len(lengths) + len(codings) > 1:
        raise Unframed
    if codings:
        if codings[0].lower() != "chunked":
            raise Unframed
        await _read_chunked(reader, request)
    elif lengths:
        if not re.fullmatch(r"[0-9]+", lengths[0]):
            raise Unframed
        await _read_exactly(reader, request, int(lengths[0]))


async def _read_exactly(reader: asyncio.StreamReader, request: Seen, left: int) -> None:
    while left:
        data = await reader.read(min(left, READ_SIZE))
        if not data:
            raise ConnectionError("the body ended early")
        request.feed(data)
        left -= len(data)


async def _read_chunked(reader: asyncio.StreamReader, request: Seen) -> None:
    while size := _chunk_size(await reader.readline()):
        await _read_exactly(reader, request, size)
        if await reader.readexactly(2) != b"\r\n":
            raise Unframed
    while (line := await reader.readline()) != b"\r\n":
        if not line:
            raise ConnectionError("the trailers ended early")
        request.trailers += line


def _chunk_size(line: bytes) -> int:
    if not line:
        raise ConnectionError("the chunks ended early")
    match = re.fullmatch(rb"([0-9a-fA-F]{1,8})(?:;[^\r\n]*)?\r\n", line)
    if not match:
        raise Unframed
    return int(match[1], 16)


async def _write(writer: asyncio.StreamWriter, request: Seen, reply: Answer) -> bool:
    """Send the answer; false where the connection has to be closed after it."""
    await asyncio.sleep(reply.delay)
    if reply.verbatim is not None:
        writer.write(reply.verbatim)
        await writer.drain()
        return False
    bodiless = reply.status < 200 or reply.status in (204, 304)
    chunked = reply.stream is not None and reply.length is None
    writer.write(_head(reply, () if bodiless else _framing(reply, chunked)))
    if not bodiless and request.method != "HEAD":
        await _write_body(writer, reply, chunked)
    await writer.drain()
    return True


def _framing(reply: Answer, chunked: bool) -> Headers:
    if chunked:
        return (("Transfer-Encoding", "chunked"),)
    length = len(reply.body) if reply.length is None else reply.length
    return (("Content-Length", str(length)),)


def _head(reply: Answer, framing: Headers) -> bytes:
    try:
        reason = HTTPStatus(reply.status).phrase
    except ValueError:
        reason = "Unnamed"
    lines = [f"HTTP/1.1 {reply.status} {reason}"]
    lines += [f"{name}: {value}" for name, value in (*reply.headers, *framing)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _write_body(writer: asyncio.StreamWriter, reply: Answer, chunked: bool) -> None:
    if reply.stream is None:
        writer.write(reply.body)
        return
    async for piece in reply.stream():
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await writer.drain()
    if chunked:
        trailers = "".join(f"{name}: {value}\r\n" for name, value in reply.trailers)
        writer.write(b"0\r\n" + trailers.encode("latin-1") + b"\r\n")
