"""Two kinds of clients in the mix of `soak.py`, and the record of what went wrong for any kind.

`Departures` are holders of a presign who speak HTTP/2 and hang up with all slots of their connection taken.
`SlowNames` ask for signed source URLs whose names are never found.
"""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import h2.exceptions

from support.asking import SECRET, Grant, wire
from support.h2streams import Streams
from support.holding import Holding
from support.lab import REAL_SECRET, bearer_connection
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Hang, connect, exchange, parse_response
from support.signing import source_url

USABLE = re.compile(rb"x-presign-(?!request-id|error)|ps[12]_[\w-]|\b[0-9a-f]{64}\b", re.IGNORECASE)
"""A part of a presign that somebody else could use."""
PATIENT = 30.0
"""Seconds, of a machine that has much else to do."""
SILENT = {"*.hang.test": ["hang:20"]}
"""Names for the fake resolver: it says nothing for so many seconds, and then that there is no such name."""


ENDS: dict[str, Callable[[Streams, list[int]], None]] = {
    "RST_STREAM of some": lambda client, streams: client.reset(*streams[::2]),
    "RST_STREAM of all": lambda client, streams: client.reset(*streams),
    "GOAWAY": lambda client, _: client.go_away(),
    "close_notify": lambda client, _: client.say_goodbye(),
    "FIN": lambda client, _: client.shut(),
    "RST": lambda client, _: client.abort(),
    "close": lambda client, _: client.close(),
}


class Verdicts:
    """What went wrong, the first of each kind in words, and how often each answer was given."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.answers: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.examples: list[str] = []

    def answered(self, who: str, what: object) -> None:
        with self._lock:
            self.answers[f"{who} {what}"] += 1

    def failed(self, kind: str, detail: object) -> None:
        with self._lock:
            self.wrong[kind] += 1
            if self.wrong[kind] <= 5:
                self.examples.append(f"{kind}: {detail!r:.600}")


class Departures:
    """Clients that hang up in the middle of more requests than mitmproxy opens connections for, and their
    upstream, which keeps each request until its connection ends.
    """

    CID = "conn_crowd"
    SLOTS = 8

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts = verdicts
        self._upstream = Holding()
        self._upstream.__enter__()

    def connections(self) -> dict[str, Any]:
        limits = [{"concurrency": self.SLOTS}]
        return {self.CID: bearer_connection(self._upstream.url, SECRET, limits=limits)}

    def leave(self, gateway: Mitm, chance: random.Random) -> None:
        """Begin requests for all slots, and hang up before or after they have come to the upstream."""
        client = Streams.through(gateway.port, "presign.local", cafile=gateway.ca)
        pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local")]
        with client:
            streams = []
            for _ in range(chance.randint(6, self.SLOTS)):
                path = f"v1/{chance.choice(('wait', 'stream'))}"
                streams.append(client.begin([*pseudo, (":path", Grant(self.CID).target(path))]))
            client.wait(streams, chance.choice((0, 0.1, 0.3, 0.6)))
            for stream in streams:
                self._verdicts.answered("departing client was answered", client.replies[stream].outcome)
            end = chance.choice(list(ENDS))
            self._verdicts.answered("departing by", end)
            under_way = [stream for stream in streams if not client.replies[stream].ended]
            with contextlib.suppress(h2.exceptions.ProtocolError):  # the gateway has said goodbye first
                ENDS[end](client, under_way)
            time.sleep(chance.choice((0, 0.2)))
        self._search()

    def _search(self) -> None:
        heads, self._upstream.heads = self._upstream.heads, []
        for head in heads:
            if USABLE.search(head) or f"Bearer {REAL_SECRET}".encode() not in head:
                self._verdicts.failed("a request that waits came with something else", head)

    def settle(self, gateway: Mitm) -> None:
        """Judge that of clients that have gone nothing is left at the upstream, and no slot is taken."""
        gauge = self._upstream.gauge
        self._verdicts.answers["requests that waited at their upstream"] = gauge.total
        self._verdicts.answers["most of them at a time"] = gauge.most
        if not eventually(lambda: gauge.now == 0, PATIENT):
            self._verdicts.failed("requests outlive their clients at the upstream", gauge.now)
        with ExitStack() as clients:
            deadline = time.monotonic() + PATIENT
            while gauge.now < self.SLOTS and time.monotonic() < deadline:
                before = gauge.total
                client = clients.enter_context(connect(gateway.port))
                client.sendall(wire(Grant(self.CID).target("v1/wait")))
                eventually(lambda before=before: gauge.total > before, 1)  # else it was refused
            if gauge.now != self.SLOTS:
                self._verdicts.failed("slots are taken by nobody", gauge.now)
            received = b""
            with connect(gateway.port) as one_more, contextlib.suppress(Hang):
                received = exchange(one_more, wire(Grant(self.CID).target("v1/wait")), 10)
            if not received.startswith(b"HTTP/1.1 429 "):
                self._verdicts.failed("there are more slots than were given", received)
        if not eventually(lambda: gauge.now == 0, PATIENT):
            self._verdicts.failed("requests outlive their clients at the upstream", gauge.now)
        if gauge.most > self.SLOTS:
            self._verdicts.failed("more requests at a time than slots", gauge.most)

    def stop(self) -> None:
        self._upstream.__exit__()


class SlowNames:
    """Clients that ask for signed sources whose name servers are silent."""

    CID = "pk_slow"
    NAMES = 3
    """As many at a time. Each keeps a thread of the gateway for as long as the C library waits."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts = verdicts

    def connections(self) -> dict[str, Any]:
        project = {
            "scheme": "source",
            "mode": "signed",
            "allowed_origins": ["http://hang.test"],
            "formats": ["png"],
            "signing_keys": [{"secret": SECRET}],
        }
        return {self.CID: project}

    def ask(self, gateway: Mitm, number: int) -> None:
        """Ask for a few such names at a time, and wait until the gateway has given up each of them."""
        with ExitStack() as opened:
            clients = []
            for one in range(self.NAMES):
                client = opened.enter_context(connect(gateway.port, timeout=PATIENT))
                url = f"http://n{number}-{one}.hang.test/a.png"
                client.sendall(wire(source_url(SECRET, self.CID, url, int(time.time()) + 600, "png")))
                clients.append(client)
            for client in clients:
                response = parse_response(exchange(client, b"", PATIENT))
                self._verdicts.answered("slow name", response.status)
                if response.status not in (502, 504):
                    self._verdicts.failed("a name that is never found is answered otherwise", response)
