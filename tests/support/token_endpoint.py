"""A token endpoint in the hands of a test: it records what it was asked, and answers as it is told."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl


@dataclass
class Asked:
    """One request to the endpoint."""

    path: str
    headers: dict[str, str]
    form: dict[str, str]


@dataclass
class Reply:
    """One answer. `body` is sent as JSON if it is no bytes; `raw` replaces everything."""

    status: int = 200
    body: Any = field(default_factory=dict)
    content_type: str = "application/json; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    raw: bytes | None = None


def token(value: str, expires_in: Any = 3600, **more: Any) -> Reply:
    return Reply(body={"access_token": value, "token_type": "Bearer", "expires_in": expires_in, **more})


def installation(value: str, seconds: Any = 3600) -> Reply:
    """GitHub's answer to an app."""
    end = seconds
    if isinstance(seconds, int) and not isinstance(seconds, bool):
        end = datetime.fromtimestamp(int(time.time()) + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Reply(201, {"token": value, "expires_at": end, "permissions": {"contents": "read"}})


def rubbish(issue: Callable[..., Reply], secret: str) -> dict[str, Reply]:
    """Answers that issue no token, whatever they say.

    Args:
        issue: returns the answer that would issue a token, for so many seconds.
        secret: what the endpoint was sent, and repeats.
    """
    good = issue("x" * 20)
    status, body = good.status, json.dumps(good.body)
    return {
        "an error": Reply(401, {"error": "invalid_client", "error_description": secret, "message": secret}),
        "a server error": Reply(500, b"oops"),
        "a redirect": Reply(302, b"", headers=(("Location", "https://evil.test/token"),)),
        "a redirect with a token": Reply(307, good.body, headers=(("Location", "/token2"),)),
        "another status": Reply(202, good.body),
        "no JSON": Reply(status, b"token=abc"),
        "another media type": Reply(status, good.body, "text/html"),
        "broken JSON": Reply(status, body[:-1].encode()),
        "a list": Reply(status, ["abc"]),
        "a member twice": Reply(status, (body[:-1] + ', "x": 1, "x": 2}').encode()),
        "no token": Reply(status, {"token_type": "bearer", "expires_in": 60}),
        "an empty token": issue(""),
        "a token with a line break": issue("abc\r\nX-Injected: 1"),
        "a token with a blank": issue("abc def"),
        "expired at once": issue("abc", 0),
        "expired before": issue("abc", -5),
        "an odd end": issue("abc", "soon"),
        "an end of true": issue("abc", True),
        "a huge body": Reply(status, b'{"token": "' + b"a" * 200_000 + b'"}'),
        "no HTTP": Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n"),
        "nothing": Reply(raw=b""),
    }


class TokenEndpoint:
    """Listens on a port of its own. `answer` gets each request and its number, from 1."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self.answer: Callable[[Asked, int], Reply] = lambda _, number: token(
            f"minted-token-number-{number:04}"
        )
        self._running = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"

    def reset(self) -> None:
        self.asked.clear()
        self.most_at_once = 0
        self.answer = lambda _, number: token(f"minted-token-number-{number:04}")

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0))).decode()
        asked = Asked(handler.path, {k.lower(): v for k, v in handler.headers.items()}, dict(parse_qsl(body)))
        with self._lock:
            self.asked.append(asked)
            number = len(self.asked)
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
        try:
            self._reply(handler, self.answer(asked, number))
        except OSError:
            pass
        finally:
            with self._lock:
                self._running -= 1

    def _reply(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        time.sleep(reply.delay)
        if reply.raw is not None:
            handler.wfile.write(reply.raw)
            handler.close_connection = True
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        handler.send_response(reply.status)
        for name, value in reply.headers:
            handler.send_header(name, value)
        handler.send_header("Content-Type", reply.content_type)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
