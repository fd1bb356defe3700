"""The instruments with which tests look at what a process has open."""

from __future__ import annotations

import os
import threading

import pytest

from support.descriptors import links_of


@pytest.mark.needs("/proc")
def test_what_is_closed_while_it_is_read_fails_nobody() -> None:
    """A test failed where a gateway closed its client's connection as it was looked for."""
    ended = threading.Event()
    kept = os.open("/dev/zero", os.O_RDONLY)

    def opening_and_closing() -> None:
        while not ended.is_set():
            for number in [os.dup(kept) for _ in range(40)]:
                os.close(number)

    other = threading.Thread(target=opening_and_closing)
    other.start()
    try:
        assert all("/dev/zero" in links_of(os.getpid()) for _ in range(200))
    finally:
        ended.set()
        other.join()
        os.close(kept)
