"""Properties of the whole decision, held against a naive reference that shares no code with the product."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote_plus

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from presign_proxy.core.answers import refusal
from presign_proxy.core.decision import Deny, Forward, PassThrough
from presign_proxy.errors import STATUS
from presign_proxy.http.message import Origin, Request
from support.deciding import GATEWAY, KEY, NOW, SECRET, ask, connection, registry, request
from support.signing import presign_query, sign

WORDS = st.text("abcXYZ019-._~", min_size=1, max_size=6)
PATHS = st.lists(WORDS, min_size=1, max_size=4).map("/".join)
PIECES = st.text("ab=+%20;é?/:@!$'()*,~.-_", max_size=8).filter(lambda t: "&" not in t and "%" not in t)
QUERIES = st.one_of(st.none(), st.lists(PIECES, max_size=4).map("&".join))


@given(PATHS, QUERIES, st.sampled_from(["first", "last", "middle"]))
def test_what_is_attached_comes_off_again_byte_for_byte(path: str, query: str | None, place: str) -> None:
    assume(not any(segment in (".", "..") or not segment.strip(" .") for segment in path.split("/")))
    presign = presign_query(SECRET, "conn", NOW + 60, "GET", "*")
    plain = f"/api/proxy/conn/{path}" + ("" if query is None else f"?{query}")
    if query is None:
        target = f"{plain}?{presign}"
    elif place == "first":
        target = f"/api/proxy/conn/{path}?{presign}&{query}"
    elif place == "last":
        target = f"{plain}&{presign}"
    else:
        head, tail = presign.split("&", 1)
        target = f"/api/proxy/conn/{path}?{head}&{query}&{tail}"
    decision = ask(request(target))
    assert isinstance(decision, Forward), decision
    assert decision.sent.query == (None if query is None else query.encode())
    assert decision.sent.path == f"/{path}".encode()


BYTES = st.binary(max_size=24)
NAMES = st.sampled_from(
    [
        b"Host",
        b"X-Presign-Signature",
        b"X-Presign-Paths",
        b"x_presign_paths",
        b"Authorization",
        b"Cookie",
        b"Connection",
        b"Referer",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Expect",
        b"Upgrade",
    ]
)
FIELDS = st.lists(
    st.tuples(st.one_of(NAMES, BYTES), st.one_of(BYTES, st.just(b"Bearer ps1_x." + b"0" * 64))), max_size=5
)
GOOD = f"?{presign_query(SECRET, 'conn', NOW + 60, 'GET', '*')}".encode()
STARTS = st.sampled_from(
    [b"/api/proxy/conn/", b"/p/ps1_", b"/v1/pk/", b"/", b"", b"*", b"/api/proxy/conn/v1" + GOOD]
)
TARGETS = st.tuples(STARTS, BYTES, st.sampled_from([b"", b"?", GOOD, b"&X-Presign-Paths=*"]), BYTES).map(
    b"".join
)


@given(st.one_of(st.just(b"GET"), BYTES), TARGETS, FIELDS, st.booleans(), st.booleans())
@settings(max_examples=1000)
def test_no_bytes_raise_anything(
    method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], at_gateway: bool, reverse: bool
) -> None:
    host = GATEWAY if at_gateway else "api.example.com"
    asked = Request(
        method=method,
        target=target,
        fields=((b"Host", host.encode()), *fields),
        version=b"HTTP/1.1",
        origin=Origin("https", host, 443),
        names=(("host", host),),
        reverse=reverse,
    )
    decision = ask(asked)
    assert isinstance(decision, Forward | Deny | PassThrough)
    if isinstance(decision, Deny):
        assert decision.code in STATUS
        assert refusal(decision.code, "req", decision.style).status >= 400
    if isinstance(decision, Forward):
        assert is_granted(asked), asked


def is_granted(asked: Request) -> bool:
    """A naive second opinion on a query or header carrier at the gateway or at the API itself."""
    path, _, query = asked.target.decode("latin-1").partition("?")
    values = {name: unquote_plus(value) for name, value in parse_qsl(query, keep_blank_values=True)}
    values |= {
        name.decode("latin-1").title(): value.decode("utf-8", "replace")
        for name, value in asked.fields
        if name.lower().startswith(b"x-presign")
    }
    if asked.origin.host == GATEWAY or asked.reverse:
        path = path.removeprefix("/api/proxy/conn")
    expires, methods, paths = (
        values.get(f"X-Presign-{name}", "") for name in ("Expires", "Methods", "Paths")
    )
    text = f"PRESIGN-HMAC-SHA256\nconn\n{expires}\n{methods}\n{paths}"
    if sign(SECRET, text) != values.get("X-Presign-Signature"):
        return False
    matches = any(
        re.fullmatch(re.escape(p).replace(r"\*", ".*"), path.removeprefix("/"), re.DOTALL)
        for p in paths.split(",")
    )
    return (
        (int(expires) == 0 or int(expires) >= NOW) and matches and asked.method.decode() in methods.split(",")
    )


MUTATIONS = st.tuples(st.sampled_from(["insert", "replace", "delete"]), st.floats(0, 1), st.integers(0, 255))


@given(st.lists(MUTATIONS, min_size=1, max_size=3))
@settings(max_examples=1000)
def test_a_changed_byte_never_grants_something_else(mutations: list[tuple[str, float, int]]) -> None:
    """Whatever is done to a good request: what is forwarded is what an independent reader finds signed."""
    target = bytearray(
        b"/api/proxy/conn/v1/models" + f"?{presign_query(SECRET, 'conn', NOW + 60, 'GET', 'v1/*')}".encode()
    )
    for how, where, octet in mutations:
        at = int(where * (len(target) - 1))
        if how == "insert":
            target.insert(at, octet)
        elif how == "replace":
            target[at] = octet
        else:
            del target[at]
    asked = request(bytes(target))
    decision = ask(asked)
    assert not isinstance(decision, PassThrough)
    if isinstance(decision, Forward):
        assert is_granted(asked)
        assert decision.sent.path.startswith(b"/v1/")
        assert b"resign" not in (decision.sent.query or b"").lower()


@given(st.text(max_size=30))
def test_no_answer_repeats_anything_of_the_request(text: str) -> None:
    marked = f"MARK{quote(text)}"
    decision = ask(
        request(f"/api/proxy/{marked}/v1/{marked}?{marked}&X-Presign-Expires={marked}", (b"X-A", b"MARK"))
    )
    assert isinstance(decision, Deny)
    answer = refusal(decision.code, decision.request_id, decision.style)
    assert b"MARK" not in answer.body + b"".join(value for _, value in answer.fields)
    assert KEY.encode() not in answer.body


@given(
    st.sampled_from(["GET", "POST", "*", "GET,POST"]),
    st.sampled_from(["*", "v1/*", "v1/models"]),
    st.sampled_from(["GET", "POST", "HEAD"]),
    PATHS,
)
def test_whatever_is_granted_a_naive_matcher_grants_too(
    methods: str, paths: str, method: str, path: str
) -> None:
    query = presign_query(SECRET, "conn", NOW + 60, methods, paths)
    decision = ask(request(f"/api/proxy/conn/{path}?{query}", method=method), registry(connection()))
    naive = (methods == "*" or method in methods.split(",")) and any(
        re.fullmatch(p.replace(".", r"\.").replace("*", ".*"), path) for p in paths.split(",")
    )
    if isinstance(decision, Forward):
        assert naive
    elif naive:
        assert decision.code == "path_not_allowed"
        assert any(not segment.strip(".") for segment in path.split("/"))
