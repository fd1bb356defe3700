"""Whom a request on the lane is from, and where it leads: the tunnel, the name in TLS, the address."""

import socket
import time

import pytest

from support.byhand import Wire
from support.lab import REAL_SECRET
from support.lanes import GATEWAY, LEAST, LaneLab
from support.leaks import FOREVER
from support.raw import connect, connect_tls

LOCAL = "127.0.0.1"


def tunnel(lab: LaneLab, host: str, port: int) -> Wire:
    """A tunnel in which nobody speaks TLS."""
    wire = Wire(connect(lab.gateway.port))
    wire.send(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    assert b" 200 " in wire.read_head()
    return wire


def inside(lab: LaneLab, host: str) -> bytes:
    """A request for the API itself, with its grant beside it."""
    fields = lab.issuer.headers(lab.cid, expires=FOREVER)
    lines = [f"{name}: {value}" for name, value in fields]
    return "\r\n".join(["GET /x HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode()


def test_requests_in_tunnels_to_their_upstream_are_served_on_the_lane(lab: LaneLab) -> None:
    """There, clients share a connection to the upstream, as they do nowhere else."""
    place = f"{LOCAL}:{lab.hand.port}"
    api = None
    for _ in range(2):
        with tunnel(lab, LOCAL, lab.hand.port) as client:
            for _ in range(3):
                client.send(inside(lab, place))
                api = api or lab.hand.accept()
                head = api.read_head()
                assert head.startswith(b"GET /x HTTP/1.1\r\n")
                assert REAL_SECRET.encode() in head
                api.send(LEAST)
                assert client.read_response().endswith(b"ok")


def test_a_request_that_comes_right_behind_its_connect_is_served(lab: LaneLab) -> None:
    """mitmproxy tells of it in another type than of what comes later."""
    place = f"{LOCAL}:{lab.hand.port}"
    with Wire(connect(lab.gateway.port)) as client:
        connecting = f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode()
        client.send(connecting + inside(lab, place) + inside(lab, place))
        assert b" 200 " in client.read_head()
        api = lab.hand.accept()
        for _ in range(2):
            assert api.read_head().startswith(b"GET /x HTTP/1.1\r\n")
            api.send(LEAST)
            assert client.read_response().endswith(b"ok")


def refused(client: Wire) -> bool:
    return client.read_response()[9:12] in (b"400", b"403", b"404", b"421")


def granted(lab: LaneLab, client: Wire, api: Wire | None = None) -> Wire:
    """Ask so often that what was granted is kept for whoever asks for the very same in this second."""
    for _ in range(3):
        client.send(lab.head())
        api = api or lab.hand.accept()
        api.read_head()
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")
    assert api is not None
    return api


def next_second() -> None:
    """Wait until a second has just begun: what is kept of it is of use for as long as it lasts."""
    time.sleep(1.02 - time.time() % 1)


def test_a_tunnel_that_leads_elsewhere_carries_no_request_for_the_gateway(lab: LaneLab) -> None:
    """What was dialled and what the request names have to agree, also where it was granted a moment ago."""
    next_second()
    with lab.client() as client:
        granted(lab, client)
    for _ in range(2):
        with tunnel(lab, LOCAL, lab.hand.port) as client:
            client.send(lab.head())
            assert refused(client)
    assert [line["decision"] for line in lab.audited(3)] == ["forward"] * 3


def test_another_name_in_tls_than_in_the_request_is_refused(lab: LaneLab) -> None:
    """Also where the same request was granted a moment ago, to one who named the same twice."""
    with (
        Wire(connect_tls(lab.gateway.port, GATEWAY, cafile=lab.gateway.ca)) as good,
        Wire(connect_tls(lab.gateway.port, GATEWAY, sni="other.test", cafile=lab.gateway.ca)) as bad,
    ):
        next_second()
        granted(lab, good)
        bad.send(lab.head())
        assert refused(bad)


def test_each_of_several_clients_is_told_of_under_its_own_address(lab: LaneLab) -> None:
    """Also where another one has sent the very same bytes a moment ago."""
    next_second()
    with lab.client() as client:
        api = granted(lab, client)
    with socket.create_connection((LOCAL, lab.gateway.port), 5, source_address=("127.0.0.2", 0)) as other:
        granted(lab, Wire(other), api)
    assert [line["client"] for line in lab.audited(6)] == [LOCAL] * 3 + ["127.0.0.2"] * 3


@pytest.mark.parametrize("shape", ["tls_client", "direct_tls_client"])
@pytest.mark.parametrize("host", [GATEWAY, f"{GATEWAY}:443", GATEWAY.upper()])
def test_a_gateway_that_is_asked_over_tls_is_asked_as_https(host: str, shape: str, lab: LaneLab) -> None:
    api = None
    for _ in range(2):
        with getattr(lab, shape)() as client:
            client.send(lab.head().replace(f"Host: {GATEWAY}".encode(), f"Host: {host}".encode()))
            api = api or lab.hand.accept()
            api.read_head()
            api.send(LEAST)
            assert client.read_response().endswith(b"ok")


def test_a_tunnel_to_another_name_in_capitals_is_the_same(lab: LaneLab) -> None:
    api = None
    for name in (GATEWAY.upper(), GATEWAY):
        with Wire(connect_tls(lab.gateway.port, name, sni=GATEWAY, cafile=lab.gateway.ca)) as client:
            client.send(lab.head())
            api = api or lab.hand.accept()
            api.read_head()
            api.send(LEAST)
            assert client.read_response().endswith(b"ok")
