"""A client over HTTP/2 that pauses its download: the rest waits here, long after the upstream has ended."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import h2.events
import h2.settings
import pytest

from presign_proxy.mitm.room import PATIENCE
from support.asking import SECRET, Grant
from support.gateways import MakeGateway
from support.h2client import H2Reply
from support.h2streams import Streams
from support.lab import bearer_connection
from support.raw import connect
from support.recorder import Recorder
from support.serving import Serve

HOST = "presign.local"
CONN = "conn"
PLACES = 12
SIZE = 50_000
"""Bytes of a download: less than the gateway reads ahead for a client that takes nothing."""
FIRST = 100
"""Bytes that a client takes before it pauses."""


class Paused(Streams):
    """A client that opens no window by itself."""

    def _take(self, event: h2.events.Event, stream: int, reply: H2Reply) -> None:
        if isinstance(event, h2.events.DataReceived):
            if event.stream_id == stream:
                reply.body += event.data
            return
        super()._take(event, stream, reply)


@pytest.fixture(params=["mitmdump", "serve"])
def port(
    request: pytest.FixtureRequest, make_gateway: MakeGateway, tmp_path: Path, upstream: Recorder
) -> Iterator[int]:
    """The port of a gateway that has few places."""
    if request.param == "mitmdump":
        yield make_gateway(config(upstream)).port
        return
    with Serve(tmp_path, config(upstream)) as served:
        yield served.port


def config(upstream: Recorder) -> dict[str, object]:
    connections = {CONN: bearer_connection(upstream.url, SECRET)}
    return {"gateway": {"max_clients": PLACES}, "connections": connections}


def paused(port: int, path: str, window: int = FIRST) -> tuple[Paused, int]:
    """A client that has taken so many bytes of an answer, and takes no more for now."""
    client = Paused.direct(port, HOST)
    client._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
    client._flush()
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", path)]
    return client, client.begin(fields)


def rest(client: Paused, stream: int) -> H2Reply:
    """What has come in the end, once the client goes on."""
    with contextlib.suppress(OSError):
        client._h2.increment_flow_control_window(SIZE, stream)
        client._flush()
    (reply,) = client.wait([stream], 5)
    return reply


def download() -> str:
    return Grant(CONN).target(f"download?bytes={SIZE}")


def test_a_crowd_of_strangers_does_not_cut_off_a_paused_download(port: int) -> None:
    client, stream = paused(port, download())
    with client, contextlib.ExitStack() as crowd:
        (reply,) = client.wait([stream], PATIENCE + 0.5)
        assert (reply.status, len(reply.body), reply.ended) == (200, FIRST, False)
        for _ in range(3 * PLACES):
            with contextlib.suppress(ConnectionError):
                crowd.enter_context(connect(port)).sendall(b"G")
            time.sleep(0.02)  # one after the other, so that each of them finds all places taken
        reply = rest(client, stream)
        assert (len(reply.body), reply.detail) == (SIZE, "")


def test_strangers_who_do_not_take_their_refusals_keep_no_places(port: int) -> None:
    with contextlib.ExitStack() as crowd:
        for _ in range(PLACES):
            crowd.enter_context(paused(port, "/nothing", 0)[0])
        time.sleep(PATIENCE + 0.3)
        client, stream = paused(port, download(), SIZE)
        with client:
            assert client.wait([stream], 5)[0].status == 200


def test_a_drain_waits_for_a_paused_download(tmp_path: Path, upstream: Recorder) -> None:
    with Serve(tmp_path, config(upstream)) as served:
        client, stream = paused(served.port, download())
        with client:
            client.wait([stream], 0.5)
            served.signal(signal.SIGTERM)
            client.wait([stream], 1.5)
            reply = rest(client, stream)
            assert (len(reply.body), reply.ended) == (SIZE, True)
        assert served.ends() == 0
