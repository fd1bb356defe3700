"""Who a request is said to come from: the peer, unless the operator trusts it to say who asked it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.core.decision import Deny, Forward
from presign_proxy.core.registry import Registry
from presign_proxy.http.client_address import MAX_HOPS, bucket, client_address, public_origin, shown
from presign_proxy.http.networks import parse_network
from presign_proxy.observe.audit_record import Outcome
from support.audit_log import json_of
from support.deciding import GATEWAY, SECRET, ask, connection, request
from support.policy import Policy

PROXIES = tuple(filter(None, map(parse_network, ("10.0.0.0/8", "2001:db8:ffff::/48"))))


def came_from(peer: str, *forwarded: str, trusted: Any = PROXIES) -> str | None:
    fields = tuple((b"X-Forwarded-For", line.encode()) for line in forwarded)
    found = client_address(peer, fields, trusted)
    return None if found is None else str(found)


def test_a_peer_that_nobody_trusts_cannot_say_who_it_is() -> None:
    """The spoof: anybody may send X-Forwarded-For."""
    assert came_from("203.0.113.9", "198.51.100.7") == "203.0.113.9"
    assert came_from("203.0.113.9", "10.0.0.1, 198.51.100.7") == "203.0.113.9"
    assert came_from("10.0.0.1", "198.51.100.7", trusted=()) == "10.0.0.1"


def test_what_a_client_writes_before_a_trusted_proxy_adds_it_is_not_believed() -> None:
    assert came_from("10.0.0.1", "203.0.113.9") == "203.0.113.9"
    assert came_from("10.0.0.1", "198.51.100.7, 203.0.113.9") == "203.0.113.9"
    assert came_from("10.0.0.1", "198.51.100.7, 10.9.9.9, 203.0.113.9") == "203.0.113.9"
    # It writes garbage, commas, a hundred addresses: what the proxy added stands right of it.
    for forged in ("", ",,,", "unknown", "10.0.0.2," * 500, "\"'<>", "é"):
        assert came_from("10.0.0.1", f"{forged}, 203.0.113.9, 10.0.0.2") == "203.0.113.9"


def test_several_trusted_proxies_are_walked_from_the_right() -> None:
    assert came_from("10.0.0.1", "203.0.113.9, 10.0.0.3, 10.0.0.2") == "203.0.113.9"
    assert came_from("2001:db8:ffff::1", "203.0.113.9, 10.0.0.3") == "203.0.113.9"
    # All of them trusted: the first of them asked.
    assert came_from("10.0.0.1", "10.0.0.3, 10.0.0.2") == "10.0.0.3"


def test_several_lines_are_one_list_in_order() -> None:
    assert came_from("10.0.0.1", "198.51.100.7", "203.0.113.9", "10.0.0.2") == "203.0.113.9"
    assert came_from("10.0.0.1", "203.0.113.9, 10.0.0.3", "10.0.0.2") == "203.0.113.9"


def test_what_cannot_be_read_ends_the_walk_and_grants_nothing() -> None:
    for garbage in ("unknown", "_hidden", "", "300.1.1.1", "010.1.1.1", "2130706433", "0x7f000001", "1.2.3"):
        assert came_from("10.0.0.1", f"203.0.113.9, {garbage}, 10.0.0.2") is None, garbage
        assert came_from("10.0.0.1", f"203.0.113.9, {garbage}") is None, garbage
    for garbage in (
        "203.0.113.9X",
        "X203.0.113.9",
        "fe80::1%eth0",
        "[::1",
        "::1]",
        "1.2.3.4:",
        "1.2.3.4:123456",
        "1.2.3.4 5.6.7.8",
        "é",
    ):
        assert came_from("10.0.0.1", garbage) is None, garbage
    assert came_from("10.0.0.1", ",".join(["10.0.0.2"] * (MAX_HOPS + 1))) is None
    assert came_from("10.0.0.1", ",".join(["10.0.0.2"] * MAX_HOPS)) == "10.0.0.2"


def test_of_a_list_that_is_too_long_the_nearest_sixteen_are_read() -> None:
    assert MAX_HOPS == 16
    near = [f"10.0.0.{number}" for number in range(1, 17)]
    assert came_from("10.0.0.1", ",".join(near)) == "10.0.0.1"
    assert came_from("10.0.0.1", ",".join(["203.0.113.9", *near[1:]])) == "203.0.113.9"
    for further in (["10.9.9.9"], ["203.0.113.9"], ["198.51.100.7", "203.0.113.9"]):
        assert came_from("10.0.0.1", ",".join(further + near)) is None
        assert came_from("10.0.0.1", ",".join([*further, "203.0.113.9", *near[1:]])) == "203.0.113.9"


def test_addresses_are_read_as_proxies_write_them() -> None:
    for written in ("203.0.113.9", "203.0.113.9:1234", " 203.0.113.9\t", "::ffff:203.0.113.9"):
        assert came_from("10.0.0.1", written) == "203.0.113.9"
    for written in ("2001:db8::9", "2001:DB8:0::9", "[2001:db8::9]", "[2001:db8::9]:443"):
        assert came_from("10.0.0.1", written) == "2001:db8::9"


def test_without_the_header_it_is_the_peer() -> None:
    assert came_from("10.0.0.1") == "10.0.0.1"
    assert came_from("203.0.113.9") == "203.0.113.9"
    assert came_from("::ffff:203.0.113.9") == "203.0.113.9"
    assert came_from("::ffff:10.0.0.1", "198.51.100.7") == "198.51.100.7"
    assert came_from("fe80::1%eth0") == "fe80::1"
    assert came_from("") is None


@given(st.text(max_size=60), st.sampled_from(["10.0.0.1", "203.0.113.9"]))
def test_no_header_raises_or_makes_a_trusted_proxy_of_somebody(text: str, peer: str) -> None:
    fields = ((b"x-forwarded-for", text.encode()),)
    found = client_address(peer, fields, PROXIES)
    if peer == "203.0.113.9":
        assert found == ip_address(peer)


def test_clients_of_one_site_are_counted_as_one() -> None:
    assert bucket(ip_address("203.0.113.9")) == "203.0.113.9"
    assert bucket(ip_address("2001:db8:1:2:3:4:5:6")) == "2001:db8:1:2::/64"
    assert bucket(ip_address("2001:db8:1:2::")) == bucket(ip_address("2001:db8:1:2:ffff::1"))
    assert bucket(ip_address("2001:db8:1:3::")) != bucket(ip_address("2001:db8:1:2::"))
    assert bucket(None) == "unknown"


def test_a_network_on_one_link_is_no_network_of_clients() -> None:
    """The address of a client is known without its link."""
    assert str(parse_network("fe80::/64")) == "fe80::/64"
    for text in ("fe80::%eth0/64", "fe80::1%eth0", "::ffff:10.0.0.0/104", "10.0.0.1/8", "X"):
        assert parse_network(text) is None


def test_a_peer_is_shown_in_one_spelling_and_a_long_one_as_it_is() -> None:
    """Behind no trusted proxy the log has what the socket shows, in as many spellings as sockets have."""
    assert shown("203.0.113.9") == shown("::ffff:203.0.113.9") == shown("::FFFF:cb00:7109") == "203.0.113.9"
    assert shown("2001:DB8::0:9") == "2001:db8::9"
    assert shown("") == ""
    assert shown("a socket") == "a socket"
    link = "fe80::1%" + "e" * 56
    assert (len(link), shown(link), shown(f"{link}e")) == (64, "fe80::1", f"{link}e")


# -- in a decision ---------------------------------------------------------------------------------------


def decided(
    peer: str, *forwarded: bytes, clients: str = "203.0.113.0/24", tunnelled: bool = False
) -> Forward | Deny:
    known = Registry({"conn": connection()}, frozenset({GATEWAY}), trusted_proxies=PROXIES)
    target = Policy(SECRET, {"Client": clients}).target("v1/models")
    asked = request(target, *((b"X-Forwarded-For", line) for line in forwarded), client=peer)
    decision = ask(asked._replace(tunnelled=tunnelled), known)
    assert isinstance(decision, Forward | Deny)
    return decision


def test_in_a_tunnel_nobody_but_the_client_can_have_said_who_it_is() -> None:
    """A balancer that passes CONNECT on adds whom it heard to the CONNECT, and to nothing inside."""
    assert told(decided("10.0.0.1", b"203.0.113.9", tunnelled=True)) == "client_not_allowed"
    # Nor is it the proxy: a list that holds its address would admit all of its clients.
    for forwarded in ((), (b"203.0.113.9",)):
        inside = decided("10.0.0.1", *forwarded, clients="10.0.0.0/8,203.0.113.0/24", tunnelled=True)
        assert told(inside) == "client_not_allowed"
        assert json_of(inside, Outcome(), 0.0)["client"] == "10.0.0.1"
    assert told(decided("203.0.113.9", tunnelled=True)) == "forward"
    assert told(decided("203.0.113.9", b"198.51.100.7", tunnelled=True)) == "forward"


def told(decision: Forward | Deny) -> str:
    return decision.code if isinstance(decision, Deny) else "forward"


def test_a_url_for_one_office_is_refused_elsewhere_whatever_the_client_claims() -> None:
    assert told(decided("203.0.113.9")) == "forward"
    assert told(decided("198.51.100.7")) == "client_not_allowed"
    assert told(decided("198.51.100.7", b"203.0.113.9")) == "client_not_allowed"
    assert told(decided("10.0.0.1", b"203.0.113.9")) == "forward"
    assert told(decided("10.0.0.1", b"203.0.113.9, 198.51.100.7")) == "client_not_allowed"
    assert told(decided("10.0.0.1", b"203.0.113.9, garbage")) == "client_not_allowed"
    assert told(decided("10.0.0.1")) == "client_not_allowed"
    # Nobody knows who asks: no list admits that, be it as wide as it will.
    assert told(decided("10.0.0.1", b"unknown", clients="0.0.0.0/0,::/0")) == "client_not_allowed"
    assert told(decided("", clients="0.0.0.0/0,::/0")) == "client_not_allowed"


def test_the_audit_log_names_the_client_and_not_the_proxy() -> None:
    def client(decision: Forward | Deny) -> Any:
        return json_of(decision, Outcome(), 0.0)["client"]

    assert client(decided("10.0.0.1", b"203.0.113.9")) == "203.0.113.9"
    assert client(decided("10.0.0.1", b"198.51.100.7")) == "198.51.100.7"
    assert client(decided("198.51.100.7", b"203.0.113.9")) == "198.51.100.7"
    assert client(decided("10.0.0.1", b"garbage")) == "10.0.0.1"
    assert client(decided("::ffff:198.51.100.7")) == "198.51.100.7"


def test_what_a_client_claims_of_itself_is_not_forwarded() -> None:
    decision = decided("10.0.0.1", b"203.0.113.9")
    assert isinstance(decision, Forward)
    assert b"203.0.113.9" not in b"".join(value for _, value in decision.sent.fields)


def public(client: str, *said: str, trusted: Any = PROXIES, **more: Any) -> str:
    fields = tuple((b"X-Forwarded-Proto", line.encode()) for line in said)
    asked = request("/", *fields, client=client)
    return public_origin(asked._replace(**more), trusted)


def test_only_a_trusted_proxy_says_that_it_was_asked_over_tls() -> None:
    plain, secure = f"http://{GATEWAY}", f"https://{GATEWAY}"
    assert public("10.0.0.1", "https") == secure
    assert public("10.0.0.1", "http, HTTPS ") == secure
    assert public("10.0.0.1", "http", "https") == secure
    assert public("10.0.0.1") == plain
    assert public("10.0.0.1", "https", "http") == plain
    assert public("10.0.0.1", "https, http") == plain
    assert public("10.0.0.1", "https", trusted=()) == plain
    assert public("203.0.113.9", "https") == plain
    assert public("unknown", "https") == plain
    # Inside a tunnel the client speaks, whoever it comes through.
    assert public("10.0.0.1", "https", tunnelled=True) == plain
    assert public("10.0.0.1", "https", reverse=True) == ""
