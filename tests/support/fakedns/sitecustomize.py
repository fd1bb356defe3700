"""Answers `socket.getaddrinfo` for the names in $FAKE_DNS; every other name resolves as ever.

FAKE_DNS is JSON: name -> ["127.0.0.1", …], or name -> [["93.184.216.34"], ["127.0.0.1"]] for answers that
change from call to call (the last one stays). `127.0.0.1#8001` replaces the port too, so that a name dialled
at port 80 ends at a listener of the test. `hang:20` before the addresses keeps the calling thread for twenty
seconds first, as the C library does with a server that is silent. `*.slow.test` is every name below.
Every name asked for is appended to $FAKE_DNS_LOG, if set.

FAKE_ROUTES is JSON, too: address -> "127.0.0.1#8001", where a connection to that address really goes. So a
name may have a public address, and nothing leaves the machine. Needs $WITHOUT_UVLOOP: that loop dials in C.

$WITHOUT_UVLOOP makes a process one in which uvloop is not installed.
"""

import json
import os
import socket
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

Info = tuple[socket.AddressFamily, int, int, str, tuple[Any, ...]]


class FakeDns:
    """The names of the test, in front of the real resolver."""

    def __init__(self, names: dict[str, list[Any]], log_path: Path | None) -> None:
        self._names = {name.lower(): answers for name, answers in names.items()}
        self._log_path = log_path
        self._calls: dict[str, int] = {}
        self._lock = threading.Lock()
        self._real = socket.getaddrinfo

    def getaddrinfo(
        self, host: bytes | str | None, port: bytes | str | int | None, *args: int, **named: int
    ) -> Any:
        """As `socket.getaddrinfo(host, port, family, type, proto, flags)`."""
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else host or ""
        self._note(name)
        # As in DNS: case does not matter, and a final dot names the same host.
        key = name.lower().removesuffix(".")
        if key not in self._names:
            key = "*." + key.partition(".")[2]
        if key not in self._names:
            return self._real(host, port, *args, **named)
        given = dict(zip(("family", "type", "proto", "flags"), args, strict=False)) | named
        kind = given.get("type", 0) or socket.SOCK_STREAM
        found = [_info(address, port, kind) for address in _late(self._answer(key))]
        found = [info for info in found if given.get("family", 0) in (0, info[0])]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    def _answer(self, name: str) -> list[str]:
        answers = self._names[name]
        if not answers or isinstance(answers[0], str):
            return answers
        with self._lock:
            call = self._calls[name] = self._calls.get(name, 0) + 1
        changing: list[list[str]] = answers
        return changing[min(call, len(changing)) - 1]

    def _note(self, name: str) -> None:
        if self._log_path:
            with self._lock, self._log_path.open("a", encoding="utf-8") as log:
                log.write(name + "\n")


def _late(answer: list[str]) -> list[str]:
    """The addresses of an answer, once it is due."""
    if answer and answer[0].startswith("hang:"):
        time.sleep(float(answer[0].removeprefix("hang:")))
        return answer[1:]
    return answer


def _info(address: str, port: bytes | str | int | None, kind: int) -> Info:
    host, _, replaced = address.partition("#")
    number = int(replaced or port or 0)
    if ":" in host:
        return (socket.AF_INET6, kind, socket.IPPROTO_TCP, "", (host, number, 0, 0))
    return (socket.AF_INET, kind, socket.IPPROTO_TCP, "", (host, number))


class Routes:
    """Where connections to some addresses really go. Their sockets keep the address that was asked for."""

    def __init__(self, routes: dict[str, str]) -> None:
        self._routes = routes
        self._asked: weakref.WeakKeyDictionary[socket.socket, Any] = weakref.WeakKeyDictionary()
        self._connect, self._getpeername = socket.socket.connect, socket.socket.getpeername

    def connect(self, dialling: socket.socket, address: Any) -> None:
        """As `socket.socket.connect`."""
        if isinstance(address, tuple) and (found := self._routes.get(address[0])):
            self._asked[dialling] = address
            host, _, port = found.partition("#")
            address = (host, int(port))
        return self._connect(dialling, address)

    def getpeername(self, dialled: socket.socket) -> Any:
        """As `socket.socket.getpeername`."""
        found = self._getpeername(dialled)
        return self._asked.get(dialled, found)


if "WITHOUT_UVLOOP" in os.environ:
    sys.modules["uvloop"] = None  # type: ignore[assignment]
if "FAKE_DNS" in os.environ:
    log = os.environ.get("FAKE_DNS_LOG")
    fake = FakeDns(json.loads(os.environ["FAKE_DNS"]), Path(log) if log else None)
    socket.getaddrinfo = fake.getaddrinfo
if "FAKE_ROUTES" in os.environ:
    routes = Routes(json.loads(os.environ["FAKE_ROUTES"]))
    socket.socket.connect = lambda dialling, address: routes.connect(dialling, address)  # type: ignore[method-assign]
    socket.socket.getpeername = lambda dialled: routes.getpeername(dialled)  # type: ignore[method-assign]
