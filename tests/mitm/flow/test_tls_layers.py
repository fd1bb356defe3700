"""What comes in short records of TLS is decrypted by turns: mitmproxy's own layers, and a peer by hand."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events, layer, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.tls import TlsStartClientHook, TlsStartServerHook
from mitmproxy.proxy.tunnel import TunnelState
from OpenSSL import SSL

from presign_proxy.mitm.flow import tls_layers
from presign_proxy.mitm.flow.tls_layers import GuardedClientTLSLayer, GuardedServerTLSLayer
from presign_proxy.mitm.tls_records import TURN_RECORDS

PLAIN = bytes(range(256)) * 20


class Told(layer.Layer):
    """Stands where HTTP would, and notes what it is told."""

    heard: list[events.Event]

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        self.heard.append(event)
        yield from ()


class Gate:
    """The reader of the connection, as far as a layer holds it."""

    held = False

    def hold(self, on: bool, by: object) -> None:
        assert isinstance(by, GuardedClientTLSLayer | GuardedServerTLSLayer)
        self.held = on


class Lab:
    """One guarded layer, and its peer."""

    def __init__(self, kind: str, ca: trustme.CA, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pem = directory / "both.pem"
        ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(self._pem))
        client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), state=ConnectionState.OPEN)
        context = Context(client, Options())
        context.server = Server(address=("localhost", 443))
        context.server.state = ConnectionState.OPEN
        self.conn: Client | Server = client if kind == "client" else context.server
        context.layers.append(layer.NextLayer(context))
        self.layer: Any = (layers.ClientTLSLayer if kind == "client" else layers.ServerTLSLayer)(context)
        (GuardedClientTLSLayer if kind == "client" else GuardedServerTLSLayer).guard(self.layer)
        self.told = self.layer.child_layer = Told(context)
        self.told.heard = []
        self.gate, self.turns = Gate(), []
        io = type("Io", (), {"reader": self.gate})
        handler = type("Handler", (), {"transports": {self.conn: io}})
        monkeypatch.setattr(tls_layers, "handler_of", lambda _: handler)
        monkeypatch.setattr(tls_layers, "GatedReader", Gate)
        self._into, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        if kind == "client":
            side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            side.check_hostname, side.verify_mode = False, ssl.CERT_NONE
            self.peer = side.wrap_bio(self._into, self._out, server_hostname="localhost")
        else:
            side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            side.load_cert_chain(self._pem)
            self.peer = side.wrap_bio(self._into, self._out, server_side=True)
        self.handle(events.Start())
        for _ in range(4):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.peer.do_handshake()
            self.say(self._out.read())

    def handle(self, event: events.Event) -> None:
        for command in list(self.layer.handle_event(event)):
            if isinstance(command, commands.SendData):
                self._into.write(command.data)
            elif isinstance(command, commands.RequestWakeup):
                self.turns.append(command)
            elif isinstance(command, commands.StartHook):
                if isinstance(command, TlsStartClientHook | TlsStartServerHook):
                    command.data.ssl_conn = self._side(isinstance(command, TlsStartClientHook))
                if command.blocking:
                    self.handle(events.HookCompleted(command))

    def _side(self, serves: bool) -> SSL.Connection:
        context = SSL.Context(SSL.TLS_METHOD)
        if serves:
            context.use_certificate_chain_file(str(self._pem))
            context.use_privatekey_file(str(self._pem))
        found = SSL.Connection(context)
        (found.set_accept_state if serves else found.set_connect_state)()
        return found

    def say(self, data: bytes) -> None:
        if data:
            self.handle(events.DataReceived(self.conn, data))

    def records(self, plain: bytes) -> bytes:
        """Each byte in one of its own."""
        for octet in plain:
            self.peer.write(bytes((octet,)))
        return self._out.read()

    def turn(self) -> None:
        self.handle(events.Wakeup(self.turns.pop()))

    @property
    def heard(self) -> bytes:
        return b"".join(one.data for one in self.told.heard if isinstance(one, events.DataReceived))


@pytest.fixture(params=["client", "upstream"])
def lab(
    request: pytest.FixtureRequest, ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lab]:
    yield Lab(request.param, ca, tmp_path, monkeypatch)


def test_a_peer_that_sends_records_of_one_byte_has_64_of_them_decrypted_in_a_turn(lab: Lab) -> None:
    lab.say(lab.records(PLAIN))
    assert len(lab.heard) <= TURN_RECORDS
    turns = 0
    while lab.turns:
        assert lab.gate.held
        assert len(lab.turns) == 1
        before = len(lab.heard)
        lab.turn()
        assert len(lab.heard) - before <= TURN_RECORDS
        turns += 1
    assert (lab.heard, lab.gate.held) == (PLAIN, False)
    assert turns >= len(PLAIN) // TURN_RECORDS - 1


def test_what_comes_while_others_have_their_turn_waits_behind_what_was_there(lab: Lab) -> None:
    sent = lab.records(PLAIN)
    lab.say(sent[:5000])
    lab.say(sent[5000:])
    assert len(lab.heard) <= TURN_RECORDS
    while lab.turns:
        lab.turn()
    assert lab.heard == PLAIN


def test_what_came_before_the_end_is_told_before_the_end(lab: Lab) -> None:
    lab.say(lab.records(PLAIN))
    lab.handle(events.ConnectionClosed(lab.conn))
    assert lab.heard == PLAIN
    assert isinstance(lab.told.heard[-1], events.ConnectionClosed)
    told = len(lab.told.heard)
    lab.turn()
    assert len(lab.told.heard) == told  # a layer below would take the turn for one of its own


def test_what_comes_in_few_records_is_told_at_once(lab: Lab) -> None:
    lab.peer.write(PLAIN)
    lab.say(lab.records(b""))
    assert lab.heard == PLAIN
    assert not lab.turns


def test_what_stands_behind_a_handshake_that_failed_is_for_nobody(lab: Lab) -> None:
    """It was decrypted with what had never been made, and mitmproxy said that it had crashed."""
    stranger = type(lab.layer)(lab.layer.context)
    type(lab.layer).guard(stranger)
    stranger.tunnel_state = TunnelState.CLOSED
    lab.layer = stranger
    lab.say(b"\x16\x03\x01\0\x01x" * 200)
    while lab.turns:
        lab.turn()
    lab.say(b"\x16\x03\x01\0\x01x" * 200)
    stranger.tunnel_connection.state = ConnectionState.CLOSED
    lab.handle(events.ConnectionClosed(lab.conn))
