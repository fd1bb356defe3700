"""mitmweb as its own page uses it: the REST interface, and the WebSocket that tells of every change."""

import json
import socket
import time
import urllib.request
from typing import Any, Self
from urllib.error import HTTPError, URLError

import wsproto
from wsproto.events import AcceptConnection, BytesMessage, Message, Request, TextMessage

AUTHORIZATION = "Bearer test"
"""The password that the harness starts mitmweb with."""


class MitmWeb:
    """REST calls to the mitmweb that listens on `port`."""

    def __init__(self, port: int) -> None:
        self.port = port
        # Checking the password is made slow on purpose; the cookie that follows is not.
        direct = urllib.request.ProxyHandler({})
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(), direct)

    def answers(self) -> bool:
        """Whether it listens by now, which it does later than the proxy."""
        try:
            return bool(self.get("/state"))
        except URLError:
            return False

    def get(self, path: str) -> bytes:
        """The body of an answer, whatever its status."""
        url = f"http://127.0.0.1:{self.port}{path}"
        return self._open(urllib.request.Request(url, headers={"Authorization": AUTHORIZATION}))

    def clear(self) -> None:
        """Forget all flows and log lines so far."""
        self.send("POST", "/clear", {})
        assert not self.flows()

    def send(self, method: str, path: str, arguments: dict[str, Any]) -> tuple[int, str]:
        """Status and text of the answer to what the page would change."""
        # The cookie and its copy in a header need only be equal.
        headers = {"Authorization": AUTHORIZATION, "Cookie": "_mitmproxy_xsrf=test", "X-XSRFToken": "test"}
        headers["Content-Type"] = "application/json"
        url = f"http://127.0.0.1:{self.port}{path}"
        body = json.dumps(arguments).encode()
        try:
            request = urllib.request.Request(url, body, headers, method=method)
            with self._opener.open(request, timeout=10) as response:
                return response.status, response.read().decode("utf-8", "replace")
        except HTTPError as error:
            return error.code, error.read().decode("utf-8", "replace")

    def options(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = json.loads(self.get("/options"))
        return found

    def flows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.get("/flows"))
        return found

    def everything(self) -> bytes:
        """All that the page can show of all flows, of the log and of the options."""
        paths = ["/flows", "/flows/dump", "/events", "/options", "/state"]
        for flow in self.flows():
            for message in ("request", "response"):
                at = f"/flows/{flow['id']}/{message}"
                paths += [f"{at}/content.data", f"{at}/content/auto.json", f"{at}/content/raw.json"]
        return b"\n".join(path.encode() + b"\n" + self.get(path) for path in paths)

    def _open(self, request: urllib.request.Request) -> bytes:
        try:
            with self._opener.open(request, timeout=10) as response:
                return bytes(response.read())
        except HTTPError as error:
            return error.read()


class Updates:
    """The `/updates` WebSocket. Keeps all messages that came."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), 5)
        self._ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self.received = b""
        headers = [(b"Authorization", AUTHORIZATION.encode())]
        request = Request(host=f"127.0.0.1:{port}", target="/updates", extra_headers=headers)
        self._sock.sendall(self._ws.send(request))
        self._open = False
        deadline = time.monotonic() + 5
        while not self._open:
            self._more(deadline)

    def wait_for(self, text: str, timeout: float = 5.0) -> bool:
        """Wait until `text` stands in a message; false where it never does."""
        deadline = time.monotonic() + timeout
        try:
            while text.encode() not in self.received:
                self._more(deadline)
        except TimeoutError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def _more(self, deadline: float) -> None:
        self._sock.settimeout(max(0.001, deadline - time.monotonic()))
        data = self._sock.recv(65536)
        if not data:
            raise ConnectionError("mitmweb closed its WebSocket")
        self._ws.receive_data(data)
        for event in self._ws.events():
            if isinstance(event, AcceptConnection):
                self._open = True
            elif isinstance(event, TextMessage | BytesMessage):
                self._keep(event)

    def _keep(self, event: Message[Any]) -> None:
        self.received += event.data.encode() if isinstance(event.data, str) else bytes(event.data)
