"""Token endpoints, of OAuth 2.0 and of registries: one request on a connection of its own, with bounds."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol

import h11

from ..core.content_coding import CODINGS, UNREADABLE
from ..core.token_answer import MAX_ANSWER
from ..errors import Denied
from ..http.message import Fields, Origin
from .outward import Outward, announce
from .proxy_error import ProxyError

TIMEOUT: Final = 10.0
"""Seconds for everything: address, connection, TLS, the whole answer."""
_MAX_HEAD: Final = 16 * 1024
_PIECE: Final = 16 * 1024
_CODED: Final = CODINGS | UNREADABLE


class Judge(Protocol):
    """Judges where a connection to an origin of the configuration may lead."""

    def __call__(self, origin: Origin, *, direct: bool) -> Awaitable[Outward]:
        """Return how to connect to it. Raises Denied."""
        ...


class Answer(NamedTuple):
    """The answer of a token endpoint."""

    status: int
    content_type: bytes
    body: bytes


class Unwanted(Exception):
    """Nothing was sent to a token endpoint: no request that waits for the token is granted any more."""


Wanted = Callable[[], bool]
"""Returns whether a token is still needed, by a request that is granted in this very moment."""


class Endpoint(Protocol):
    """Sends requests to token endpoints."""

    async def ask(
        self,
        origin: Origin,
        target: bytes,
        fields: Fields,
        body: bytes | None,
        wanted: Wanted,
        *,
        direct: bool,
    ) -> Answer:
        """Send a request, if it is wanted in the moment in which it leaves.

        Args:
            body: of a POST; None for a GET.
            direct: without the gateway's proxy.

        Raises Denied("upstream"), Unwanted.
        """
        ...


class HttpEndpoint:
    """Token endpoints over HTTP/1.1. No redirect is followed, no connection kept.

    The destination is judged like an upstream: it is never the gateway itself or its store, and its
    certificate must be valid for the name in the configuration. It is reached through the gateway's proxy, as
    the upstream is. The `tls` of the connection is for its upstream alone: a client certificate is a
    credential, and an endpoint is often of somebody else.
    """

    def __init__(self, judge: Judge, context: Callable[[], ssl.SSLContext]) -> None:
        """Args: context: returns the TLS context for upstreams, as the options are now."""
        self._judge = judge
        self._context = context

    async def ask(
        self,
        origin: Origin,
        target: bytes,
        fields: Fields,
        body: bytes | None,
        wanted: Wanted,
        *,
        direct: bool,
    ) -> Answer:
        """Send a request, if it is wanted in the moment in which it leaves. Raises as `Endpoint.ask`."""
        try:
            async with asyncio.timeout(TIMEOUT):
                announce(await self._judge(origin, direct=direct))
                return await self._ask(origin, target, fields, body, wanted)
        except TimeoutError:
            raise Denied("upstream", "the token endpoint did not answer in time", status=504) from None
        except ssl.SSLCertVerificationError:
            raise Denied("upstream", "the certificate of the token endpoint is not trusted") from None
        except ProxyError as error:
            raise Denied("upstream", str(error)) from None
        except OSError:
            raise Denied("upstream", "the token endpoint cannot be reached") from None
        except h11.RemoteProtocolError:  # its text may quote the answer
            raise Denied("upstream", "the token endpoint does not answer with valid HTTP") from None

    async def _ask(
        self, origin: Origin, target: bytes, fields: Fields, body: bytes | None, wanted: Wanted
    ) -> Answer:
        secure = origin.scheme == "https"
        reader, writer = await asyncio.open_connection(
            origin.host,
            origin.port,
            ssl=self._context() if secure else None,
            server_hostname=origin.host if secure else None,
        )
        try:
            speaker = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
            framing = ((b"Host", origin.authority.encode("ascii")), (b"Connection", b"close"))
            length = ((b"Content-Length", str(len(body)).encode()),) if body is not None else ()
            method = b"GET" if body is None else b"POST"
            head = h11.Request(method=method, target=target, headers=[*framing, *fields, *length])
            if not wanted():  # a proxy, or TLS, may have taken its time
                raise Unwanted
            for event in (head, h11.Data(data=body or b""), h11.EndOfMessage()):
                writer.write(speaker.send(event) or b"")
            # An endpoint may answer, and close, before it has read everything. Its answer counts.
            with contextlib.suppress(OSError):
                await writer.drain()
            return await _answer(speaker, reader)
        finally:
            writer.transport.abort()


async def _answer(speaker: h11.Connection, reader: asyncio.StreamReader) -> Answer:
    """Read the answer. Raises Denied, OSError, h11.RemoteProtocolError."""
    status, content_type, body, read = 0, b"", b"", 0
    while True:
        event = speaker.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(_PIECE)
            read += len(data)
            if read > MAX_ANSWER + _MAX_HEAD:
                raise Denied("upstream", "the answer of the token endpoint is too large")
            speaker.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
            if status < 300:  # of others, the status says enough
                _check_head(event)
            content_type = next((value for name, value in event.headers if name == b"content-type"), b"")
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
            if len(body) > MAX_ANSWER:
                raise Denied("upstream", "the answer of the token endpoint is too large")
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, content_type, body)
        elif not isinstance(event, h11.InformationalResponse):
            raise Denied("upstream", "the token endpoint has closed the connection")


def _check_head(head: h11.Response) -> None:
    """Refuse a head that programs may read in different ways. Raises Denied.

    h11 takes any version of HTTP, and a Transfer-Encoding beside a Content-Length or in HTTP/1.0.
    """

    def values(name: bytes) -> list[bytes]:
        return [value for key, value in head.headers if key == name]

    codings = b",".join(values(b"content-encoding")).lower().split(b",")
    is_chunked = bool(values(b"transfer-encoding"))
    if not head.http_version.startswith(b"1."):
        raise Denied("upstream", "the token endpoint answers in another version of HTTP")
    if is_chunked and (values(b"content-length") or head.http_version == b"1.0"):
        raise Denied("upstream", "the token endpoint says in two ways where its answer ends")
    if len(values(b"content-type")) > 1:
        raise Denied("upstream", "the token endpoint answers with several media types")
    if not _CODED.isdisjoint(map(bytes.strip, codings)):
        raise Denied("upstream", "the token endpoint answers in a coding that was not asked for")
