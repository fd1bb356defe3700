"""Tokens that an endpoint issues, on both paths: fetched once, renewed, masked, and never left out."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme

from presign_proxy.gateway import token_endpoint
from support.answers import BEHAVIOURS, Answer
from support.asking import SECRET, Grant, ask, code
from support.audit_log import audit_lines
from support.config import write_config
from support.gateways import MakeGateway
from support.lanes import WAYS
from support.leaks import Traces
from support.private_keys import ISSUER, rsa_key, service_account, verified
from support.process import LOADED, free_port
from support.proxy import Mitm
from support.puppet import eventually
from support.recorder import Recorder
from support.seen import Seen
from support.token_endpoint import Reply, TokenEndpoint, token

ID, CLIENT_SECRET = "client-1", "cl1ent+s3cret/R3AL=0123456789"
UPSTREAM = (502, "upstream")
CONNECTIONS = 60


@pytest.fixture(scope="module")
def endpoint() -> Iterator[TokenEndpoint]:
    found = TokenEndpoint()
    yield found
    found.stop()


def auth(endpoint: TokenEndpoint, **more: Any) -> dict[str, Any]:
    return {
        "type": "oauth2",
        "token_url": endpoint.url,
        "client_id": ID,
        "client_secret": CLIENT_SECRET,
    } | more


def connection(upstream: Recorder, auth: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"upstream": upstream.url, "auth": auth, "signing_keys": [{"secret": SECRET}], **more}


def config(upstream: Recorder, endpoint: TokenEndpoint) -> dict[str, Any]:
    """Each connection has a scope of its own, and so its own tokens."""
    found = {
        f"conn_{number}": connection(upstream, auth(endpoint, scope=f"s{number}"), timeouts={"connect": "3s"})
        for number in range(CONNECTIONS)
    }
    return {"gateway": {"hosts": ["presign.local"]}, "connections": found, "audit": {"file": "audit.jsonl"}}


@pytest.fixture(scope="module", params=("lane", "flows"))
def gateway(request: Any, module_gateway: MakeGateway, upstream: Recorder, endpoint: TokenEndpoint) -> Mitm:
    options = () if request.param == "lane" else ("-w", "flows.mitm", "--set", "flow_detail=4")
    found = module_gateway(config(upstream, endpoint), *WAYS[request.param], *options)
    found.fresh = iter(range(CONNECTIONS))  # type: ignore[attr-defined]
    return found


@pytest.fixture
def grant(gateway: Mitm, endpoint: TokenEndpoint) -> Grant:
    """A connection whose token nobody has asked for yet."""
    endpoint.reset()
    return Grant(f"conn_{next(gateway.fresh)}")  # type: ignore[attr-defined]


def authorizations(upstream: Recorder, count: int) -> list[str | None]:
    return [seen.header("authorization") for seen in upstream.wait_for(count)]


def test_a_token_is_asked_for_once_and_sent_with_each_request(
    gateway: Mitm, grant: Grant, upstream: Recorder, endpoint: TokenEndpoint
) -> None:
    for _ in range(3):
        assert ask(gateway.port, grant.target("v1/x")).status == 200
    assert authorizations(upstream, 3) == ["Bearer minted-token-number-0001"] * 3
    (asked,) = endpoint.asked
    assert asked.form == {"grant_type": "client_credentials", "scope": f"s{grant.connection[5:]}"}
    pair = base64.b64decode(asked.headers["authorization"].removeprefix("Basic ")).decode()
    assert pair == f"{ID}:cl1ent%2Bs3cret%2FR3AL%3D0123456789"  # RFC 6749, 2.3.1
    assert asked.headers["accept"] == "application/json"
    assert asked.path == "/token"


def test_fifty_first_requests_at_once_cause_one_request_for_a_token(
    gateway: Mitm, grant: Grant, upstream: Recorder, endpoint: TokenEndpoint
) -> None:
    endpoint.answer = lambda _, number: Reply(body=token(f"token-{number}").body, delay=0.5)
    with ThreadPoolExecutor(25) as pool:
        found = list(pool.map(lambda _: ask(gateway.port, grant.target("x")).status, range(50)))
    assert found == [200] * 50
    assert set(authorizations(upstream, 50)) == {"Bearer token-1"}
    assert len(endpoint.asked) == 1


BROKEN: dict[str, Reply] = {
    "an error": Reply(401, {"error": "invalid_client", "error_description": CLIENT_SECRET}),
    "a server error": Reply(500, b"oops"),
    "a redirect": Reply(302, b"", headers=(("Location", "https://evil.test/token"),)),
    "a redirect with a token": Reply(307, token("x").body, headers=(("Location", "/token2"),)),
    "no JSON": Reply(200, b"access_token=abc&token_type=bearer"),
    "another media type": Reply(200, token("abc").body, "text/html"),
    "no media type": Reply(200, token("abc").body, ""),
    "broken JSON": Reply(200, b'{"access_token": "abc"'),
    "not UTF-8": Reply(200, b'{"access_token": "\xff"}'),
    "a list": Reply(200, ["abc"]),
    "deep JSON": Reply(200, b"[" * 60_000),
    "a token twice": Reply(200, b'{"access_token": "abc", "access_token": "def"}'),
    "no token": Reply(200, {"token_type": "bearer"}),
    "an empty token": token(""),
    "a number": token(7),  # type: ignore[arg-type]
    "a token with a line break": token("abc\r\nX-Injected: 1"),
    "a token with a blank": token("abc def"),
    "a token beyond ASCII": token("abcé"),
    "a huge token": token("a" * 40_000),
    "another type": Reply(200, {"access_token": "abc", "token_type": "mac", "expires_in": 60}),
    "a type that is no text": Reply(200, {"access_token": "abc", "token_type": ["bearer"]}),
    "expired at once": token("abc", 0),
    "expired before": token("abc", -5),
    "an odd lifetime": token("abc", "soon"),
    "a lifetime of true": token("abc", True),
    "not a number": Reply(200, b'{"access_token": "abc", "expires_in": NaN}'),
    "an infinite lifetime": Reply(200, b'{"access_token": "abc", "expires_in": Infinity}'),
    "no number in another member": Reply(200, b'{"access_token": "abc", "x": [NaN]}'),
    "two media types": Reply(
        raw=b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Type: text/html\r\n"
        b'Content-Length: 23\r\n\r\n{"access_token": "abc"}'
    ),
    "two framings": Reply(
        raw=b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 23\r\n"
        b'Transfer-Encoding: chunked\r\n\r\n17\r\n{"access_token": "abc"}\r\n0\r\n\r\n'
    ),
    "chunks in HTTP/1.0": Reply(
        raw=b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n"
        b'Transfer-Encoding: chunked\r\n\r\n17\r\n{"access_token": "abc"}\r\n0\r\n\r\n'
    ),
    "another version of HTTP": Reply(
        raw=b"HTTP/2.0 200 OK\r\nContent-Type: application/json\r\n"
        b'Content-Length: 23\r\n\r\n{"access_token": "abc"}'
    ),
    "a content coding": Reply(200, token("abc").body, headers=(("Content-Encoding", "gzip"),)),
    "a huge body": Reply(200, b'{"access_token": "' + b"a" * 200_000 + b'"}'),
    "an endless head": Reply(raw=b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000),
    "no HTTP": Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n"),
    "half an answer": Reply(
        raw=b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
    ),
    "nothing": Reply(raw=b""),
    "two lengths": Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_an_endpoint_that_sends_rubbish_is_answered_502_and_nothing_is_sent(
    gateway: Mitm, grant: Grant, upstream: Recorder, endpoint: TokenEndpoint, how: str
) -> None:
    endpoint.answer = lambda *_: BROKEN[how]
    for _ in range(4):
        answer = ask(gateway.port, grant.target("v1/x"))
        assert code(answer) == UPSTREAM
        assert CLIENT_SECRET.encode() not in answer.body
    assert len(endpoint.asked) == 1  # the failure is remembered for a moment
    assert not upstream.touched


def test_an_endpoint_that_is_silent_holds_a_request_no_longer_than_it_may_wait(
    gateway: Mitm, grant: Grant, upstream: Recorder, endpoint: TokenEndpoint
) -> None:
    endpoint.answer = lambda *_: Reply(delay=15)
    began = time.monotonic()
    assert code(ask(gateway.port, grant.target("v1/x"))) == (504, "upstream")
    assert time.monotonic() - began < token_endpoint.TIMEOUT
    assert not upstream.touched


def test_an_endpoint_that_works_again_is_asked_again(
    gateway: Mitm, grant: Grant, upstream: Recorder, endpoint: TokenEndpoint
) -> None:
    endpoint.answer = lambda *_: Reply(503, {"error": "temporarily_unavailable"})
    assert code(ask(gateway.port, grant.target("x"))) == UPSTREAM
    endpoint.answer = lambda *_: token("good-again-0123456789")
    assert eventually(lambda: ask(gateway.port, grant.target("x")).status == 200)
    assert authorizations(upstream, 1) == ["Bearer good-again-0123456789"]


def test_a_token_that_lives_for_a_second_is_replaced_in_time(
    gateway: Mitm, grant: Grant, upstream: Recorder, endpoint: TokenEndpoint
) -> None:
    endpoint.answer = lambda _, number: token(f"short-lived-{number}", "1")
    assert ask(gateway.port, grant.target("x")).status == 200
    time.sleep(1.2)
    assert ask(gateway.port, grant.target("x")).status == 200
    assert authorizations(upstream, 2) == ["Bearer short-lived-1", "Bearer short-lived-2"]


def test_a_token_that_is_still_good_serves_while_its_renewal_fails(
    gateway: Mitm, grant: Grant, upstream: Recorder, endpoint: TokenEndpoint
) -> None:
    endpoint.answer = lambda _, number: token("still-good", 6) if number == 1 else Reply(500, b"")
    assert ask(gateway.port, grant.target("x")).status == 200
    time.sleep(3.2)  # past half of its lifetime
    for _ in range(3):
        assert ask(gateway.port, grant.target("x")).status == 200
    assert eventually(lambda: len(endpoint.asked) == 2)
    assert set(authorizations(upstream, 4)) == {"Bearer still-good"}
    time.sleep(3.0)
    assert code(ask(gateway.port, grant.target("x"))) == UPSTREAM


def test_a_token_that_ended_early_is_replaced_for_the_next_request(
    gateway: Mitm, grant: Grant, upstream: Recorder, endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    revoked = {"Bearer minted-token-number-0001"}

    def answer(request: Seen) -> Answer:
        return Answer(401 if request.header("authorization") in revoked else 200)

    monkeypatch.setitem(BEHAVIOURS, "guarded", answer)
    assert ask(gateway.port, grant.target("guarded"), method="POST", body=b"once").status == 401
    assert ask(gateway.port, grant.target("guarded")).status == 200
    assert [seen.header("authorization") for seen in upstream.wait_for(2)] == [
        "Bearer minted-token-number-0001",
        "Bearer minted-token-number-0002",
    ]


def test_a_client_that_is_always_answered_401_causes_no_flood_of_tokens(
    gateway: Mitm, grant: Grant, upstream: Recorder, endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BEHAVIOURS, "forbidden", lambda _: Answer(401))
    for _ in range(10):
        assert ask(gateway.port, grant.target("forbidden")).status == 401
    assert len(upstream.wait_for(10)) == 10
    assert len(endpoint.asked) == 2


def test_an_echoed_token_is_masked_and_stands_in_no_file(
    gateway: Mitm, grant: Grant, endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    minted = "eyJhbGciOi.R3AL-minted-token.0123456789-abc"
    endpoint.answer = lambda *_: token(minted)

    def echo(request: Seen) -> Answer:
        said = request.header("authorization") or ""
        return Answer(200, (("X-Said", said), ("Content-Type", "text/plain")), f"you said {said}".encode())

    monkeypatch.setitem(BEHAVIOURS, "says", echo)
    answer = ask(gateway.port, grant.target("says"))
    whole = answer.body + str(answer.headers).encode()
    assert b"you said Bearer " in answer.body
    traces = Traces([minted, CLIENT_SECRET])
    assert not traces.found_in(whole)
    path = gateway.directory / "audit.jsonl"
    assert eventually(lambda: any(line["connection"] == grant.connection for line in audit_lines(path)))
    for file in sorted(Path(gateway.directory).rglob("*")):
        if file.is_file() and file.name != "config.yaml" and "confdir" not in str(file):
            assert not traces.found_in(file.read_bytes()), file


def test_the_failure_is_in_the_audit_log_and_says_nothing_secret(
    gateway: Mitm, grant: Grant, endpoint: TokenEndpoint
) -> None:
    endpoint.answer = lambda *_: BROKEN["an error"]
    ask(gateway.port, grant.target("x"))
    path = gateway.directory / "audit.jsonl"

    def lines() -> list[dict[str, Any]]:
        return [line for line in audit_lines(path) if line["connection"] == grant.connection]

    assert eventually(lambda: bool(lines()))
    assert "the token endpoint answers 401 invalid_client" in str(lines()[0])
    assert not Traces([CLIENT_SECRET]).found_in((path.read_text() + gateway.log()).encode())


def replacing(endpoint: TokenEndpoint, *others: str) -> list[str]:
    """Have the endpoint replace its refresh token at each use. Return the valid ones, the last at the end.

    Args:
        others: refresh tokens that it takes, too.
    """
    valid = ["refresh-1"]

    def answer(asked: Any, number: int) -> Reply:
        known = asked.form.get("refresh_token") in (valid[-1], *others)
        if not known or asked.form["grant_type"] != "refresh_token":
            return Reply(400, {"error": "invalid_grant"})
        valid.append(f"refresh-{number + 1}")
        return token(f"access-{number}-0123456789", 1, refresh_token=valid[-1])

    endpoint.answer = answer
    return valid


def test_a_refresh_token_that_is_replaced_is_kept_in_its_file(
    make_gateway: MakeGateway, upstream: Recorder, endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    """An endpoint that sees an old one again revokes everything."""
    endpoint.reset()
    file = tmp_path / "refresh"
    file.touch(0o600)
    file.write_text("refresh-1\n")
    valid = replacing(endpoint)
    entry = connection(upstream, auth(endpoint, grant="refresh_token", refresh_token={"file": str(file)}))
    gateway = make_gateway({"gateway": {"hosts": ["presign.local"]}, "connections": {"conn_r": entry}})
    for _ in range(3):
        assert ask(gateway.port, Grant("conn_r").target("x")).status == 200
        time.sleep(1.1)
    assert file.read_text() == f"{valid[-1]}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert gateway.log().count(LOADED) <= 1  # writing the file is no reason to reload


def test_a_refresh_token_that_cannot_be_written_back_serves_until_a_restart(
    make_gateway: MakeGateway, upstream: Recorder, endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    """As Kubernetes mounts it: a link, which the gateway never replaces."""
    endpoint.reset()
    (tmp_path / "data").mkdir(mode=0o700)
    real, file = tmp_path / "data" / "refresh", tmp_path / "refresh"
    real.touch(0o600)
    real.write_text("refresh-1")
    file.symlink_to("data/refresh")
    replacing(endpoint, "repaired")
    entry = connection(upstream, auth(endpoint, grant="refresh_token", refresh_token={"file": str(file)}))
    gateway = make_gateway({"gateway": {"hosts": ["presign.local"]}, "connections": {"conn_r": entry}})
    for _ in range(3):
        assert ask(gateway.port, Grant("conn_r").target("x")).status == 200
        time.sleep(1.1)
    assert real.read_text() == "refresh-1"
    assert "a restart loses the new refresh token" in gateway.log()
    real.write_text("repaired")
    assert ask(gateway.port, Grant("conn_r").target("x")).status == 200
    assert endpoint.asked[-1].form["refresh_token"] == "repaired"
    assert not Traces(["refresh-2", "refresh-3"]).found_in(gateway.log().encode())


def test_a_new_configuration_asks_for_a_new_token(
    make_gateway: MakeGateway, upstream: Recorder, endpoint: TokenEndpoint
) -> None:
    endpoint.reset()
    entry = connection(upstream, auth(endpoint))
    found = {"gateway": {"hosts": ["presign.local"]}, "connections": {"conn_n": entry}}
    gateway = make_gateway(found)
    assert ask(gateway.port, Grant("conn_n").target("x")).status == 200
    entry["auth"]["client_secret"] = "another-client-secret-0123456789"
    write_config(found, gateway.directory.parent / gateway.config.parent if gateway.config else Path())
    assert eventually(
        lambda: ask(gateway.port, Grant("conn_n").target("x")).status == 200 and len(endpoint.asked) == 2
    )
    pair = base64.b64decode(endpoint.asked[-1].headers["authorization"].removeprefix("Basic ")).decode()
    assert pair == f"{ID}:another-client-secret-0123456789"
    entry["enabled"] = False
    write_config(found, gateway.config.parent if gateway.config else Path())
    assert eventually(lambda: code(ask(gateway.port, Grant("conn_n").target("x"))) == (403, "revoked"))


def test_a_token_endpoint_is_verified_and_is_never_the_gateway_itself(
    make_gateway: MakeGateway, upstream: Recorder, tls_upstream: Recorder, tmp_path: Path, monkeypatch: Any
) -> None:
    """The secret of the client must not reach anyone but the endpoint."""
    issued = Answer(200, (("Content-Type", "application/json"),), b'{"access_token": "over-tls-0123456789"}')
    monkeypatch.setitem(BEHAVIOURS, "token", lambda _: issued)
    trusted = trustme.CA()
    other = Recorder(trusted.issue_cert("api.tls.test")).start()
    port = free_port()
    urls = {
        "conn_good": f"https://api.tls.test:{tls_upstream.tls_port}/token",
        "conn_other_ca": f"https://api.tls.test:{other.tls_port}/token",
        "conn_other_name": f"https://wrong.test:{tls_upstream.tls_port}/token",
        "conn_itself": f"http://127.0.0.1:{port}/token",
        "conn_nowhere": f"https://nowhere.test:{tls_upstream.tls_port}/token",
    }
    entry = {"type": "oauth2", "client_id": ID, "client_secret": CLIENT_SECRET}
    connections = {name: connection(upstream, entry | {"token_url": url}) for name, url in urls.items()}
    dns = {"api.tls.test": ["127.0.0.1"], "wrong.test": ["127.0.0.1"]}
    gateway = make_gateway(
        {"gateway": {"hosts": ["presign.local"]}, "connections": connections},
        "-p",
        str(port),
        dns=dns,
        start=False,
    )
    gateway.port = port
    gateway.start()
    try:
        found = {name: code(ask(port, Grant(name).target("x"))) for name in urls}
    finally:
        other.stop()
    assert found == dict.fromkeys(urls, UPSTREAM) | {"conn_good": (200, None)}
    assert authorizations(upstream, 1) == ["Bearer over-tls-0123456789"]
    (asked,) = [seen for seen in tls_upstream.requests if seen.target == "/token"]
    assert asked.method == "POST"
    assert not other.requests
    log = gateway.log()
    assert "the certificate of the token endpoint is not trusted" in log
    assert CLIENT_SECRET not in log


def test_a_service_account_as_google_hands_it_out_signs_its_own_requests(
    make_gateway: MakeGateway, upstream: Recorder, endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    endpoint.reset()
    file = tmp_path / "sa.json"
    file.touch(0o600)
    file.write_text(service_account())
    claims: list[dict[str, Any]] = []

    def answer(asked: Any, number: int) -> Reply:
        claims.append(verified(asked.form["assertion"], rsa_key())[1])
        return token(f"ya29.for-a-service-account-{number}")

    endpoint.answer = answer
    jwt = {"type": "oauth2", "grant": "jwt_bearer", "token_url": endpoint.url, "scope": "cloud"}
    entry = connection(upstream, jwt | {"private_key": {"file": str(file)}})
    gateway = make_gateway({"gateway": {"hosts": ["presign.local"]}, "connections": {"conn_g": entry}})
    for _ in range(2):
        assert ask(gateway.port, Grant("conn_g").target("x")).status == 200
    assert authorizations(upstream, 2) == ["Bearer ya29.for-a-service-account-1"] * 2
    (found,) = claims
    assert (found["iss"], found["aud"], found["scope"]) == (ISSUER, endpoint.url, "cloud")
    assert abs(found["exp"] - time.time()) < 700
    assert "PRIVATE KEY" not in gateway.log()


def test_workers_take_turns_with_a_refresh_token(
    make_served: Callable[..., Any], upstream: Recorder, endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    endpoint.reset()
    file = tmp_path / "refresh"
    file.touch(0o600)
    file.write_text("refresh-0")
    valid, reused = ["refresh-0"], []

    def answer(asked: Any, number: int) -> Reply:
        sent = asked.form.get("refresh_token")
        if sent != valid[-1]:
            reused.append(sent)
            return Reply(400, {"error": "invalid_grant"})
        time.sleep(0.1)
        valid.append(f"refresh-{number}")
        return token(f"access-{number}-0123456789", 1, refresh_token=valid[-1])

    endpoint.answer = answer
    entry = connection(upstream, auth(endpoint, grant="refresh_token", refresh_token={"file": str(file)}))
    served = make_served(
        {"gateway": {"hosts": ["presign.local"]}, "connections": {"conn_w": entry}}, workers=2
    )
    end = time.monotonic() + 4
    with ThreadPoolExecutor(8) as pool:
        while time.monotonic() < end:
            found = set(pool.map(lambda _: ask(served.port, Grant("conn_w").target("x")).status, range(16)))
            assert found == {200}
    assert not reused
    assert endpoint.most_at_once == 1
    assert len(endpoint.asked) > 4
