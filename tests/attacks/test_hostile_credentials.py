"""The hostile catalogue of credentials that are made: signatures for AWS, and tokens of endpoints.

On both paths, each request arrives exactly as it was signed, for the connection's own scope and without
anything that its client has smuggled in; or it is refused, and the upstream hears nothing at all.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.asking import SECRET, Grant, ask, code, wire
from support.gateways import MakeGateway
from support.lanes import WAYS
from support.private_keys import certificate, pem, rsa_key
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Response, connect, parse_response, send_raw
from support.recorder import Recorder
from support.seen import Seen
from support.sigv4 import Sent, Verified, verify
from support.token_endpoint import Reply, TokenEndpoint, installation, token

KEY_ID, KEY = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
MOST = 1024 * 1024
AWS, TRUSTING = Grant("conn_aws"), Grant("conn_trusting")
SIGNED, REFUSED = "signed", ("malformed", "path_not_allowed", "too_large", "upgrade_required")
EVIL = "evil-0123456789"
OWN = f"AWS4-HMAC-SHA256 Credential={EVIL}/20270101/us-west-2/iam/aws4_request, SignedHeaders=x, Signature=0"


class Case(NamedTuple):
    path: str
    fields: tuple[tuple[str, str], ...] = ()
    method: str = "GET"
    body: bytes = b""
    outcome: Any = SIGNED
    grant: Grant = AWS


CASES = {
    "a date in four spellings": Case(
        "x",
        (("X-Amz-Date", EVIL), ("x-amz-date", EVIL), ("X_Amz_Date", EVIL), ("X.Amz.Date", EVIL)),
    ),
    "a session token under another name": Case(
        "x", (("X_Amz_Security_Token", EVIL), ("X-Amz-Security_Token", EVIL), ("x-amz-security-token", EVIL))
    ),
    "two Authorization fields": Case("x", (("Authorization", OWN), ("authorization", OWN))),
    "a presigned URL of AWS around ours": Case(
        f"x?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={EVIL}&X-Amz-Signature={EVIL}"
        f"&X%2DAmz%2dSecurity-Token={EVIL}&x_amz_date={EVIL}&X-Amz-Expires=604800"
    ),
    "a payload that the client calls unsigned": Case(
        "x", (("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"),), "POST", b"the body that counts"
    ),
    "a hash of another body": Case("x", (("X-Amz-Content-Sha256", "0" * 64),), "POST", b"another"),
    "a body in pieces that the client has signed": Case(
        "x",
        (("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), ("Content-Encoding", "aws-chunked")),
        "PUT", b"4;chunk-signature=00\r\ndata\r\n0;chunk-signature=00\r\n\r\n", REFUSED,
    ),
    "pieces whose announcement is spelled otherwise": Case(
        "x", (("x_amz_content_sha256", "streaming-aws4-hmac-sha256-payload"),), "PUT", b"0\r\n\r\n", REFUSED
    ),
    "a second object in a header": Case("x", (("X-Amz-Copy-Source", f"/{EVIL}/x"),), "PUT", b"", REFUSED),
    "a second object in a header with underscores": Case(
        "x", (("X_Amz_Copy_Source", f"/{EVIL}/x"),), "PUT", b"", REFUSED
    ),
    "a second object in a parameter": Case(f"x?x-amz-copy-source=/{EVIL}/x", (), "PUT", b"", REFUSED),
    "a second object in an escaped parameter": Case(
        f"x?%78-amz-copy%2Dsource=/{EVIL}/x", (), "PUT", b"", REFUSED
    ),
    "a tab that some servers trim": Case("x", (("X-Amz-Acl", f"private\t{EVIL}"),), outcome=REFUSED),
    "a blank of Latin-1 that some servers trim": Case("x", (("X-Amz-Acl", f"\xa0{EVIL}"),), outcome=REFUSED),
    "a value that is UTF-8 to one and Latin-1 to another": Case(
        "x", (("X-Amz-Meta-Name", f"ü{EVIL}"),), outcome=REFUSED
    ),
    "duplicates in another order than their names": Case(
        "x", (("X-Amz-Meta-B", "2"), ("x-amz-meta-a", "2"), ("X-AMZ-META-A", "1"), ("X-Amz-Meta-B", "1"))
    ),
    "runs of blanks in a value": Case("x", (("X-Amz-Meta-A", 'a   "b   c"   d'), ("X-Amz-Target", "A.B"))),
    "a plus, a lone percent, names without values": Case("x?a=1+1&b=%&=c&d&&b=%2&a=0&%2B=+&e=%"),
    "the same name in many cases and escapes": Case("x?a=3&A=2&%61=1&a=&a&%41=9&a%20=1&a+=1"),
    "separators that some servers know": Case("x?a=1;b=2|c=3%26d=4%3Be"),
    "a name of another upstream": Case("@uploads/x"),
    "a name of another upstream, escaped": Case("%40uploads/%40x"),
    "an authority inside a path": Case(f"x@{EVIL}:443/y"),
    "an authority at the beginning of a path": Case(f"/{EVIL}/x", outcome=REFUSED),
    "dot segments before they are signed": Case("a/../b", outcome=REFUSED),
    "dot segments in escapes": Case("a/%2e%2E/b", outcome=REFUSED),
    "an escape of an escape": Case("a/%252e%252e/b", outcome=REFUSED),
    "a slash in an escape": Case("a%2Fb", outcome=REFUSED),
    "every reserved character in a path": Case("a:b/c!d$e&f'g(h)i*j+k,l;m=n@o/[p]"),
    "a hop-by-hop header that names signed ones": Case(
        "x", (("Connection", "X-Amz-Target, X-Amz-Date, Authorization"), ("X-Amz-Target", EVIL))
    ),
    "a hop-by-hop header that names Host": Case("x", (("Connection", "Host"),), outcome=REFUSED),
    "a region set for another algorithm": Case("x", (("X-Amz-Region-Set", EVIL),)),
    "a session of S3 Express": Case("x", (("X-Amz-S3session-Token", EVIL),)),
    "a scope that leaves its place": Case(
        "x", (("Authorization", OWN.replace("iam", "../sts").replace("us-west-2", "*")),), grant=TRUSTING
    ),
    "a scope with a line break in an escape": Case(
        f"x?X-Amz-Credential={EVIL}%2F20270101%2Fus-west-2%2Fiam%0A%2Faws4_request", grant=TRUSTING
    ),
    "two scopes that differ": Case(
        f"x?X-Amz-Credential={EVIL}%2F20270101%2Fus-west-2%2Fs3%2Faws4_request",
        (("Authorization", OWN),),
        grant=TRUSTING,
    ),
}  # fmt: skip


def connection(upstream: Recorder, **more: Any) -> dict[str, Any]:
    auth = {"type": "aws_sigv4", "access_key_id": KEY_ID, "secret_access_key": KEY}
    auth |= {"service": "bedrock", "region": "eu-west-1", "max_body": MOST}
    found = {"upstream": upstream.url, "auth": auth | more, "signing_keys": [{"secret": SECRET}]}
    return found | {"timeouts": {"connect": "3s", "response": "5s", "body": "30s"}}


@pytest.fixture(scope="module", params=("lane", "flows"))
def gateway(request: Any, module_gateway: MakeGateway, upstream: Recorder) -> Mitm:
    found = {"conn_aws": connection(upstream), "conn_trusting": connection(upstream, client_scope=True)}
    config = {"gateway": {"hosts": ["presign.local"]}, "connections": found}
    return module_gateway(config, *WAYS[request.param])


def checked(seen: Seen) -> Verified:
    """What a server makes of a request by its raw bytes."""
    head, *lines = seen.raw.split(b"\r\n\r\n")[0].split(b"\r\n")
    fields = [tuple(part.decode("latin-1").strip() for part in line.partition(b":")[::2]) for line in lines]
    method, target, _ = head.decode("latin-1").split(" ")
    return verify(Sent(method, target, fields, seen.body or b""), {KEY_ID: KEY}, time.time())


@pytest.mark.parametrize("name", CASES)
def test_what_arrives_is_signed_or_nothing_arrives(gateway: Mitm, upstream: Recorder, name: str) -> None:
    case = CASES[name]
    raw = wire(case.grant.target(case.path), case.fields, case.method, body=case.body)
    answer = parse_response(send_raw(gateway.port, raw), case.method == "HEAD")
    if case.outcome is not SIGNED:
        assert answer.status in (400, 403, 413, 426)
        assert answer.header("x-presign-error") in case.outcome
        assert not upstream.touched
        return
    assert answer.status == 200
    (seen,) = upstream.wait_for(1)
    assert checked(seen)[:2] == ("bedrock", "eu-west-1")
    if "authority" not in name and "Target" not in name:
        assert EVIL.encode() not in seen.raw
    assert seen.body == case.body


def test_a_trusted_scope_is_the_only_thing_taken_from_the_client(gateway: Mitm, upstream: Recorder) -> None:
    assert ask(gateway.port, TRUSTING.target("x"), [("Authorization", OWN)]).status == 200
    (seen,) = upstream.wait_for(1)
    assert checked(seen)[:2] == ("iam", "us-west-2")
    assert EVIL.encode() not in seen.raw


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndata\r\n0\r\n\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n\r\ndata",
        "Transfer-Encoding: chunked\r\n\r\n4\r\ndataX\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    ],
)
def test_a_body_whose_end_is_doubtful_is_not_signed(gateway: Mitm, upstream: Recorder, framing: str) -> None:
    head = wire(AWS.target("x"), method="POST").removesuffix(b"\r\n")
    answer = send_raw(gateway.port, head + framing.encode())
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 ")) or not answer
    assert not upstream.touched


def test_a_trailer_is_neither_signed_nor_sent(gateway: Mitm, upstream: Recorder) -> None:
    head = wire(AWS.target("x"), [("Transfer-Encoding", "chunked")], "POST")
    chunks = f"4;x-amz-meta-a={EVIL}\r\ndata\r\n0\r\nX-Amz-Meta-A: {EVIL}\r\nAuthorization: {EVIL}\r\n\r\n"
    assert parse_response(send_raw(gateway.port, head + chunks.encode())).status == 200
    (seen,) = upstream.wait_for(1)
    assert checked(seen)
    assert (seen.body, seen.trailers) == (b"data", b"")
    assert EVIL.encode() not in seen.everything


def test_bodies_that_never_end_fill_no_memory(gateway: Mitm, upstream: Recorder) -> None:
    """200 holders, each of whom sends all that one may but its last byte: far more than a worker may hold."""
    before = gateway.rss()
    head = wire(AWS.target("x"), [("Content-Length", str(MOST))], "POST")
    clients: list[socket.socket] = []
    try:
        refused = 0
        for _ in range(200):
            client = connect(gateway.port)
            clients.append(client)
            client.settimeout(5)
            try:
                client.sendall(head + b"a" * (MOST - 1))
            except OSError:
                refused += 1
        assert eventually(lambda: gateway.rss() - before < 200 * 1024 * 1024)
        answers = [_answer_so_far(client) for client in clients]
        assert sum(answer.startswith(b"HTTP/1.1 503 ") for answer in answers) + refused >= 100
        assert not upstream.touched
    finally:
        for client in clients:
            client.close()
    assert eventually(
        lambda: ask(gateway.port, AWS.target("x"), method="POST", body=b"a" * MOST).status == 200
    )


def test_the_holder_of_one_url_whose_bodies_never_end_shuts_no_other_holder_out(gateway: Mitm) -> None:
    """A byte now and then keeps a body from being late, for as long as its sender likes."""
    head = wire(AWS.target("x"), [("Content-Length", str(MOST))], "POST")
    other = replace(AWS, paths="/x,/y").target("y")
    with contextlib.ExitStack() as crowd:

        def one_more() -> None:
            client = crowd.enter_context(connect(gateway.port))
            with contextlib.suppress(OSError):  # it was one too many
                client.sendall(head + b"a" * (MOST - 1))

        def is_full() -> bool:
            """Bodies that come at once may turn each other away, and leave room: then another one comes."""
            if code(posted(gateway, AWS.target("x"))) == (503, "unavailable"):
                return True
            one_more()
            return False

        for _ in range(70):
            one_more()
        assert eventually(is_full, 30)
        assert posted(gateway, other).status == 200


def test_a_body_takes_no_memory_any_more_once_its_answer_begins(gateway: Mitm) -> None:
    """Answers of models are events that come for minutes. Bodies of one URL have half of 64 MiB at once."""
    head = wire(AWS.target("download?bytes=50000000"), [("Content-Length", str(MOST))], "POST")
    with contextlib.ExitStack() as clients:
        for _ in range(40):
            client = clients.enter_context(connect(gateway.port))
            client.sendall(head + b"a" * MOST)
            assert client.recv(12) == b"HTTP/1.1 200"


def posted(gateway: Mitm, target: str) -> Response:
    return ask(gateway.port, target, method="POST", body=b"a" * MOST)


def _answer_so_far(client: socket.socket) -> bytes:
    client.settimeout(0.05)
    try:
        return client.recv(4096)
    except OSError:
        return b""


# -- token endpoints ------------------------------------------------------------------------------------

GRANTS: dict[str, dict[str, Any]] = {
    "client_credentials": {"client_secret": "the-secret-of-the-client"},
    "client_credentials, post": {"client_secret": "the-secret-of-the-client", "client_auth": "post"},
    "client_credentials, assertion": {
        "client_auth": "assertion", "private_key": pem(rsa_key()) + certificate(rsa_key()),
    },
    "refresh_token": {
        "grant": "refresh_token", "client_secret": "s-0123456789", "refresh_token": "r-0123456789",
    },
    "jwt_bearer": {"grant": "jwt_bearer", "private_key": pem(rsa_key())},
    "github_app": {"grant": "github_app", "private_key": pem(rsa_key())},
}  # fmt: skip
REDIRECTS = {
    "301 elsewhere": (301, "http://127.0.0.1:{trap}/token"),
    "302 elsewhere": (302, "http://127.0.0.1:{trap}/token"),
    "303 elsewhere": (303, "http://127.0.0.1:{trap}/token"),
    "307 elsewhere": (307, "http://127.0.0.1:{trap}/token"),
    "308 elsewhere": (308, "//127.0.0.1:{trap}/token"),
    "307 to itself": (307, "/token2"),
    "300 with a token": (300, "/token2"),
    "202 with a place": (202, "http://127.0.0.1:{trap}/token"),
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[TokenEndpoint]:
    found = TokenEndpoint()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def minting(module_gateway: MakeGateway, upstream: Recorder, endpoint: TokenEndpoint) -> Mitm:
    found = {}
    for number, members in enumerate(GRANTS.values()):
        for other, _ in enumerate(REDIRECTS):
            url = f"{endpoint.url}/{number}/{other}"
            auth = {"type": "oauth2", "token_url": url, "client_id": "client", **members}
            found[f"conn_{number}_{other}"] = {
                "upstream": upstream.url, "auth": auth, "signing_keys": [{"secret": SECRET}],
            }  # fmt: skip
    return module_gateway({"gateway": {"hosts": ["presign.local"]}, "connections": found})


@pytest.mark.parametrize("how", REDIRECTS)
@pytest.mark.parametrize("grant", GRANTS)
def test_an_endpoint_that_redirects_gets_nothing_sent_elsewhere(
    minting: Mitm, upstream: Recorder, endpoint: TokenEndpoint, tls_upstream: Recorder, grant: str, how: str
) -> None:
    endpoint.reset()
    issue = installation if grant == "github_app" else token
    status, place = REDIRECTS[how]
    where = (("Location", place.format(trap=tls_upstream.port)),)
    endpoint.answer = lambda *_: Reply(status, issue("a-token-0123456789").body, headers=where)
    name = f"conn_{[*GRANTS].index(grant)}_{[*REDIRECTS].index(how)}"
    assert code(ask(minting.port, Grant(name).target("x"))) == (502, "upstream")
    assert len(endpoint.asked) == 1
    assert not tls_upstream.touched
    assert not upstream.touched


@pytest.mark.parametrize(
    "value", ["1/../../user", "1?x=", "1#", "1%2F2", "", "-1", "1 2", "١", "@evil.test/1"]
)
def test_the_number_of_an_installation_adds_nothing_to_a_path(tmp_path: Path, value: str) -> None:
    from presign_proxy.config.load import load
    from presign_proxy.config_problems import ConfigError
    from support.config import write_config

    auth = {"client_id": "client", "private_key": pem(rsa_key())}
    entry = {"preset": "github-app", "vars": {"installation": value}, "auth": auth}
    entry["signing_keys"] = [{"secret": SECRET}]
    with pytest.raises(ConfigError, match="installation"):
        load(write_config({"connections": {"conn": entry}}, tmp_path), dict(os.environ))
