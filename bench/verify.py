"""What a decision costs without mitmproxy.

"verify" is parse, MAC and policy, up to the grant; "decide" adds the whole outgoing request: strip, retarget,
inject. "signed policy" is version 2 in a query, with four terms. CPU time of this process, every row measured
in turn, in one run.

Run: .venv/bin/python bench/verify.py
"""

from __future__ import annotations

import hmac
import statistics
import sys
import time
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "addon"))

from presign_proxy.core.connection import Connection, Upstream
from presign_proxy.core.credentials import bearer
from presign_proxy.core.decide import decide
from presign_proxy.core.decision import Facts, Forward
from presign_proxy.core.grant import Grant, grant_presign
from presign_proxy.core.recognise import form_of, recognise
from presign_proxy.core.registry import Registry
from presign_proxy.http.message import Origin, Request, check_grammar, check_size, head_of
from presign_proxy.signing.keys import KeyRing, SigningKey
from presign_proxy.signing.presign_scheme import Presign
from presign_proxy.signing.secret import Secret
from presign_proxy.signing.signed_policy import NO_TERMS, Terms
from presign_proxy.signing.signer import Signer

SECRET = "sk_0123456789abcdef0123456789abcdef"
NOW = 1_800_000_000
ROUNDS, CALLS = 15, 4000


def registry() -> Registry:
    connection = Connection(
        id="conn_bench",
        upstream=Upstream(Origin("https", "api.example.com", 443)),
        injector=bearer(Secret("sk-real-0123456789")),
        keys=KeyRing((SigningKey("k1", Secret(SECRET)),)),
    )
    return Registry({connection.id: connection}, frozenset({"presign.local"}))


def request(carrier: str) -> Request:
    """A request as an SDK sends it: a dozen header fields, two parameters of its own."""
    clients = (ip_network("198.51.100.0/24"), ip_network("203.0.113.0/24"))
    policy = Terms(not_before=NOW, clients=clients, max_body=1024, id="bench")
    grant = Signer("conn_bench", SECRET).sign(
        ["GET", "POST"],
        ["v1/chat/*", "v1/models"],
        expires_at=NOW + 3600,
        terms=policy if carrier == "policy" else NO_TERMS,
    )
    fields = [
        (b"Host", b"presign.local"),
        (b"Accept", b"application/json"),
        (b"Accept-Encoding", b"gzip, deflate, br, zstd"),
        (b"Connection", b"keep-alive"),
        (b"Content-Length", b"512"),
        (b"Content-Type", b"application/json"),
        (b"User-Agent", b"OpenAI/Python 2.1.0"),
        (b"X-Stainless-Lang", b"python"),
        (b"X-Stainless-OS", b"Linux"),
        (b"X-Stainless-Runtime", b"CPython"),
        (b"Authorization", b"Bearer placeholder"),
    ]
    target = "/api/proxy/conn_bench/v1/chat/completions?a=1&b=2"
    if carrier in ("query", "policy"):
        target = grant.url("v1/chat/completions?a=1&b=2", "http://presign.local").removeprefix(
            "http://presign.local"
        )
    elif carrier == "header":
        fields += [(name.encode(), value.encode()) for name, value in grant.headers.items()]
    else:
        fields[-1] = (b"Authorization", f"Bearer {grant.token}".encode())
    origin = Origin("http", "presign.local", 80)
    names = (("host", "presign.local"),)
    return Request(b"POST", target.encode(), tuple(fields), b"HTTP/1.1", origin, names, client="203.0.113.9")


def verify(known: Registry, asked: Request) -> Grant:
    """What `decide` does before it rewrites."""
    head = head_of(asked)
    claim = recognise(known, asked, head, form_of(known, asked))
    assert isinstance(claim, Presign)
    check_size(asked, head)
    check_grammar(asked, head)
    return grant_presign(known, asked, claim, Facts("req_0"), NOW)


def microseconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - started) / CALLS * 1e6


def main() -> None:
    known = registry()
    message, key = b"x" * 90, SECRET.encode()
    calls: dict[str, Callable[[], object]] = {
        "one bare HMAC-SHA256": lambda: hmac.digest(key, message, "sha256")
    }
    for carrier in ("query", "header", "key", "policy"):
        asked = request(carrier)
        assert isinstance(decide(known, asked, NOW, "req_0"), Forward)
        name = f"{carrier} carrier" if carrier != "policy" else "signed policy"
        calls[f"verify, {name}"] = lambda asked=asked: verify(known, asked)
        calls[f"decide, {name}"] = lambda asked=asked: decide(known, asked, NOW, "req_0")
    plain = request("header")._replace(
        fields=request("header").fields[:11], origin=Origin("http", "other.test", 80)
    )
    calls["not ours"] = lambda: decide(known, plain, NOW, "req_0")
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):  # alternating, so that a noisy moment hits all of them
        for name, call in calls.items():
            samples[name].append(microseconds(call))
    base = statistics.median(samples["one bare HMAC-SHA256"])
    print(f"{'':24} {'median':>9} {'lowest':>9} {'÷ HMAC':>8}")
    for name, found in samples.items():
        median = statistics.median(found)
        print(f"{name:24} {median:6.1f} µs {min(found):6.1f} µs {median / base:8.1f}")


if __name__ == "__main__":
    main()
