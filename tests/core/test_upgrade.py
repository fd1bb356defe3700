"""The handshake of a WebSocket: which requests are one, what is sent of them, and which 101 is its answer."""

from dataclasses import replace

import pytest

from presign_proxy.core.connection import Conduct
from presign_proxy.core.upgrade import Handshake, handshake_of, switched
from presign_proxy.errors import Denied
from presign_proxy.http.message import Fields, Request, asks_for_websocket, head_of
from support.deciding import connection, request

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
UPGRADE = ((b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"))
GOOD = (*UPGRADE, (b"Sec-WebSocket-Version", b"13"), (b"Sec-WebSocket-Key", KEY))
SWITCH = (*UPGRADE, (b"Sec-WebSocket-Accept", ACCEPT))
ALLOWED = connection(conduct=Conduct(websocket=True))


def asked(*fields: tuple[bytes, bytes], method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> Request:
    return replace_(request("/x"), method, version, ((b"Host", b"presign.local"), *fields))


def replace_(found: Request, method: bytes, version: bytes, fields: Fields) -> Request:
    return found._replace(method=method, version=version, fields=fields)


def code(found: Request, known: object = ALLOWED) -> str:
    with pytest.raises(Denied) as caught:
        handshake_of(found, head_of(found), known)  # type: ignore[arg-type]
    return caught.value.code


def with_(name: bytes, *values: bytes) -> Fields:
    """The good fields with these values in the place of one of them."""
    others = tuple(field for field in GOOD if field[0] != name)
    return (*others, *((name, value) for value in values))


def test_a_handshake_is_read_and_written_again() -> None:
    found = asked(*GOOD, (b"Sec-WebSocket-Protocol", b"a, b"), (b"Sec-WebSocket-Extensions", b"x; y=1"))
    handshake = handshake_of(found, head_of(found), ALLOWED)
    assert handshake == Handshake(KEY, (b"a", b"b"), b"x; y=1")
    assert handshake.fields == (
        *GOOD,
        (b"Sec-WebSocket-Protocol", b"a, b"),
        (b"Sec-WebSocket-Extensions", b"x; y=1"),
    )
    assert Handshake(KEY).fields == GOOD
    assert handshake.accept == ACCEPT


@pytest.mark.parametrize(
    "options", [b"upgrade", b"UPGRADE", b"keep-alive, Upgrade", b"Upgrade , keep-alive", b"Upgrade, Upgrade"]
)
def test_a_connection_header_may_list_more(options: bytes) -> None:
    found = asked(*with_(b"Connection", options))
    assert handshake_of(found, head_of(found), ALLOWED) == Handshake(KEY)


@pytest.mark.parametrize("offer", [(), ((b"Upgrade", b"h2c"),), ((b"Connection", b"Upgrade"),)])
def test_other_upgrades_are_no_handshake(offer: Fields) -> None:
    found = asked(*offer)
    assert handshake_of(found, head_of(found), ALLOWED) is None
    assert not asks_for_websocket(found.fields)


@pytest.mark.parametrize("offer", [b"websocket", b"WebSocket", b"h2c, websocket"])
def test_a_connection_that_does_not_allow_it_refuses_whatever_looks_like_one(offer: bytes) -> None:
    found = asked((b"Upgrade", offer))
    assert code(found, connection()) == "upgrade_required"
    assert asks_for_websocket(found.fields)


BAD: dict[str, tuple[Fields, str]] = {
    "no Connection": (GOOD[:1] + GOOD[2:], "malformed"),
    "another option": (with_(b"Connection", b"keep-alive"), "malformed"),
    "a close": (with_(b"Connection", b"Upgrade, close"), "malformed"),
    "a close on its own line": (with_(b"Connection", b"Upgrade", b"Close"), "malformed"),
    "two protocols": (with_(b"Upgrade", b"websocket, h2c"), "malformed"),
    "two Upgrades": (with_(b"Upgrade", b"websocket", b"websocket"), "malformed"),
    "a second protocol in its own line": (with_(b"Upgrade", b"h2c", b"websocket"), "malformed"),
    "no key": (with_(b"Sec-WebSocket-Key"), "malformed"),
    "an empty key": (with_(b"Sec-WebSocket-Key", b""), "malformed"),
    "a short key": (with_(b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25j"), "malformed"),
    "a long key": (with_(b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQAA"), "malformed"),
    "a key with loose bits": (with_(b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZR=="), "malformed"),
    "a key that is no base64": (with_(b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25j-_=="), "malformed"),
    "two keys": (with_(b"Sec-WebSocket-Key", KEY, KEY), "malformed"),
    "a key in two spellings": ((*GOOD, (b"Sec_WebSocket_Key", KEY)), "malformed"),
    "a nominated key": (with_(b"Connection", b"Upgrade, Sec-WebSocket-Key"), "malformed"),
    "a nominated origin": (with_(b"Connection", b"Upgrade, Origin"), "malformed"),
    "a nominated version": (with_(b"Connection", b"Upgrade, sec_websocket_version"), "malformed"),
    "no version": (with_(b"Sec-WebSocket-Version"), "upgrade_required"),
    "an old version": (with_(b"Sec-WebSocket-Version", b"8"), "upgrade_required"),
    "two versions": (with_(b"Sec-WebSocket-Version", b"13", b"8"), "upgrade_required"),
    "a list of versions": (with_(b"Sec-WebSocket-Version", b"13, 8"), "upgrade_required"),
    "a length": ((*GOOD, (b"Content-Length", b"0")), "malformed"),
    "a body": ((*GOOD, (b"Content-Length", b"5")), "malformed"),
    "chunks": ((*GOOD, (b"Transfer-Encoding", b"chunked")), "malformed"),
    "an expectation": ((*GOOD, (b"Expect", b"100-continue")), "malformed"),
    "a subprotocol that is no token": ((*GOOD, (b"Sec-WebSocket-Protocol", b"a b")), "malformed"),
    "an empty subprotocol": ((*GOOD, (b"Sec-WebSocket-Protocol", b"a,,b")), "malformed"),
    "a subprotocol twice": ((*GOOD, (b"Sec-WebSocket-Protocol", b"a, a")), "malformed"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_handshake_that_servers_might_read_in_two_ways_is_refused(what: str) -> None:
    fields, wanted = BAD[what]
    assert code(asked(*fields)) == wanted


@pytest.mark.parametrize("method", [b"POST", b"HEAD", b"get", b"CONNECT", b"PUT"])
def test_only_a_get_is_a_handshake(method: bytes) -> None:
    assert code(asked(*GOOD, method=method)) == "malformed"


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/3"])
def test_websocket_is_served_over_http11_only(version: bytes) -> None:
    assert code(asked(*GOOD, version=version)) == "upgrade_required"


def test_a_version_is_named_to_a_client_of_another_one() -> None:
    found = asked(*with_(b"Sec-WebSocket-Version", b"8"))
    with pytest.raises(Denied) as caught:
        handshake_of(found, head_of(found), ALLOWED)
    assert (b"Sec-WebSocket-Version", b"13") in caught.value.fields


@pytest.mark.parametrize(
    "secret",
    [
        b"openai-insecure-api-key.sk-mine",
        b"base64url.bearer.authorization.k8s.io.bWluZQ",
        b"x-presign-signature=" + b"0123456789abcdef" * 4,
    ],
)
def test_a_credential_of_the_clients_own_is_not_offered_to_the_upstream(secret: bytes) -> None:
    if b"=" in secret:
        secret = secret.replace(b"=", b".")
    found = asked(*GOOD, (b"Sec-WebSocket-Protocol", b"realtime, " + secret))
    handshake = handshake_of(found, head_of(found), ALLOWED)
    assert handshake is not None
    assert handshake.protocols == (b"realtime",)
    with pytest.raises(Denied):
        switched((*SWITCH, (b"Sec-WebSocket-Protocol", secret)), handshake)


def test_a_connection_may_reject_a_credential_of_the_clients_own() -> None:
    found = asked(*GOOD, (b"Sec-WebSocket-Protocol", b"realtime, openai-insecure-api-key.sk-mine"))
    rejecting = replace(ALLOWED, conduct=Conduct(websocket=True, reject_client_credentials=True))
    assert code(found, rejecting) == "malformed"


# -- the answer -------------------------------------------------------------------------------------------

OFFER = Handshake(KEY, (b"a", b"b"), b"x-one; q=1, x-two")
CHOICES: dict[str, Fields] = {
    "nothing": (),
    "a subprotocol": ((b"Sec-WebSocket-Protocol", b"b"),),
    "an extension": ((b"Sec-WebSocket-Extensions", b"x-two; server=1"),),
    "both extensions": ((b"Sec-WebSocket-Extensions", b"x-two, x-one"),),
}


@pytest.mark.parametrize("what", CHOICES)
def test_an_upstream_may_choose_of_what_was_offered(what: str) -> None:
    assert switched((*SWITCH, (b"Server", b"x"), *CHOICES[what]), OFFER) == (*SWITCH, *CHOICES[what])


WRONG: dict[str, Fields] = {
    "no Upgrade": SWITCH[1:],
    "another protocol": ((b"Upgrade", b"h2c"), *SWITCH[1:]),
    "two protocols": ((b"Upgrade", b"websocket, h2c"), *SWITCH[1:]),
    "no Connection": (SWITCH[0], SWITCH[2]),
    "another Connection": (SWITCH[0], (b"Connection", b"close"), SWITCH[2]),
    "no Accept": SWITCH[:2],
    "a wrong Accept": (*SWITCH[:2], (b"Sec-WebSocket-Accept", ACCEPT[::-1])),
    "the key as Accept": (*SWITCH[:2], (b"Sec-WebSocket-Accept", KEY)),
    "two Accepts": (*SWITCH, SWITCH[2]),
    "a length": (*SWITCH, (b"Content-Length", b"0")),
    "a body": (*SWITCH, (b"Content-Length", b"2")),
    "chunks": (*SWITCH, (b"Transfer-Encoding", b"chunked")),
    "another subprotocol": (*SWITCH, (b"Sec-WebSocket-Protocol", b"c")),
    "a subprotocol in another case": (*SWITCH, (b"Sec-WebSocket-Protocol", b"A")),
    "two subprotocols": (*SWITCH, (b"Sec-WebSocket-Protocol", b"a"), (b"Sec-WebSocket-Protocol", b"b")),
    "a list of subprotocols": (*SWITCH, (b"Sec-WebSocket-Protocol", b"a, b")),
    "another extension": (*SWITCH, (b"Sec-WebSocket-Extensions", b"permessage-deflate")),
    "an extension too many": (*SWITCH, (b"Sec-WebSocket-Extensions", b"x-one, permessage-deflate")),
    "an extension twice": (*SWITCH, (b"Sec-WebSocket-Extensions", b"x-one, x-one")),
    "an extension hidden in a line": (
        *SWITCH,
        (b"Sec-WebSocket-Extensions", b"x-one"),
        (b"Sec-WebSocket-Extensions", b"x-three"),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_101_that_does_not_answer_the_handshake_is_refused(what: str) -> None:
    with pytest.raises(Denied) as caught:
        switched(WRONG[what], OFFER)
    assert caught.value.code == "upstream"


@pytest.mark.parametrize(
    "field", [(b"Sec-WebSocket-Protocol", b"a"), (b"Sec-WebSocket-Extensions", b"permessage-deflate")]
)
def test_an_upstream_may_choose_nothing_where_nothing_was_offered(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(Denied):
        switched((*SWITCH, field), Handshake(KEY))
