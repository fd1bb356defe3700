"""What the kernel says of a connection over TCP, and what it is asked to find out."""

from __future__ import annotations

import asyncio
import os
import socket

from presign_proxy.mitm.tcp import keep_asking, unsent
from support.handling import Handled, with_client


def test_what_a_peer_does_not_take_is_counted_until_it_does() -> None:
    async def work(lab: Handled) -> None:
        assert unsent(lab.sock.fileno()) == 0
        await lab.stuff()
        assert 0 < unsent(lab.sock.fileno()) < 1 << 24
        lab.peer.setblocking(False)
        async with asyncio.timeout(5):
            while unsent(lab.sock.fileno()):
                try:
                    lab.peer.recv(1 << 16)
                except BlockingIOError:
                    await asyncio.sleep(0.001)

    with_client(work)


def test_nothing_is_known_of_what_is_no_open_socket() -> None:
    reading, writing = os.pipe()
    assert unsent(reading) == 0
    os.close(reading)
    os.close(writing)
    assert unsent(reading) == 0
    assert unsent(-1) == 0


def test_a_peer_that_cannot_say_that_it_is_gone_is_found_out_in_two_minutes() -> None:
    with socket.socket() as sock:
        keep_asking(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, interval, count = (
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
    assert (idle, interval, count) == (60, 15, 4)
    assert idle + interval * count == 120


def test_a_socket_that_is_closed_already_fails_nobody() -> None:
    sock = socket.socket()
    sock.close()
    keep_asking(sock)
