"""How the recording upstream answers: by the last segment of the path, so it works under any base path."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from urllib.parse import parse_qs

from support.seen import Headers, Seen

PIECE = bytes(range(256)) * 256
"""64 KiB, of which downloads are made."""


@dataclass(frozen=True)
class Answer:
    """A response as a value; the servers for HTTP/1.1 and HTTP/2 each know how to write it."""

    status: int = 200
    headers: Headers = (("Content-Type", "application/json"),)
    body: bytes = b'{"ok": true}'
    stream: Callable[[], AsyncIterator[bytes]] | None = None
    """Instead of `body`: pieces as they come."""
    length: int | None = None
    """Of the stream; where unknown, the answer is chunked."""
    trailers: Headers = ()
    verbatim: bytes | None = None
    """Written as it is, then the connection is closed."""
    delay: float = 0.0


def answer(request: Seen, required: tuple[str, str] | None = None) -> Answer:
    """The answer to `request`; 401 where the `required` header and value are missing."""
    if required and required[1] not in request.all(required[0]):
        return Answer(401, body=b'{"error": "no key"}')
    behaviour = BEHAVIOURS.get(segment(request))
    return behaviour(request) if behaviour else Answer()


def segment(request: Seen) -> str:
    """The last path segment of the request."""
    return request.target.partition("?")[0].rpartition("/")[2]


def answers_early(request: Seen) -> bool:
    """Whether this request is answered before its body has been read."""
    return segment(request) == "early"


def credential(request: Seen) -> str:
    """What an echoing upstream would give away: `Authorization`, else whatever looks like a key."""
    found = [value for name, value in request.headers if name.lower() == "authorization"]
    keyish = re.compile(r"key|token|secret", re.IGNORECASE)
    found += [value for name, value in request.headers if "REALSECRET" in value or keyish.search(name)]
    found += [value for values in parse_qs(request.target.partition("?")[2]).values() for value in values]
    return next(iter(found), "")


def _query(request: Seen, name: str, default: int) -> int:
    return int(parse_qs(request.target.partition("?")[2]).get(name, [str(default)])[0])


def _text(body: str) -> Answer:
    return Answer(headers=(("Content-Type", "text/plain"),), body=body.encode("latin-1"))


def _echo(request: Seen) -> Answer:
    seen = {
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "length": request.length,
        "sha256": request.sha256,
    }
    return Answer(body=json.dumps(seen).encode())


def _redirect(location: str) -> Answer:
    return Answer(302, headers=(("Location", location), ("Content-Type", "text/plain")), body=b"moved")


def _redirect_inside(request: Seen) -> Answer:
    scheme = "https" if request.tls else "http"
    host = request.header(":authority") or request.header("host") or ""
    parent = request.target.partition("?")[0].rpartition("/")[0]
    return _redirect(f"{scheme}://{host}{parent}/elsewhere")


def _download(request: Seen) -> Answer:
    total = _query(request, "bytes", 1024)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, total, len(PIECE)):
            yield PIECE[: total - start]

    return Answer(headers=(("Content-Type", "application/octet-stream"),), stream=pieces, length=total)


def _pieces(*parts: bytes, pause: float = 0.0) -> Callable[[], AsyncIterator[bytes]]:
    async def stream() -> AsyncIterator[bytes]:
        for number, part in enumerate(parts):
            if number:
                await asyncio.sleep(pause)
            yield part

    return stream


def _sse(request: Seen) -> Answer:
    events = [f"id: {n}\ndata: event {n}\n\n".encode() for n in range(5)]
    headers = (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"))
    return Answer(headers=headers, stream=_pieces(*events, pause=0.2))


def _reflected(request: Seen) -> Answer:
    return Answer(
        headers=(("X-Reflect", credential(request)), ("Content-Type", "text/plain")), body=b"see header"
    )


def _cookie(request: Seen) -> Answer:
    cookie = ("Set-Cookie", "session=upstream; Path=/; HttpOnly")
    return Answer(headers=(cookie, ("WWW-Authenticate", 'Bearer realm="upstream"'), *Answer().headers))


def _trailers(request: Seen) -> Answer:
    headers = (("Content-Type", "text/plain"), ("Trailer", "X-Checksum"))
    return Answer(headers=headers, stream=_pieces(b"one ", b"two"), trailers=(("X-Checksum", "12"),))


def _verbatim(text: str) -> Answer:
    return Answer(verbatim=text.encode("latin-1"))


BEHAVIOURS: dict[str, Callable[[Seen], Answer]] = {
    "hdrreflect": _reflected,
    "bodyreflect": lambda request: _text(f"you sent {credential(request)} to me"),
    "rawecho": lambda request: _verbatim(f"HTTP/1.1 200 OK\r\nX-Echo: {credential(request)}\r\n"),
    "garbage": lambda request: _verbatim(f"NOT HTTP {credential(request)}\r\n\r\n"),
    "close": lambda request: _verbatim(""),
    "redirect": lambda request: _redirect("http://other.test/elsewhere"),
    "redirect-inside": _redirect_inside,
    "sse": _sse,
    "echo": _echo,
    "download": _download,
    "chunked": lambda request: Answer(stream=_pieces(b'{"ok"', b": ", b"true}", pause=0.02)),
    "trailers": _trailers,
    "nocontent": lambda request: Answer(204, headers=(), body=b""),
    "notmodified": lambda request: Answer(304, headers=(("ETag", '"1"'),), body=b""),
    "setcookie": _cookie,
    "slow": lambda request: Answer(delay=3.0),
    "status": lambda request: Answer(_query(request, "code", 200)),
}
