"""WebSocket handshakes, good and bent; an independent reader of them; an upstream that answers by a script."""

# ruff: noqa: E501 - tables of bytes, a row each

import base64
import contextlib
import re
import socket
import threading
from dataclasses import dataclass, field

from hypothesis import strategies as st

from support.accepting import accepted
from support.mutations import METHODS, MUTATIONS, Draw, Message, Samples
from support.verifier import Asked
from support.websocket import ACCEPT, KEYED, UPGRADE, VERSION, accept_of, frame, switching

WAYS = ("direct", "absolute", "intercept", "tunnel")
BEHIND_101 = b"only for a client that has switched"
ADMIN = b"GET /api/proxy/conn_ws/admin HTTP/1.1\r\nHost: presign.local\r\n\r\n"


@dataclass(frozen=True)
class HandshakeSample:
    """One draw: the bytes of the client, how they go, and how the upstream answers a handshake."""

    way: str
    data: bytes
    answer: str


LINES = (
    b"Upgrade: websocket", b"Upgrade: WebSocket", b"Upgrade: h2c", b"Upgrade: websocket, h2c", b"Upgrade: h2c, websocket",
    b"Upgrade:websocket", b"Upgrade:\twebsocket ", b"Upgrade: websocket/13", b"Upgrade: \"websocket\"", b"Upgrade: websocket,",
    b"Upgrade:", b"Upgrade : websocket", b"up_grade: websocket", b"Connection: Upgrade", b"Connection: keep-alive, Upgrade",
    b"Connection: upgrade", b"Connection: close", b"Connection: Upgrade, close", b"Connection: Sec-WebSocket-Key, Upgrade",
    b"Connection: Sec-WebSocket-Accept", b"Connection: Origin, Upgrade", b"Connection: Upgrade, Host", b"Connection: X-Custom",
    b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8", b"Sec-WebSocket-Version: 13, 8", b"Sec-WebSocket-Version: 013",
    b"Sec-WebSocket-Version:", b"Sec_WebSocket_Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAB==", b"Sec-WebSocket-Key: AAAA", b"Sec-WebSocket-Key:", b"Sec_WebSocket_Key: AAAA",
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==, AAAAAAAAAAAAAAAAAAAAAA==", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\x00",
    b"Sec-WebSocket-Protocol: chat", b"Sec-WebSocket-Protocol: chat, admin", b"Sec-WebSocket-Protocol: chat, chat",
    b"Sec-WebSocket-Protocol: ,", b"Sec-WebSocket-Protocol: a b", b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.mine",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits", b"Sec-WebSocket-Extensions: x\x0b",
    b"Sec-WebSocket-Accept: " + ACCEPT.encode(), b"Sec-WebSocket-Location: ws://evil.test/", b"Origin: https://page.test",
    b"Origin: null", b"Origin: https://evil.test", b"Content-Length: 0", b"Content-Length: 5", b"Transfer-Encoding: chunked",
    b"Expect: 100-continue", b"Expect: 101-switching-protocols", b"HTTP2-Settings: AAMAAABkAAQAAP__", b"X-A: b\nUpgrade: websocket",
    b"X-A: b\r\n Upgrade: websocket", b"X-A: b\rUpgrade: websocket",
)  # fmt: skip

