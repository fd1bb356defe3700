"""Addresses: which are public, and which of a name's may be dialled."""

import ipaddress

import pytest

from presign_proxy.errors import Denied
from presign_proxy.http.networks import is_public, judge

PRIVATE = [
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "198.18.0.1",
    "192.0.2.1",
    "168.63.129.16",
    "::1",
    "::",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2001::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "100::1",
    "5f00::1",
    "3fff::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_known_to_be_public_is_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    with pytest.raises(Denied):
        judge([address], ())
    with pytest.raises(Denied):
        judge(["93.184.216.34", address], ())


def test_public_addresses_and_allowed_networks_are_dialled() -> None:
    assert judge(["93.184.216.34", "2606:2800:220:1::1"], ()) == ("93.184.216.34", "2606:2800:220:1::1")
    assert judge(["10.0.0.5"], (ipaddress.ip_network("10.0.0.0/8"),)) == ("10.0.0.5",)
    for strange in ("fe80::1%eth0", "localhost", "127.1", ""):
        with pytest.raises(Denied) as denied:
            judge([strange], ())
        assert denied.value.code == "invalid"
    with pytest.raises(Denied) as denied:
        judge([], ())
    assert denied.value.code == "upstream"


def test_nothing_is_public_that_python_calls_private() -> None:
    import random

    chance = random.Random(1)
    for _ in range(20000):
        four = ipaddress.IPv4Address(chance.getrandbits(32))
        six = ipaddress.IPv6Address((chance.getrandbits(3) << 125) | chance.getrandbits(125))
        for address in (four, six):
            assert not is_public(address) or address.is_global
