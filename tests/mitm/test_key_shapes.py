"""Key tokens behind a shape and in further slots of a provider, on both paths: accepted where the connection
lists them, refused as ours elsewhere, and never sent on.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from support.asking import SECRET, Grant, ask, code, wire
from support.gateways import MakeGateway
from support.lab import REAL_SECRET, bearer_connection
from support.lanes import WAYS
from support.leaks import Traces
from support.proxy import Mitm
from support.raw import Response, connect_tls, exchange, parse_response
from support.recorder import Recorder

API, GOOGLE, PLAIN = "api.tls.test", "google.tls.test", "plain.tls.test"
GRANT, GEMINI, OTHER = Grant("conn_api"), Grant("conn_google"), Grant("conn_plain")
SHAPE = "sk-ant-api03-"


@pytest.fixture(scope="module", params=["lane", "flows", "flows as served"])
def gateway(request: pytest.FixtureRequest, module_gateway: MakeGateway, tls_upstream: Recorder) -> Mitm:
    by_header = {"type": "header", "headers": {"x-goog-api-key": REAL_SECRET}}
    slots = {"params": ["key"], "passwords": ["x-oauth-basic"]}
    config: dict[str, Any] = {
        "gateway": {"hosts": ["presign.local"], "unsigned": "pass"},
        "connections": {
            "conn_api": bearer_connection(
                f"https://{API}",
                SECRET,
                key_shapes=[SHAPE, "ghp_"],
                key_slots={"passwords": ["x-oauth-basic"]},
            ),
            "conn_google": bearer_connection(f"https://{GOOGLE}", SECRET)
            | {"auth": by_header, "key_shapes": ["AIza"], "key_slots": slots},
            "conn_plain": bearer_connection(f"https://{PLAIN}", SECRET),
        },
        "audit": {"file": "audit.jsonl"},
    }
    dns = {name: [f"127.0.0.1#{tls_upstream.tls_port}"] for name in (API, GOOGLE, PLAIN, "x.tls.test")}
    return module_gateway(config, *WAYS[request.param], dns=dns)


def dialled(gateway: Mitm, host: str, target: str, *headers: tuple[str, str]) -> Response:
    with connect_tls(gateway.port, host, 443, None, gateway.ca) as sock:
        return parse_response(exchange(sock, wire(target, headers, host=host)))


def basic(text: str) -> tuple[str, str]:
    return ("Authorization", "Basic " + base64.b64encode(text.encode()).decode())


TOKEN, KEY = GRANT.token, GEMINI.token


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", f"Bearer {SHAPE}{TOKEN}")],
        [("Authorization", f"token ghp_{TOKEN}")],
        [("Authorization", f"Token token=ghp_{TOKEN}")],
        [("Authorization", f"{SHAPE}{TOKEN}")],
        [basic(f"x:{SHAPE}{TOKEN}")],
        [basic(f"ghp_{TOKEN}:")],
        [basic(f"{TOKEN}:x-oauth-basic")],
        [basic(f"ghp_{TOKEN}:x-oauth-basic")],
    ],
)
def test_a_key_with_a_listed_shape_is_the_key(
    headers: list[tuple[str, str]], gateway: Mitm, tls_upstream: Recorder
) -> None:
    assert dialled(gateway, API, "/v1/x?a=1", *headers).status == 200
    assert ask(gateway.port, "/api/proxy/conn_api/v1/x?a=1", headers).status == 200
    for seen in tls_upstream.wait_for(2):
        assert seen.all("authorization") == [f"Bearer {REAL_SECRET}"]
        assert seen.target == "/v1/x?a=1"
        assert b"ps1_" not in seen.everything


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (f"/v1/x?key={KEY}&a=1", []),
        (f"/v1/x?a=1&key=AIza{KEY}", []),
        ("/v1/x?a=1", [("x-goog-api-key", f"AIza{KEY}")]),
        (f"/v1/x?key=AIza{KEY}&a=1", [("x-goog-api-key", KEY)]),
        ("/v1/x?a=1", [("X-Goog-Api-Key", KEY), ("Authorization", f"Bearer AIza{KEY}")]),
        ("/v1/x?key=mine&a=1", [("x-goog-api-key", KEY)]),
    ],
)
def test_a_key_in_another_slot_of_the_provider_is_the_key(
    target: str, headers: list[tuple[str, str]], gateway: Mitm, tls_upstream: Recorder
) -> None:
    assert dialled(gateway, GOOGLE, target, *headers).status == 200
    (seen,) = tls_upstream.wait_for(1)
    assert seen.all("x-goog-api-key") == [REAL_SECRET]
    assert seen.all("authorization") == []
    assert seen.target == "/v1/x?a=1"
    assert b"ps1_" not in seen.everything


@pytest.mark.parametrize(
    ("host", "target", "headers"),
    [
        # A shape that the connection does not list, or that another connection does.
        (API, "/x", [("Authorization", f"Bearer AIza{TOKEN}")]),
        (API, "/x", [("Authorization", f"Bearer {SHAPE}ghp_{TOKEN}")]),
        (API, "/x", [("Authorization", f"Bearer ghp{TOKEN}")]),
        (PLAIN, "/x", [("Authorization", f"Bearer {SHAPE}{OTHER.token}")]),
        # A slot that it does not list.
        (API, f"/x?key={TOKEN}", []),
        (API, "/x", [("X-Api-Key", f"{SHAPE}{TOKEN}")]),
        (API, "/x", [("X-Custom", f"{SHAPE}{TOKEN}")]),
        (API, "/x", [("Cookie", f"{SHAPE}{TOKEN}")]),
        (API, f"/x?q={SHAPE}{TOKEN}", []),
        (API, f"/{SHAPE}{TOKEN}/x", []),
        (API, "/x", [basic(f"{TOKEN}:other")]),
        (PLAIN, "/x", [basic(f"{OTHER.token}:x-oauth-basic")]),
        # Two keys.
        (GOOGLE, f"/x?key={KEY}", [("x-goog-api-key", Grant("conn_google", "GET").token)]),
        (GOOGLE, "/x", [basic(f"{KEY}:{KEY}")]),
        # At a host of nobody.
        ("x.tls.test", "/x", [("X-Custom", f"some {SHAPE}{TOKEN}")]),
        ("x.tls.test", f"/x?q=a%20{SHAPE}{TOKEN}", []),
    ],
)
def test_a_key_in_another_form_is_refused_and_never_sent_on(
    host: str, target: str, headers: list[tuple[str, str]], gateway: Mitm, tls_upstream: Recorder
) -> None:
    assert code(dialled(gateway, host, target, *headers)) == (400, "malformed")
    assert not tls_upstream.touched


def test_at_a_host_of_nobody_a_shaped_key_is_ours_too(gateway: Mitm, tls_upstream: Recorder) -> None:
    answer = dialled(gateway, "x.tls.test", "/x", ("Authorization", f"Bearer {SHAPE}{TOKEN}"))
    assert code(answer) in ((403, "host_mismatch"), (403, "invalid"))
    assert not tls_upstream.touched


def test_keys_of_others_that_hold_the_letters_of_a_token_pass(gateway: Mitm, tls_upstream: Recorder) -> None:
    """A random key may contain `ps1_`; without a signature behind it, it is nobody's token."""
    other = "sk-or-v1-Qwps1_0123456789abcdefghijklmnopqrstuvwxyz"
    assert dialled(gateway, "x.tls.test", "/x", ("Authorization", f"Bearer {other}")).status == 200
    (seen,) = tls_upstream.wait_for(1)
    assert seen.header("authorization") == f"Bearer {other}"


def test_a_changed_shape_changes_no_signature_and_no_revocation(
    gateway: Mitm, tls_upstream: Recorder
) -> None:
    changed = TOKEN[:-1] + ("0" if TOKEN[-1] != "0" else "1")
    answer = dialled(gateway, API, "/x", ("Authorization", f"Bearer {SHAPE}{changed}"))
    assert code(answer) == (403, "invalid")
    assert not tls_upstream.touched


def test_no_file_of_the_gateway_holds_a_shaped_key(gateway: Mitm) -> None:
    for headers in ([("Authorization", f"Bearer {SHAPE}{TOKEN}")], [("X-Custom", f"{SHAPE}{TOKEN}")]):
        dialled(gateway, API, "/x", *headers)
    traces = Traces([TOKEN, TOKEN.rpartition(".")[2]])
    for file in sorted(Path(gateway.directory).rglob("*")):
        if file.is_file() and "confdir" not in str(file):
            assert not traces.found_in(file.read_bytes()), file
    assert not traces.found_in(gateway.log().encode())