BEHIND = (b"", frame(b"hello", masked=True), frame(b"x" * 300, masked=True) * 3, ADMIN, b"\r\n\r\n", b"0\r\n\r\n" + ADMIN, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")  # fmt: skip

ANSWERS: dict[str, bytes] = {
    "good": b"",  # the 101 of whatever key came
    "refused": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
    "plain": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    "no proof": switching().replace(b"Sec-WebSocket-Accept", b"X-Accept"),
    "a proof of something else": switching(accept="AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    "another protocol": switching().replace(b"websocket", b"h2c", 1),
    "a body": switching("Content-Length: 5"),
    "chunks": switching("Transfer-Encoding: chunked"),
    "an extension": switching("Sec-WebSocket-Extensions: nobody-asked"),
    "a subprotocol": switching("Sec-WebSocket-Protocol: nobody-asked"),
    "frames at once": frame(b"too early") + switching(),
    "nothing": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
}


def handshakes(samples: Samples) -> st.SearchStrategy[HandshakeSample]:
    """Handshakes to the connection conn_ws, most of them bent."""

    @st.composite
    def sample(draw: Draw) -> HandshakeSample:
        way = draw(st.sampled_from(WAYS))
        is_get = draw(st.integers(0, 9)) > 0
        message = samples.presigned(draw, way, "conn_ws", ("GET",) if is_get else METHODS)
        if is_get:
            _without_body(message)
        message.fields += [line.encode() for line in (*UPGRADE, VERSION, KEYED)]
        for _ in range(draw(st.sampled_from((0, 0, 1, 1, 2)))):
            _bend(draw, message)
        if draw(st.integers(0, 3)) == 0:
            draw(st.sampled_from(MUTATIONS))(draw, message)
        behind = draw(st.sampled_from(BEHIND))
        answer = draw(st.sampled_from(("good", "good", *ANSWERS)))
        return HandshakeSample(way, bytes(message) + behind, answer)

    return sample()


def _without_body(message: Message) -> None:
    message.body = b""
    message.fields = [
        line for line in message.fields if line[:7].lower() not in (b"content", b"transfe", b"expect:")
    ]


def _bend(draw: Draw, message: Message) -> None:
    """One line of the handshake more, less, or another one."""
    how = draw(st.sampled_from(("insert", "insert", "replace", "replace", "drop", "double")))
    at = len(message.fields) - 1 - draw(st.integers(0, min(3, len(message.fields) - 1)))
    if how == "insert":
        message.fields.insert(at + 1, draw(st.sampled_from(LINES)))
    elif how == "replace":
        name = message.fields[at].partition(b":")[0]
        same = [line for line in LINES if line.startswith(name)]
        message.fields[at] = draw(st.sampled_from(same or LINES))
    elif how == "drop":
        message.fields.pop(at)
    else:
        message.fields.insert(0, message.fields[at])


# -- an independent reader (RFC 6455, 4.2.1) --------------------------------------------------------------


def _elements(asked: Asked, name: bytes) -> list[bytes]:
    return [part.strip(b" \t").lower() for value in asked.all(name) for part in value.split(b",")]


def wants_websocket(asked: Asked) -> bool:
    """Whether an upstream could take this for a request to switch."""
    return b"websocket" in _elements(asked, b"upgrade")


def is_handshake(asked: Asked) -> bool:
    """Whether it is one to every reader: each field once, nothing that could be read in two ways."""
    connection = [one for one in _elements(asked, b"connection") if one]
    keys, names = asked.all(b"sec-websocket-key"), [name.lower() for name, _ in asked.fields]
    folded = [name.replace(b"_", b"-") for name in names]
    protocols = [
        one.strip(b" \t") for line in asked.all(b"sec-websocket-protocol") for one in line.split(b",")
    ]
    return (
        asked.method == b"GET"
        and asked.version == b"HTTP/1.1"
        and [one for one in _elements(asked, b"upgrade") if one] == [b"websocket"]
        and b"upgrade" in connection
        and b"close" not in connection
        and not any(one.startswith((b"sec-websocket-", b"host", b"origin")) for one in connection)
        and len(keys) == 1
        and folded.count(b"sec-websocket-key") == 1
        and _is_sixteen_bytes(keys[0])
        and asked.all(b"sec-websocket-version") == [b"13"]
        and folded.count(b"sec-websocket-version") == 1
        and not {b"content-length", b"transfer-encoding", b"expect"} & set(names)
        and len(set(protocols)) == len(protocols)
        and all(re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", one) for one in protocols)
    )


def _is_sixteen_bytes(key: bytes) -> bool:
    with contextlib.suppress(ValueError):
        raw = base64.b64decode(key, validate=True)
        return len(raw) == 16 and base64.b64encode(raw) == key
    return False


# -- the upstream -----------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What came on one connection."""

    head: bytes = b""
    tail: bytes = b""
    ended: threading.Event = field(default_factory=threading.Event)


class ScriptedUpstream:
    """Reads a head and answers; what comes behind it is kept, and sent back where it has switched."""

    def __init__(self) -> None:
        self.answer = "good"
        self._seen: list[Seen] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def take(self) -> list[Seen]:
        """What came since the last call, once it has ended."""
        seen, self._seen = self._seen, []
        for one in seen:
            assert one.ended.wait(30), f"a connection stays open: {one}"
        return seen

    def stop(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        for sock in accepted(self._listener):
            self._seen.append(seen := Seen())
            threading.Thread(target=self._serve, args=(sock, seen), daemon=True).start()

    def _serve(self, sock: socket.socket, seen: Seen) -> None:
        try:
            with sock, contextlib.suppress(OSError):
                sock.settimeout(20)
                data = b""
                while b"\r\n\r\n" not in data:
                    if not (piece := sock.recv(65536)):
                        seen.tail = data
                        return
                    data += piece
                head, _, seen.tail = data.partition(b"\r\n\r\n")
                seen.head = head + b"\r\n\r\n"
                self._answer(sock, seen)
                while piece := sock.recv(65536):
                    seen.tail += piece
        finally:
            seen.ended.set()

    def _answer(self, sock: socket.socket, seen: Seen) -> None:
        key = re.search(rb"(?im)^sec-websocket-key: ([^\r]*)\r$", seen.head)
        if key is None:
            sock.sendall(ANSWERS["plain"])
            sock.shutdown(socket.SHUT_WR)
        elif self.answer == "good":
            sock.sendall(switching(accept=accept_of(key[1].decode("latin-1"))) + frame(BEHIND_101))
        else:
            answer = ANSWERS[self.answer]
            sock.sendall(answer + (frame(BEHIND_101) if b"101 Switching" in answer else b""))
