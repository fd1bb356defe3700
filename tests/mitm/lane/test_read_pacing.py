"""When an upstream connection is read: never while one of three reasons holds, and by turns with others."""

from __future__ import annotations

from typing import Any

import pytest

from presign_proxy.core.response_body import TURN
from presign_proxy.mitm.lane.read_pacing import ReadPacing
from presign_proxy.mitm.lane.upstream_socket import UpstreamSocket
from presign_proxy.mitm.lane.write_batch import WriteBatch

LONG = 128 * 1024


class Transport:
    """A transport that is read or not."""

    def __init__(self, *, secure: bool) -> None:
        self.secure = secure
        self.reads, self.closing = True, False

    def get_extra_info(self, name: str) -> Any:
        return object() if name == "ssl_object" and self.secure else None

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


def paced(*, secure: bool = False) -> tuple[ReadPacing, Transport]:
    socket, transport = UpstreamSocket(WriteBatch()), Transport(secure=secure)
    given: Any = transport
    socket.connect(given)
    return ReadPacing(socket), transport


def caught_up(pacing: ReadPacing) -> None:
    pacing.catch_up()
    pacing.read_on()


@pytest.mark.parametrize("last", ["hold", "defer", "pause"])
def test_it_reads_on_once_no_reason_is_left(last: str) -> None:
    pacing, transport = paced()
    begin = {"hold": pacing.hold, "defer": pacing.defer, "pause": pacing.pause}
    end = {"hold": pacing.release, "defer": lambda: caught_up(pacing), "pause": pacing.end_pause}
    for reason in ("pause", "hold", "defer"):
        begin[reason]()
        assert not transport.reads
        transport.reads = True
    transport.reads = False
    for reason in {"hold", "defer", "pause"} - {last}:
        end[reason]()
        assert not transport.reads
    end[last]()
    assert transport.reads


def test_what_came_late_is_read_in_its_order_and_once() -> None:
    pacing, _ = paced()
    pacing.defer()
    assert pacing.lags
    pacing.keep(b"a")
    pacing.keep(b"b")
    assert (pacing.catch_up(), pacing.lags) == (b"ab", False)
    assert pacing.catch_up() == b""


def test_an_upstream_whose_socket_is_always_full_gives_up_its_turn_behind_a_mebibyte() -> None:
    pacing, _ = paced()
    for _ in range(2):
        assert [pacing.is_used_up(LONG) for _ in range(TURN // LONG)] == [False] * (TURN // LONG - 1) + [True]
        assert pacing.pause()
        pacing.end_pause()


@pytest.mark.parametrize("size", [1, LONG - 1])
def test_a_segment_that_is_not_full_ends_the_turn_by_itself(size: int) -> None:
    pacing, _ = paced()
    for _ in range(2):
        assert not any(pacing.is_used_up(LONG) for _ in range(TURN // LONG - 1))
        assert not pacing.is_used_up(size)
    assert [pacing.is_used_up(LONG) for _ in range(TURN // LONG)] == [False] * (TURN // LONG - 1) + [True]


def test_over_tls_each_segment_uses_a_turn_up() -> None:
    pacing, _ = paced(secure=True)
    assert pacing.is_used_up(1)


@pytest.mark.parametrize("why", ["it lags", "it pauses", "it is closing"])
def test_where_reading_has_stopped_already_no_end_of_a_pause_is_waited_for(why: str) -> None:
    pacing, transport = paced()
    if why == "it lags":
        pacing.defer()
    if why == "it pauses":
        assert pacing.pause()
    transport.closing = why == "it is closing"
    assert pacing.pause() is False


def test_a_connection_that_is_closing_is_asked_for_nothing() -> None:
    pacing, transport = paced()
    transport.closing = True
    pacing.hold()
    assert transport.reads
    transport.reads = False
    pacing.release()
    assert not transport.reads
