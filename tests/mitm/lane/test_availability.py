"""When requests may take the lane, where it may stand, and whom it believes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
import trustme
from mitmproxy.addons import intercept, view
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import ClientTLSLayer, TCPLayer
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.tools.dump import DumpMaster

from presign_proxy.mitm.flow.http_layer import GuardedHttpLayer
from presign_proxy.mitm.lane import upstream_tls
from presign_proxy.mitm.lane.attach import with_lane
from presign_proxy.mitm.lane.availability import CHOICES, hindrances, is_open, shows_flows
from presign_proxy.mitm.lane.layer import Lane


def with_master(work: Callable[[Any], None], **options: Any) -> None:
    async def main() -> None:
        master = DumpMaster(Options(), with_termlog=False)
        master.addons.add(intercept.Intercept())
        master.options.update(**options)
        work(master)
        if "save_stream_file" in options:
            master.options.update(save_stream_file=None)  # its addon has opened it

    asyncio.run(main())


def opened(chosen: str, **options: Any) -> bool:
    found: list[bool] = []
    with_master(lambda master: found.append(is_open(master, chosen)), **options)
    return found[0]


def test_it_is_open_where_nothing_is_asked_for_and_shut_where_that_is_asked_for() -> None:
    assert CHOICES == ("auto", "on", "off")
    assert [opened(chosen) for chosen in CHOICES] == [True, True, False]


ON_FLOWS: dict[str, Any] = {
    "anticache": True,
    "anticomp": True,
    "block_list": [":~u x:404"],
    "body_size_limit": "1m",
    "dumper_filter": "~u x",
    "hardump": "x.har",
    "intercept": "~u x",
    "keep_host_header": True,
    "map_local": ["|x|/tmp"],
    "map_remote": ["|x|y"],
    "modify_body": ["/x/y"],
    "modify_headers": ["/x/y"],
    "save_stream_file": "x.flows",
    "stickyauth": "~u x",
    "stickycookie": "~u x",
    "stream_large_bodies": "1m",
    "flow_detail": 2,
}
ON_CONNECTIONS: dict[str, Any] = {
    "ciphers_server": "HIGH",
    "client_certs": "certs",
    "connect_addr": "127.0.0.1",
    "proxyauth": "any",
    "tls_ecdh_curve_server": "secp256r1",
    "tls_version_server_max": "TLS1_2",
    "tls_version_server_min": "TLS1_3",
}


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the values of options name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "certs").mkdir()
    yield


@pytest.mark.parametrize("option", ON_FLOWS)
def test_an_option_that_works_on_flows_keeps_it_shut_unless_somebody_knows_better(
    option: str, there: None
) -> None:
    given = {option: ON_FLOWS[option]}
    assert not opened("auto", **given)
    assert opened("on", **given)
    with_master(lambda master: named(master, "auto", [option]), **given)


@pytest.mark.parametrize("option", ON_CONNECTIONS)
def test_an_option_that_guards_a_connection_keeps_it_shut_whatever_is_asked_for(
    option: str, there: None
) -> None:
    """To pass it by would be to undo it."""
    given = {option: ON_CONNECTIONS[option]}
    assert not opened("auto", **given)
    assert not opened("on", **given)
    with_master(lambda master: named(master, "on", [option]), **given)


def named(master: Any, chosen: str, options: list[str]) -> None:
    assert list(hindrances(master.options, chosen)) == options


def test_a_server_that_is_replayed_keeps_it_shut() -> None:
    def work(master: Any) -> None:
        master.options._options["server_replay"].value = ["x"]  # set otherwise it would be read at once
        assert not is_open(master, "auto")
        assert is_open(master, "on")

    with_master(work)


def test_less_of_flows_than_usual_keeps_nothing_shut() -> None:
    assert opened("auto", flow_detail=0)


def test_options_of_addons_that_are_not_there_keep_nothing_shut() -> None:
    assert list(hindrances(Options(), "auto")) == []


def test_our_own_script_keeps_nothing_shut_and_another_one_does() -> None:
    def work(master: Any) -> None:
        for scripts, is_so in (([], True), (["a"], True), (["a", "b"], False)):
            master.options._options["scripts"].value = scripts
            assert is_open(master, "auto") is is_so
            assert is_open(master, "on")

    with_master(work)


def test_where_people_look_at_flows_it_is_shut_unless_they_know_better() -> None:
    def work(master: Any) -> None:
        assert not shows_flows(master)
        master.addons.add(view.View())
        assert shows_flows(master)
        assert not is_open(master, "auto")
        assert is_open(master, "on")

    with_master(work)


# -- where it may stand -----------------------------------------------------------------------------------


def context(mode: str = "regular", protocol: Any = "tcp", alpn: bytes | None = None) -> Context:
    client = Client(
        peername=("192.0.2.1", 1),
        sockname=("192.0.2.2", 2),
        state=ConnectionState.OPEN,
        proxy_mode=ProxyMode.parse(mode),
        transport_protocol=protocol,
        alpn=alpn,
    )
    return Context(client, Options())


def placed(mode: HTTPMode, around: Context) -> tuple[Any, Any]:
    stock = GuardedHttpLayer(around, mode)
    shared: Any = object()
    return stock, with_lane(stock, shared)


@pytest.mark.parametrize("mode", [HTTPMode.regular, HTTPMode.transparent])
@pytest.mark.parametrize("alpn", [None, b"", b"http/1.1"])
def test_it_stands_before_http_of_a_regular_proxy(mode: HTTPMode, alpn: bytes | None) -> None:
    stock, found = placed(mode, context(alpn=alpn))
    assert isinstance(found, Lane)
    assert found._stock is stock


@pytest.mark.parametrize(
    ("mode", "around"),
    [
        (HTTPMode.upstream, {}),
        (HTTPMode.regular, {"mode": "upstream:http://proxy.example:3128"}),
        (HTTPMode.regular, {"mode": "reverse:https://api.example"}),
        (HTTPMode.transparent, {"mode": "transparent"}),
        (HTTPMode.regular, {"protocol": "udp"}),
        (HTTPMode.regular, {"alpn": b"h2"}),
    ],
)
def test_it_stands_nowhere_else(mode: HTTPMode, around: dict[str, Any]) -> None:
    """There a request leads elsewhere than it says, or is not HTTP/1.1."""
    stock, found = placed(mode, context(**around))
    assert found is stock


def behind_tls(around: Context) -> ClientTLSLayer:
    around.layers.append(TCPLayer(around))  # what was spoken before TLS was
    return ClientTLSLayer(around)


def test_it_stands_behind_tls_that_is_spoken_to_the_gateway() -> None:
    shared: Any = object()
    around = context()
    outer = behind_tls(around)
    stock = outer.child_layer = GuardedHttpLayer(around, HTTPMode.regular)
    assert with_lane(outer, shared) is outer
    assert isinstance(outer.child_layer, Lane)
    assert outer.child_layer._stock is stock


def test_what_is_no_http_or_not_guarded_stays_as_it_is() -> None:
    shared: Any = object()
    around = context()
    assert with_lane(None, shared) is None
    unguarded = HttpLayer(around, HTTPMode.regular)
    assert with_lane(unguarded, shared) is unguarded
    other = TCPLayer(around)
    assert with_lane(other, shared) is other
    outer = behind_tls(around)
    before = outer.child_layer
    assert with_lane(outer, shared) is outer
    assert outer.child_layer is before


# -- whom it believes -------------------------------------------------------------------------------------


def shakes_hands(found: ssl.SSLContext, server: ssl.SSLContext, name: str = "api.example") -> str | None:
    """The protocol that is agreed on. Raises ssl.SSLError."""
    ours, theirs = (ssl.MemoryBIO(), ssl.MemoryBIO()), (ssl.MemoryBIO(), ssl.MemoryBIO())
    client = found.wrap_bio(*ours, server_hostname=name)
    peer = server.wrap_bio(*theirs, server_side=True)
    for _ in range(6):
        for one, out, to in ((client, ours[1], theirs[0]), (peer, theirs[1], ours[0])):
            with contextlib.suppress(ssl.SSLWantReadError):
                one.do_handshake()
            to.write(out.read())
    client.do_handshake()
    return client.selected_alpn_protocol()


def serving(ca: trustme.CA, name: str = "api.example") -> ssl.SSLContext:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(found)
    found.set_alpn_protocols(["h2", "http/1.1"])
    return found


def trusting(**options: Any) -> ssl.SSLContext:
    return upstream_tls.context(Options(**options))


def test_an_upstream_is_believed_only_by_the_authority_that_the_options_name(tmp_path: Path) -> None:
    mine, other = trustme.CA(), trustme.CA()
    file = tmp_path / "ca.pem"
    mine.cert_pem.write_to_path(str(file))
    found = trusting(ssl_verify_upstream_trusted_ca=str(file))
    assert shakes_hands(found, serving(mine)) == "http/1.1"
    with pytest.raises(ssl.SSLCertVerificationError):
        shakes_hands(found, serving(other))
    with pytest.raises(ssl.SSLCertVerificationError):
        shakes_hands(found, serving(mine, "evil.example"))
    assert len(found.get_ca_certs()) == 1


def test_authorities_may_lie_in_a_directory(tmp_path: Path) -> None:
    mine = trustme.CA()
    with pytest.raises(ssl.SSLCertVerificationError):
        shakes_hands(trusting(ssl_verify_upstream_trusted_confdir=str(tmp_path)), serving(mine))
    assert trusting(ssl_verify_upstream_trusted_confdir=str(tmp_path)).get_ca_certs() == []


def test_an_option_that_is_set_to_nothing_is_as_one_that_is_not_set(tmp_path: Path) -> None:
    mine = trustme.CA()
    file = tmp_path / "ca.pem"
    mine.cert_pem.write_to_path(str(file))
    found = trusting(ssl_verify_upstream_trusted_ca=str(file), ssl_verify_upstream_trusted_confdir="")
    assert shakes_hands(found, serving(mine)) == "http/1.1"
    found = trusting(ssl_verify_upstream_trusted_ca="", ssl_verify_upstream_trusted_confdir=str(tmp_path))
    assert found.get_ca_certs() == []


def test_without_a_word_those_are_believed_that_mitmproxy_believes() -> None:
    usual = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    usual.load_verify_locations(cafile=certifi.where())
    assert trusting().get_ca_certs() == usual.get_ca_certs()
    with pytest.raises(ssl.SSLCertVerificationError):
        shakes_hands(trusting(), serving(trustme.CA()))


def test_old_tls_is_not_spoken_and_no_key_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    found = trusting()
    assert found.minimum_version == ssl.TLSVersion.TLSv1_2
    assert found.verify_mode == ssl.CERT_REQUIRED
    assert found.check_hostname
    assert found.keylog_filename is None
