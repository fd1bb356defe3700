"""What happens to `presign serve` around its requests: strangers, full workers, long messages, busy ports."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import ssl
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from presign_proxy.serve import log_flood
from presign_proxy.serve.log_flood import BoundedHandler
from support.asking import SECRET, Grant, ask, wire
from support.lab import bearer_connection
from support.puppet import eventually
from support.raw import connect, exchange
from support.recorder import Recorder
from support.serving import CONN, Serve, config_for

# Whole groups of workers are started, filled and killed.
pytestmark = pytest.mark.slow

PATIENT = 15.0
"""Seconds; the machine may have much else to do."""


# -- the log ----------------------------------------------------------------------------------------------


def test_aborted_handshakes_are_told_with_an_address_and_do_not_flood_the_log(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    """A stranger with a port scanner must not fill the disk, nor hide who it was."""
    gateway = make_served(config_for(upstream))  # a new one: its minute has just begun
    before = len(gateway.log().splitlines())
    context = ssl.create_default_context()  # trusts no authority of ours: each handshake ends in an alert
    names = set()
    for _ in range(log_flood.OF_A_KIND + 40):
        with connect(gateway.port) as plain, contextlib.suppress(ssl.SSLError, ConnectionError):
            names.add(f"127.0.0.1:{plain.getsockname()[1]}: Client TLS handshake failed")
            context.wrap_socket(plain, server_hostname="presign.local")
    assert eventually(lambda: len(gateway.log().splitlines()) - before >= log_flood.OF_A_KIND, PATIENT)
    assert ask(gateway.port, Grant(CONN).target("v1/models")).status == 200
    # A worker in reserve may say meanwhile that it is there.
    said = [line for line in gateway.log().splitlines()[before:] if "handshake" in line]
    assert len(said) <= log_flood.OF_A_KIND
    assert all(any(name in line for name in names) for line in said), said[:3]


def test_a_log_says_how_much_it_left_out_and_a_flood_hides_nothing_else() -> None:
    now, written = [0.0], io.StringIO()
    handler = BoundedHandler(lambda: now[0])
    handler.setStream(written)
    logger = logging.getLogger("presign_proxy.test_of_a_flood")
    logger.handlers, logger.propagate = [handler], False
    for number in range(500):
        logger.warning("client %d went away", number)
    logger.error("the disk is full")
    assert len(written.getvalue().splitlines()) == log_flood.OF_A_KIND + 1
    for number in range(5000):
        logger.warning("%s", chr(200 + number % 900) * (1 + number // 900))  # of five thousand kinds
    assert len(written.getvalue().splitlines()) == log_flood.OF_ALL
    now[0] += log_flood.WINDOW + 1
    logger.warning("client 1 went away")
    left_out, last = written.getvalue().splitlines()[-2:]
    assert left_out == f"{5501 - log_flood.OF_ALL} more lines like those before were left out"
    assert last == "client 1 went away"


def test_what_was_left_out_is_told_at_the_end() -> None:
    written = io.StringIO()
    handler = BoundedHandler()
    handler.setStream(written)
    for _ in range(log_flood.OF_A_KIND + 3):
        handler.handle(logging.LogRecord("a", logging.ERROR, "", 1, "again", (), None))
    handler.close()
    assert written.getvalue().splitlines()[-1].startswith("3 more lines")


# -- messages between the supervisor and its workers --------------------------------------------------------


def test_thousands_of_problems_at_the_start_are_all_told(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    """The worker ended before its supervisor had read why, which said nothing but an exit code then."""
    config = config_for(upstream)
    name = "a_connection_with_a_long_name_that_somebody_has_mistyped_{:04}"
    config["connections"] |= {name.format(number): {"upstream": "ftp://x"} for number in range(6000)}
    status, log = make_served(config, start=False).run()
    assert status == 1
    assert [number for number in range(6000) if name.format(number) not in log] == []


def test_the_figures_of_thousands_of_long_names_end_no_worker(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    """One report was longer than a megabyte, which was taken for the end of the worker."""
    names = [f"conn_{number:059}" for number in range(1000)]
    config = config_for(upstream)
    config["connections"] |= {name: bearer_connection(upstream.url, SECRET) for name in names}
    gateway = make_served(config)
    with connect(gateway.port) as client:
        for name in names:
            exchange(client, wire(Grant(name).target("v1/models")))
    assert eventually(lambda: gateway.has_reserve(), PATIENT)
    assert "another takes its place" not in gateway.log()


# -- full workers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clients", "most"), [(36, 25), (360, 250)])
def test_clients_that_one_worker_has_no_room_for_are_served_by_another(
    make_served: Callable[..., Serve], upstream: Recorder, clients: int, most: int
) -> None:
    gateway = make_served(config_for(upstream, gateway={"max_clients": most}), workers=2)
    request = wire(Grant(CONN).target("v1/models"))
    with ExitStack() as crowd:
        inside = [crowd.enter_context(connect(gateway.port)) for _ in range(clients)]
        answers = [exchange(one, request) for one in inside]
        assert [one for one in answers if not one.startswith(b"HTTP/1.1 200 ")] == []
        # All stay, and are asked again.
        assert all(exchange(one, request).startswith(b"HTTP/1.1 200 ") for one in inside)


def test_where_no_worker_has_room_clients_are_turned_away_and_let_in_again_when_some_have_left(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    gateway = make_served(config_for(upstream, gateway={"max_clients": 5}), workers=2)
    request = wire(Grant(CONN).target("v1/models"))
    with ExitStack() as crowd:
        inside = [crowd.enter_context(connect(gateway.port)) for _ in range(10)]
        assert all(exchange(one, request).startswith(b"HTTP/1.1 200 ") for one in inside)
        for _ in range(3):
            with connect(gateway.port) as late:
                late.settimeout(5)
                with contextlib.suppress(ConnectionError):
                    assert late.recv(1) == b""
        inside[0].close()
        inside[7].close()

        def is_let_in() -> bool:
            with connect(gateway.port) as late:
                return exchange(late, request).startswith(b"HTTP/1.1 200 ")

        assert eventually(is_let_in)


def test_a_worker_that_is_killed_leaves_no_room_behind(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    """Others would wait for it, and turn nobody away."""
    gateway = make_served(config_for(upstream, gateway={"max_clients": 4}), workers=1)
    assert eventually(gateway.has_reserve, PATIENT)
    (worker,) = gateway.serving()
    os.kill(worker, signal.SIGKILL)
    assert eventually(lambda: gateway.serving() not in ([], [worker]), PATIENT)
    with ExitStack() as crowd:
        for _ in range(4):
            inside = crowd.enter_context(connect(gateway.port))
            assert exchange(inside, wire(Grant(CONN).target("v1/models"))).startswith(b"HTTP/1.1 200 ")
        late = crowd.enter_context(connect(gateway.port, timeout=5))
        with contextlib.suppress(ConnectionError):
            assert late.recv(1) == b""
