"""A small SOCKS5 proxy (RFC 1928 and 1929) that notes what it was asked for, and resolves as it is told."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from typing import Self

from support.accepting import accepted


class SocksProxy:
    """Listens in threads. With a `user` it wants that and the `password`."""

    def __init__(self, names: Mapping[str, str], user: str = "", password: str = "") -> None:
        self._names, self._user, self._password = names, user, password
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.asked: list[tuple[str, int]] = []
        """Each destination as it was written: a name or an address."""

    def start(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def stop(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        for client in accepted(self._listener):
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, EOFError):
            methods = _read(client, _read(client, 2)[1])
            wanted = 2 if self._user else 0
            client.sendall(bytes([5, wanted if wanted in methods else 255]))
            if wanted not in methods:
                return
            if self._user:
                user = _read(client, _read(client, 2)[1])
                password = _read(client, _read(client, 1)[0])
                good = (user.decode(), password.decode()) == (self._user, self._password)
                client.sendall(bytes([1, not good]))
                if not good:
                    return
            host, port = _destination(client)
            self.asked.append((host, port))
            try:
                behind = socket.create_connection((self._names.get(host, host), port), 5)
            except OSError:
                client.sendall(bytes([5, 5, 0, 1, 0, 0, 0, 0, 0, 0]))
                return
            with behind:
                # The address of its end, as a name: a client has to read it whatever its kind.
                client.sendall(bytes([5, 0, 0, 3, 4]) + b"here" + bytes(2))
                thread = threading.Thread(target=_pump, args=(client, behind), daemon=True)
                thread.start()
                _pump(behind, client)
                thread.join(5)


def _destination(client: socket.socket) -> tuple[str, int]:
    _, command, _, kind = _read(client, 4)
    assert command == 1
    if kind == 3:
        host = _read(client, _read(client, 1)[0]).decode()
    else:
        family = socket.AF_INET if kind == 1 else socket.AF_INET6
        host = socket.inet_ntop(family, _read(client, 4 if kind == 1 else 16))
    return host, int.from_bytes(_read(client, 2))


def _read(client: socket.socket, size: int) -> bytes:
    raw = b""
    while len(raw) < size:
        data = client.recv(size - len(raw))
        if not data:
            raise EOFError
        raw += data
    return raw


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
