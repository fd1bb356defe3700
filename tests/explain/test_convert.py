"""URL, token, headers: the same grant in each, without the secret."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from presign_proxy.core.connection import Upstream
from presign_proxy.explain.convert import signed_from
from presign_proxy.explain.input.paste import UnreadableUrl, parse
from presign_proxy.signing.signer import Signed, Signer
from support.deciding import GATEWAY, NOW, SECRET, UPSTREAM, ask, code, connection, registry, ring, signed
from support.places import TESTS
from support.signing import presign_headers, presign_params, source_url, token

VECTORS = json.loads((TESTS / "data/seed_vectors.json").read_text("utf-8"))
BASE = f"https://{GATEWAY}"

ITEMS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=","), min_size=1, max_size=12
)


@given(
    st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    st.one_of(st.just(["*"]), st.lists(st.sampled_from(["GET", "POST", "M-SEARCH", "PUT"]), min_size=1)),
    st.lists(ITEMS, min_size=1, max_size=5),
    st.integers(0, 10**12 - 1),
)  # fmt: skip
def test_every_grant_survives_the_round(
    name: str, methods: list[str], paths: list[str], expires_at: int
) -> None:
    try:
        grant = Signer(name, SECRET).sign(methods, paths, expires_at=expires_at)
    except ValueError:
        assume(False)
        return
    from_url = signed_from(parse(grant.url("a/b?c=d", BASE)))
    assert from_url == (grant, "/a/b?c=d")
    from_token = signed_from(parse(from_url.signed.token))
    assert from_token == (grant, None)
    headers = json.dumps(from_token.signed.headers)
    if grant.paths != grant.paths.strip(" "):
        # No HTTP header can carry these, so no such conversion is pretended.
        with pytest.raises(UnreadableUrl):
            parse(headers)
        return
    from_headers = signed_from(parse(headers))
    assert from_headers == (grant, None)
    assert from_headers.signed.url("a/b?c=d", BASE) == grant.url("a/b?c=d", BASE)
    lines = "\n".join(f"{field}: {value}" for field, value in grant.headers.items())
    assert signed_from(parse(lines)).signed == grant


@pytest.mark.parametrize("vector", VECTORS["presign"], ids=lambda vector: vector["url"][:40])
def test_vectors_of_the_seed_convert_and_verify(vector: dict) -> None:
    known = registry(connection(vector["connection_id"], keys=ring(vector["signing_secret"])))
    method = vector["methods"][0].replace("*", "GET")
    converted = signed_from(parse(vector["url"], method=method))
    assert converted.signed.signature == vector["signature"]
    assert converted.path == f"/{vector['path']}"
    path = converted.path or ""
    for text in (
        converted.signed.url(path, BASE),
        converted.signed.token,
        json.dumps(converted.signed.headers),
    ):
        assert code(parse(text, method=method, path=path).request, known, NOW) == "forward"


HEADERS = presign_headers(SECRET, "conn", NOW + 60, "GET", "v1/*")
OTHER_FORMS = {
    "a path token": f"{BASE}/p/{token(SECRET, 'conn', NOW + 60, 'GET', 'v1/*')}/v1/models?limit=2",
    "a gateway URL": f"{BASE}{signed('v1/models?limit=2').replace('2?', '2&')}",
    "headers at the gateway": (
        f"curl '{BASE}/api/proxy/conn/v1/models?limit=2' "
        + " ".join(f"-H '{name}: {value}'" for name, value in HEADERS.items())
    ),
    "a key token at the API": (
        f"curl -H 'Authorization: Bearer {token(SECRET, 'conn', NOW + 60, 'GET', 'v1/*')}' "
        "'https://api.example.com/v1/models?limit=2'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHER_FORMS)
def test_each_carrier_becomes_each_other(what: str) -> None:
    converted = signed_from(parse(OTHER_FORMS[what]))
    assert converted.path == "/v1/models?limit=2"
    assert code(parse(converted.signed.url(converted.path, BASE)).request) == "forward"
    assert code(parse(converted.signed.token).request) == "forward"


def test_a_url_of_the_api_needs_to_be_told_its_connection() -> None:
    query = "&".join(f"{n}={v}" for n, v in presign_params(SECRET, "conn", NOW + 60, "GET", "models").items())
    presented = parse(f"https://api.example.com/v1/models?{query}")
    with pytest.raises(UnreadableUrl, match="names no connection"):
        signed_from(presented)
    converted = signed_from(presented, connection="conn", base="/v1")
    assert converted.path == "/models"
    known = registry(connection(upstream=Upstream(UPSTREAM, b"/v1")))
    assert code(parse(converted.signed.url("models", BASE)).request, known) == "forward"
    with pytest.raises(UnreadableUrl, match="base path"):
        signed_from(presented, connection="conn", base="/v2")
    named = parse(f"https://api.example.com/v1/models?{query}&X-Presign-Connection=conn")
    assert signed_from(named).signed == converted.signed
    with pytest.raises(UnreadableUrl, match="not for the one"):
        signed_from(named, connection="other")


@pytest.mark.parametrize(
    "text",
    [
        "https://a.test/",
        f"{BASE}{signed()}/glued",
        f"{BASE}/api/proxy/conn/x",
        BASE + source_url(SECRET, "pk", "https://cdn.acme.com/a.png", NOW, "png"),
        token(SECRET, "conn", NOW, "GET", "*")[:-1],
    ],
)
def test_what_is_no_presign_is_not_converted(text: str) -> None:
    with pytest.raises(UnreadableUrl) as refused:
        signed_from(parse(text))
    assert "Signature=" not in str(refused.value)


def test_a_bad_signature_is_converted_and_stays_bad() -> None:
    forged = Signed("conn", str(NOW + 60), "GET", "*", "0" * 64)
    assert code(parse(signed_from(parse(forged.token)).signed.url("x", BASE)).request) == "invalid"
    assert ask(parse(forged.token).request).code == "invalid"
