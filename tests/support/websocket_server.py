"""An upstream that speaks WebSocket, as the library `websockets` does: an echo, and a small realtime API."""

import json
import ssl
import threading
from http import HTTPStatus
from typing import Any, Self

import trustme
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from support.apis import OWN_KEY
from support.lab import REAL_SECRET

WORDS = ("Hello", " from", " the", " other", " side")


class WebSocketServer:
    """Serves those that bring the real credential. Keeps the heads of all handshakes."""

    def __init__(self, cert: trustme.LeafCert | None = None, *, compression: str | None = "deflate") -> None:
        context = None
        if cert is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            cert.configure_cert(context)
        self.heads: list[Request] = []
        self._server: Server = serve(
            self._talk,
            "127.0.0.1",
            0,
            ssl=context,
            process_request=self._let_in,
            subprotocols=["realtime", "chat"],  # type: ignore[list-item]  # plain strings do
            select_subprotocol=_first,
            compression=compression,
        )
        self.port = int(self._server.socket.getsockname()[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _let_in(self, connection: ServerConnection, request: Request) -> Response | None:
        self.heads.append(request)
        if request.headers.get("Authorization") != f"Bearer {REAL_SECRET}":
            return connection.respond(HTTPStatus.UNAUTHORIZED, "who are you?\n")
        if request.path.startswith("/v1/refused"):
            return connection.respond(HTTPStatus.FORBIDDEN, f"not with {REAL_SECRET}\n")
        return None

    def _talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        realtime = "/realtime" in connection.request.path
        if realtime:
            connection.send(_event("session.created", session={"type": "realtime", "id": "sess_1"}))
        try:
            for message in connection:
                if not realtime:
                    connection.send(message)
                elif json.loads(message)["type"] == "response.create":
                    for word in WORDS:
                        connection.send(_event("response.output_text.delta", delta=word))
                    connection.send(_event("response.done", response={"id": "resp_1", "status": "completed"}))
        except ConnectionClosed:
            pass

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(5)


def check_sent(server: WebSocketServer) -> None:
    """What reached the upstream holds the credential, and nothing of the client's or the gateway's."""
    assert server.heads
    for head in server.heads:
        text = f"{head.path}\n{head.headers}".lower()
        assert head.headers.get_all("Authorization") == [f"Bearer {REAL_SECRET}"]
        for secret in ("presign", "ps1_", OWN_KEY, "sk-client", "proxy-", "cookie", "forwarded", "insecure"):
            assert secret not in text


def _first(_: ServerConnection, offered: Any) -> Any:
    return next((one for one in offered if one in ("realtime", "chat")), None)


def _event(kind: str, **members: Any) -> str:
    return json.dumps(
        {"type": kind, "event_id": "event_1", "response_id": "resp_1", "item_id": "i"} | members
    )
