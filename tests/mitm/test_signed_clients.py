"""Tokens that a private key asks for, on both paths: of GitHub Apps, and of clients with a certificate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from presign_proxy.gateway import token_endpoint
from support.asking import SECRET, Grant, ask, code
from support.gateways import MakeGateway
from support.lanes import WAYS
from support.leaks import Traces
from support.private_keys import certificate, pem, rsa_key, thumbprint, verified
from support.proxy import Mitm
from support.puppet import eventually
from support.recorder import Recorder
from support.token_endpoint import Asked, Reply, TokenEndpoint, installation, rubbish, token

CLIENT = "Iv1.client-of-the-test"
UPSTREAM = (502, "upstream")
EACH = 40
MEMBERS = {
    "github_app": {"grant": "github_app"},
    "certificate": {"client_auth": "assertion", "scope": "https://x.example/.default"},
}
ISSUE: dict[str, Callable[..., Reply]] = {"github_app": installation, "certificate": token}


class Kind(NamedTuple):
    name: str
    grant: Grant

    @property
    def issue(self) -> Callable[..., Reply]:
        return ISSUE[self.name]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[TokenEndpoint]:
    found = TokenEndpoint()
    yield found
    found.stop()


@pytest.fixture(scope="module", params=("lane", "flows"))
def gateway(
    request: Any,
    module_gateway: MakeGateway,
    upstream: Recorder,
    endpoint: TokenEndpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Mitm:
    key = tmp_path_factory.mktemp("keys") / "client.pem"
    key.touch(0o600)
    key.write_text(pem(rsa_key()) + certificate(rsa_key()))
    found = {}
    for name, members in MEMBERS.items():
        for number in range(EACH):
            url = f"http://127.0.0.1:{endpoint.port}/app/installations/{number}/access_tokens"
            auth = {"type": "oauth2", "token_url": url, "client_id": CLIENT, **members}
            found[f"{name}_{number}"] = {
                "upstream": upstream.url,
                "auth": auth | {"private_key": {"file": str(key)}},
                "signing_keys": [{"secret": SECRET}],
                "timeouts": {"connect": "3s"},
            }
    config = {
        "gateway": {"hosts": ["presign.local"]},
        "connections": found,
        "audit": {"file": "audit.jsonl"},
    }
    options = () if request.param == "lane" else ("-w", "flows.mitm", "--set", "flow_detail=4")
    made = module_gateway(config, *WAYS[request.param], *options)
    made.fresh = {name: iter(range(EACH)) for name in MEMBERS}  # type: ignore[attr-defined]
    return made


@pytest.fixture(params=MEMBERS)
def kind(request: Any, gateway: Mitm, endpoint: TokenEndpoint) -> Kind:
    """A connection whose token nobody has asked for yet."""
    endpoint.reset()
    endpoint.answer = lambda _, number: ISSUE[request.param](f"issued-token-number-{number:04}")
    fresh = gateway.fresh[request.param]  # type: ignore[attr-defined]
    return Kind(request.param, Grant(f"{request.param}_{next(fresh)}"))


def sent(upstream: Recorder, count: int) -> list[str | None]:
    return [seen.header("authorization") for seen in upstream.wait_for(count)]


def assertion_of(kind: Kind, asked: Asked) -> tuple[dict[str, Any], dict[str, Any]]:
    if kind.name == "certificate":
        return verified(asked.form["client_assertion"], rsa_key())
    return verified(asked.headers["authorization"].removeprefix("Bearer "), rsa_key())


def test_a_private_key_asks_once_and_the_token_is_sent_with_each_request(
    gateway: Mitm, kind: Kind, upstream: Recorder, endpoint: TokenEndpoint
) -> None:
    for _ in range(3):
        assert ask(gateway.port, kind.grant.target("v1/x")).status == 200
    assert sent(upstream, 3) == ["Bearer issued-token-number-0001"] * 3
    (asked,) = endpoint.asked
    number = kind.grant.connection.rpartition("_")[2]
    assert asked.path == f"/app/installations/{number}/access_tokens"
    head, claims = assertion_of(kind, asked)
    assert claims["iss"] == CLIENT
    assert abs(claims["exp"] - time.time()) < 600
    if kind.name == "github_app":
        assert (head["alg"], asked.form) == ("RS256", {})
        assert asked.headers["accept"] == "application/vnd.github+json"
    else:
        assert (head["alg"], head["x5t#S256"]) == ("PS256", thumbprint(certificate(rsa_key())))
        assert claims["aud"].endswith(asked.path)
        assert len(claims["jti"]) == 32
        assert "authorization" not in asked.headers


def test_fifty_first_requests_at_once_cause_one_signature(
    gateway: Mitm, kind: Kind, upstream: Recorder, endpoint: TokenEndpoint
) -> None:
    endpoint.answer = lambda *_: Reply(
        kind.issue("x").status, kind.issue("the-only-token-0123").body, delay=0.5
    )
    with ThreadPoolExecutor(25) as pool:
        found = list(pool.map(lambda _: ask(gateway.port, kind.grant.target("x")).status, range(50)))
    assert found == [200] * 50
    assert set(sent(upstream, 50)) == {"Bearer the-only-token-0123"}
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("how", rubbish(token, "x"))
def test_an_endpoint_that_sends_rubbish_is_answered_502_and_nothing_is_sent(
    gateway: Mitm, kind: Kind, upstream: Recorder, endpoint: TokenEndpoint, how: str
) -> None:
    said = "s3cret-that-the-endpoint-repeats"
    endpoint.answer = lambda *_: rubbish(kind.issue, said)[how]
    for _ in range(3):
        answer = ask(gateway.port, kind.grant.target("v1/x"))
        assert code(answer) == UPSTREAM
        assert said.encode() not in answer.body
    assert len(endpoint.asked) == 1  # the failure is remembered for a moment, and no redirect is followed
    assert not upstream.touched
    assert said not in gateway.log()


def test_an_endpoint_that_is_silent_is_answered_504_in_time(
    gateway: Mitm, kind: Kind, upstream: Recorder, endpoint: TokenEndpoint
) -> None:
    endpoint.answer = lambda *_: Reply(delay=15)
    began = time.monotonic()
    assert code(ask(gateway.port, kind.grant.target("v1/x"))) == (504, "upstream")
    assert time.monotonic() - began < token_endpoint.TIMEOUT
    assert not upstream.touched


def test_an_endpoint_that_works_again_is_asked_again(
    gateway: Mitm, kind: Kind, upstream: Recorder, endpoint: TokenEndpoint
) -> None:
    endpoint.answer = lambda *_: Reply(503, {"message": "no"})
    assert code(ask(gateway.port, kind.grant.target("x"))) == UPSTREAM
    endpoint.answer = lambda *_: kind.issue("good-again-0123456789")
    assert eventually(lambda: ask(gateway.port, kind.grant.target("x")).status == 200)
    assert sent(upstream, 1) == ["Bearer good-again-0123456789"]


def test_a_token_that_is_still_good_serves_while_its_renewal_fails_and_then_nothing_is_sent(
    gateway: Mitm, kind: Kind, upstream: Recorder, endpoint: TokenEndpoint
) -> None:
    good = kind.issue("still-good-0123456789", 6)
    endpoint.answer = lambda _, number: good if number == 1 else Reply(500, b"")
    assert ask(gateway.port, kind.grant.target("x")).status == 200
    time.sleep(3.2)  # past half of its lifetime
    assert ask(gateway.port, kind.grant.target("x")).status == 200
    assert eventually(lambda: len(endpoint.asked) == 2)
    assert ask(gateway.port, kind.grant.target("x")).status == 200
    assert set(sent(upstream, 3)) == {"Bearer still-good-0123456789"}
    time.sleep(3.5)
    assert code(ask(gateway.port, kind.grant.target("x"))) == UPSTREAM


def test_no_file_holds_the_key_or_a_token(gateway: Mitm, kind: Kind, endpoint: TokenEndpoint) -> None:
    endpoint.answer = lambda *_: kind.issue("ghs_R3AL0123456789abcdef")
    assert ask(gateway.port, kind.grant.target("v1/x")).status == 200
    traces = Traces(["ghs_R3AL0123456789abcdef", pem(rsa_key()).splitlines()[3]])
    for file in sorted(Path(gateway.directory).rglob("*")):
        if file.is_file() and file.name != "config.yaml" and "confdir" not in str(file):
            assert not traces.found_in(file.read_bytes()), file


def test_a_program_may_print_the_private_key_with_its_lines(
    make_gateway: MakeGateway, upstream: Recorder, endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    endpoint.reset()
    endpoint.answer = lambda *_: installation("ghs_of-a-program-0123456789")
    file = tmp_path / "app.pem"
    file.touch(0o600)
    file.write_text(pem(rsa_key()))
    auth = {"type": "oauth2", "grant": "github_app", "client_id": CLIENT, "token_url": endpoint.url}
    entry = {"upstream": upstream.url, "auth": auth | {"private_key": {"exec": ["cat", str(file)]}}}
    entry["signing_keys"] = [{"secret": SECRET}]
    made = make_gateway({"gateway": {"hosts": ["presign.local"]}, "connections": {"conn_p": entry}})
    assert ask(made.port, Grant("conn_p").target("x")).status == 200
    assert sent(upstream, 1) == ["Bearer ghs_of-a-program-0123456789"]
