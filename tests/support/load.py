"""Clients that go on asking while something happens to the gateway: what each request met."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from support.raw import exchange, is_complete, parse_response


@dataclass
class Asked:
    """One request: from which port, when, what came of it (None: no whole answer), and what came instead."""

    place: int
    begun: float
    ended: float
    status: int | None
    said: str


class Load:
    """One client for each request, which sends it again and again, and keeps its connection as SDKs do."""

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        requests: Sequence[bytes],
        *,
        pause: float,
        most: int = 10**9,
        timeout: float = 15.0,
    ) -> None:
        """
        Args:
            pause: seconds between an answer and the next request.
            most: requests on one connection.
        """
        self.asked: list[Asked] = []
        self._connect, self._pause, self._most, self._timeout = connect, pause, most, timeout
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(request,)) for request in requests]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def failed(self) -> list[Asked]:
        return [one for one in self.asked if one.status != 200]

    def places(self) -> set[int]:
        """From where there were requests."""
        return {one.place for one in self.asked}

    def _run(self, request: bytes) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError), self._connect() as sock:
                for _ in range(self._most):
                    if self._over.is_set() or not self._one(sock, request):
                        break
                    time.sleep(self._pause)
                    if select.select([sock], [], [], 0)[0]:
                        break  # the other side has hung up on somebody who asks for nothing

    def _one(self, sock: socket.socket, request: bytes) -> bool:
        """Whether the connection can be used again."""
        place, begun = int(sock.getsockname()[1]), time.monotonic()
        status, keeps, said = None, False, ""
        try:
            received = exchange(sock, request, self._timeout)
            said = received[:300].decode("latin-1")
            if is_complete(received):  # of one that was cut off, the status says nothing
                answer = parse_response(received)
                status, keeps = answer.status, answer.header("connection") != "close"
        except (OSError, ValueError) as error:
            said = f"{type(error).__name__} {said}"
        self.asked.append(Asked(place, begun, time.monotonic(), status, said))
        return keeps
