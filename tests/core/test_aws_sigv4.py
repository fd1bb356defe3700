"""Signature Version 4: what is signed is what is sent, as a server reads it that shares no code with us."""

from __future__ import annotations

import hashlib
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.core.aws_sigv4 import NOT_IN_PIECES, SigV4Credential, is_installed
from presign_proxy.core.connection import Connection, Upstream
from presign_proxy.core.credentials import Outgoing, Unsigned
from presign_proxy.core.decision import Deny, Forward
from presign_proxy.core.masking import mask_for
from presign_proxy.http.message import Origin
from presign_proxy.signing.secret import LateSecret, Secret
from support.deciding import NOW, ask, connection, registry, request
from support.deciding import SECRET as SIGNING
from support.signing import presign_query
from support.sigv4 import PIECES, UNSIGNED, Sent, Unverifiable, verify
from support.sigv4_vectors import DOCUMENTED, S3, S3_TIME, SUITE, SUITE_TIME

assert is_installed()  # not in the time of the first example
KEY_ID, KEY = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "IQoJb3JpZ2luX2VjEXAMPLE//////////wEaCXVzLWVhc3QtMSJHMEUCIQ=="
BEDROCK = Origin("https", "bedrock-runtime.eu-west-1.amazonaws.com", 443)
BUCKET = Origin("https", "bucket.s3.eu-west-1.amazonaws.com", 443)
EMPTY = hashlib.sha256().hexdigest().encode()


def key(service: str = "bedrock", token: str | None = None, **more: Any) -> SigV4Credential:
    session = Secret(token) if token else None
    given = {"max_body": 1000} | more
    return SigV4Credential(Secret(KEY_ID), Secret(KEY), session, service, "eu-west-1", **given)


def to(origin: Origin, credential: SigV4Credential) -> Connection:
    return connection(upstream=Upstream(origin), injector=credential)


def decision(
    target: str, *fields: tuple[bytes, bytes], aws: Connection, method: str = "GET"
) -> Forward | Deny:
    path, question, query = target.partition("?")
    presign = presign_query(SIGNING, "conn", NOW + 60, "*", "*")
    signed = f"/api/proxy/conn/{path}?{query}{'&' if question else ''}{presign}"
    found = ask(request(signed, *fields, method=method), registry(aws))
    assert isinstance(found, Forward | Deny)
    return found


def leaves(
    target: str,
    *fields: tuple[bytes, bytes],
    origin: Origin = BEDROCK,
    credential: SigV4Credential | None = None,
    method: str = "GET",
    body: bytes | None = None,
) -> Sent:
    """A request as it goes over the wire."""
    aws = to(origin, credential or key("s3" if origin is BUCKET else "bedrock"))
    found = decision(target, *fields, aws=aws, method=method)
    assert isinstance(found, Forward), found
    assert isinstance(found.sent, Unsigned)
    digest = hashlib.sha256(body or b"").hexdigest().encode() if found.hold is not None else None
    out = found.leaving(NOW, digest)
    text = out.path + (b"" if out.query is None else b"?" + out.query)
    sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in out.fields]
    return Sent(method, text.decode("latin-1"), [("Host", origin.authority), *sent], body or b"")


# -- the verifier itself, by what AWS has published -----------------------------------------------------


@pytest.mark.parametrize("name", SUITE)
def test_the_verifier_of_these_tests_agrees_with_the_suite_of_aws(name: str) -> None:
    vector = SUITE[name]
    found = verify(vector.request, DOCUMENTED, SUITE_TIME, strict=False, normalise=vector.normalise)
    assert (found.service, found.region) == ("service", "us-east-1")


@pytest.mark.parametrize("name", S3)
def test_the_verifier_of_these_tests_agrees_with_the_pages_about_s3(name: str) -> None:
    assert verify(S3[name].request, DOCUMENTED, S3_TIME).service == "s3"


def test_the_verifier_of_these_tests_notices_a_change_of_anything_signed() -> None:
    sent = S3["PUT an object"].request
    changes = [
        sent._replace(method="POST"),
        sent._replace(target="/test%24file.texu"),
        sent._replace(target=sent.target + "?acl"),
        sent._replace(body=b"Welcome to Amazon S4."),
        sent._replace(fields=[*sent.fields, ("x-amz-acl", "public-read")]),
        sent._replace(fields=[*sent.fields, ("x-amz-storage-class", "GLACIER")]),
        sent._replace(fields=[one for one in sent.fields if one[0] != "Date"]),
    ]
    for changed in changes:
        with pytest.raises(Unverifiable):
            verify(changed, DOCUMENTED, S3_TIME)
    with pytest.raises(Unverifiable):
        verify(sent, DOCUMENTED, S3_TIME + 1000)


# -- what we sign ---------------------------------------------------------------------------------------

_PIECES = st.sampled_from(
    ["a", "B-", "._~", "x y", "ü", "!$&'()*,;=:@", "%3A", "%2C", "[]", "+", "é%C3%A9", "^`|{}"]
)


@given(st.lists(_PIECES, min_size=1, max_size=4), st.sampled_from([BEDROCK, BUCKET]))
def test_any_path_is_signed_as_it_is_sent(parts: list[str], origin: Origin) -> None:
    target = "/".join(part.replace(" ", "%20").replace("?", "") for part in parts)
    sent = leaves(target, origin=origin)
    assert verify(sent, {KEY_ID: KEY}, NOW).region == "eu-west-1"
    # Every server decodes to the same, and no character is left that one of them may escape again.
    assert re.fullmatch(r"(?:/|[A-Za-z0-9._~-]|%[0-9A-F]{2})+", sent.target.partition("?")[0])


_QUERY = (
    "a=1 a=2 A=0 b= c =d x=y=z p=a+b q=%2B r=%20 s=% t=%zz u=ü v=%c3%bc w=: prefix=a/b list-type=2 "
    "k%5B%5D=1 x-id=GetObject e=%25"
)
_PAIRS = st.sampled_from(_QUERY.split())


@given(st.lists(_PAIRS, max_size=6), st.sampled_from([BEDROCK, BUCKET]))
def test_any_query_is_signed_as_it_is_sent(pairs: list[str], origin: Origin) -> None:
    sent = leaves("x?" + "&".join(pairs) if pairs else "x", origin=origin)
    assert verify(sent, {KEY_ID: KEY}, NOW)
    query = sent.target.partition("?")[2]
    assert "+" not in query
    assert len([one for one in query.split("&") if one]) == len(pairs)


def test_a_query_keeps_its_order_its_flags_and_its_empty_values() -> None:
    target = leaves("x?b=2&a&c=&a=1+1&b=1").target
    assert target == "/x?b=2&a&c=&a=1%201&b=1"


_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
_NAMES = st.sampled_from(
    b"X-Amz-Meta-A x-amz-meta-a X-AMZ-META-B X-Amz-Target x-amz-acl Content-Type Content-MD5 "
    b"Range User-Agent X_Amz_Meta_A X.Amz.Acl".split()
)


@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=6), st.sampled_from([BEDROCK, BUCKET]))
def test_any_headers_are_signed_as_they_are_sent(fields: list[tuple[bytes, str]], origin: Origin) -> None:
    given_ = [(name, value.strip().encode()) for name, value in fields]
    sent = leaves("x", *given_, origin=origin, method="PUT", body=b"")
    found = verify(sent, {KEY_ID: KEY}, NOW)
    assert {name.lower() for name, _ in sent.fields if name.lower().startswith("x-amz-")} <= found.signed
    assert not any(name.startswith(("X_", "X.")) for name, _ in sent.fields)  # another spelling of one


def test_each_service_gets_its_path_escaped_as_it_wants() -> None:
    """Bedrock escapes what it was sent, S3 does not: both by the same path on the wire."""
    for origin in (BEDROCK, BUCKET):
        sent = leaves("model/anthropic.claude-v1:0/invoke", origin=origin)
        assert sent.target == "/model/anthropic.claude-v1%3A0/invoke"
        assert verify(sent, {KEY_ID: KEY}, NOW)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_the_method_and_the_body_are_signed(method: str) -> None:
    sent = leaves("x", method=method, body=b'{"a": 1}')
    assert verify(sent, {KEY_ID: KEY}, NOW).payload == hashlib.sha256(b'{"a": 1}').hexdigest()
    for changed in (sent._replace(body=b'{"a": 2}'), sent._replace(method="PROPFIND")):
        with pytest.raises(Unverifiable):
            verify(changed, {KEY_ID: KEY}, NOW)


def test_temporary_keys_sign_with_their_session() -> None:
    sent = leaves("x", credential=key(token=TOKEN))
    assert "x-amz-security-token" in verify(sent, {KEY_ID: KEY}, NOW).signed
    assert [value for name, value in sent.fields if name == "X-Amz-Security-Token"] == [TOKEN]


def test_the_head_alone_is_signed_for_s3_over_tls_and_nothing_is_held() -> None:
    found = decision("x", aws=to(BUCKET, key("s3")), method="PUT")
    assert isinstance(found, Forward)
    assert found.hold is None
    sent = leaves("x", origin=BUCKET, method="PUT")
    assert verify(sent._replace(body=b"whatever comes"), {KEY_ID: KEY}, NOW).payload == UNSIGNED
    plain = Origin("http", "127.0.0.1", 9000)
    found = decision("x", aws=to(plain, key("s3")), method="PUT")
    assert isinstance(found, Forward)
    assert found.hold == 1000
    with pytest.raises(LookupError):
        found.leaving(NOW, None)


def test_a_signature_is_of_the_second_in_which_the_request_leaves() -> None:
    found = decision("x", aws=to(BEDROCK, key()))
    assert isinstance(found, Forward)
    stamps = []
    for now in (NOW, NOW + 1, NOW + 86_400):
        out = found.leaving(now, EMPTY)
        fields = [(name.decode(), value.decode()) for name, value in out.fields]
        sent = Sent("GET", out.path.decode(), [("Host", BEDROCK.authority), *fields])
        assert verify(sent, {KEY_ID: KEY}, now)
        stamps.append(dict(fields)["X-Amz-Date"])
    assert stamps == ["20270115T080000Z", "20270115T080001Z", "20270116T080000Z"]


# -- what the client brings -----------------------------------------------------------------------------

OWN = [
    (b"Authorization", b"AWS4-HMAC-SHA256 Credential=AKIACLIENT/20270115/us-west-2/lambda/aws4_request, "
                       b"SignedHeaders=host, Signature=" + b"0" * 64),
    (b"X-Amz-Date", b"20200101T000000Z"),
    (b"x-amz-date", b"20200101T000000Z"),
    (b"X-Amz-Security-Token", b"the-session-of-the-client"),
    (b"X-Amz-Content-Sha256", b"0" * 64),
    (b"X_Amz_Date", b"20200101T000000Z"),
    (b"X-Amz-Region-Set", b"*"),
]  # fmt: skip


def test_the_signature_of_the_client_is_taken_off_and_its_target_is_kept() -> None:
    query = "&".join(
        [
            "X-Amz-Algorithm=AWS4-HMAC-SHA256",
            "X-Amz-Credential=AKIACLIENT%2F20270115%2Fus-west-2%2Flambda%2Faws4_request",
            "x-amz-date=20200101T000000Z",
            "X-Amz-Expires=60",
            "X-Amz-SignedHeaders=host",
            "X-Amz-Signature=" + "0" * 64,
            "X-Amz-Security-Token=the-session-of-the-client",
            "X%2DAmz%2DSignature=1",
            "kept=1",
        ]
    )
    sent = leaves(f"x?{query}", *OWN, (b"X-Amz-Target", b"DynamoDB_20120810.GetItem"))
    found = verify(sent, {KEY_ID: KEY}, NOW)
    assert (found.service, found.region) == ("bedrock", "eu-west-1")
    assert "x-amz-target" in found.signed
    whole = repr(sent)
    for foreign in ("AKIACLIENT", "the-session-of", "20200101", "us-west-2", "Region-Set"):
        assert foreign not in whole, foreign
    assert sent.target == "/x?kept=1"


def test_service_and_region_of_the_client_count_only_where_the_configuration_says_so() -> None:
    trusting = key(client_scope=True)
    assert verify(leaves("x", *OWN, credential=trusting), {KEY_ID: KEY}, NOW)[:2] == ("lambda", "us-west-2")
    by_query = "x?X-Amz-Credential=AKIACLIENT%2F20270115%2Fus-west-2%2Flambda%2Faws4_request"
    assert verify(leaves(by_query, credential=trusting), {KEY_ID: KEY}, NOW)[:2] == ("lambda", "us-west-2")
    # Two that differ, one with a line of its own, none: the configuration's.
    odd = [
        (*OWN, (b"authorization", OWN[0][1].replace(b"lambda", b"iam"))),
        ((b"Authorization", OWN[0][1].replace(b"lambda", b"lambda%0Ax")),),
        ((b"Authorization", OWN[0][1].replace(b"us-west-2", b"US/../x")),),
        ((b"Authorization", b"Bearer x"),),
        (),
    ]
    for fields in odd:
        found = verify(leaves("x", *fields, credential=trusting), {KEY_ID: KEY}, NOW)
        assert found[:2] == ("bedrock", "eu-west-1")


@pytest.mark.parametrize("claim", [b"AWS4-HMAC-SHA256 " * 3500, b"AWS4-HMAC-SHA256 " + b"Credential=" * 5400])
def test_a_claim_of_the_client_that_is_made_to_backtrack_costs_no_time(claim: bytes) -> None:
    """Whoever holds one URL could keep a worker busy for seconds with each head."""
    started = time.process_time()
    found = leaves("x", (b"Authorization", claim), credential=key(client_scope=True))
    assert time.process_time() - started < 1
    assert verify(found, {KEY_ID: KEY}, NOW)[:2] == ("bedrock", "eu-west-1")


@pytest.mark.parametrize(
    "field",
    [
        (b"X-Amz-Meta-A", "ü".encode()),
        (b"X-Amz-Meta-A", b"a\tb"),
        (b"X-Amz-Meta-A", b"a\xa0b"),
        (b"Content-Type", b"text/plain\x85"),
        (b"x-amz-acl", b"\xc2\xa0public-read"),
    ],
)
def test_a_value_that_servers_trim_or_decode_differently_is_refused_by_name(
    field: tuple[bytes, bytes],
) -> None:
    for origin in (BEDROCK, BUCKET):
        found = decision("x", field, aws=to(origin, key("s3" if origin is BUCKET else "bedrock")))
        assert isinstance(found, Deny)
        assert found.code == "malformed"
        assert field[0].lower().decode() in found.detail


@pytest.mark.parametrize(
    "target",
    [
        "x?x-amz-copy-source=/other/key",
        "x?X-Amz-Copy-Source=/other/key",
        "x?x%2Damz-copy-source=1",
        "x?x_amz_copy_source=1",
    ],
)
def test_a_second_object_named_by_a_parameter_is_refused(target: str) -> None:
    found = decision(target, aws=to(BUCKET, key("s3")), method="PUT")
    assert isinstance(found, Deny)
    assert found.code == "malformed"


def test_a_body_in_chunks_of_s3_streams_unsigned_and_is_refused_where_its_chunks_are_signed() -> None:
    chunked = (b"Content-Encoding", b"aws-chunked")
    free = (b"X-Amz-Content-Sha256", PIECES.encode())
    sent = leaves(
        "x", chunked, free, (b"X-Amz-Trailer", b"x-amz-checksum-crc32"), origin=BUCKET, method="PUT"
    )
    assert verify(sent, {KEY_ID: KEY}, NOW).payload == PIECES
    bad = [
        (chunked,),
        (chunked, (b"X-Amz-Content-Sha256", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD")),
        ((b"X-Amz-Content-Sha256", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),),
        (chunked, free, (b"x-amz-content-sha256", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD")),
        ((b"Content-Encoding", b"gzip, AWS-chunked"), (b"X-Amz-Content-Sha256", b"UNSIGNED-PAYLOAD")),
    ]
    for fields in bad:
        found = decision("x", *fields, aws=to(BUCKET, key("s3")), method="PUT")
        assert isinstance(found, Deny), fields
        assert (found.code, found.sentence) == ("malformed", NOT_IN_PIECES)
    found = decision("x", chunked, free, aws=to(BEDROCK, key()), method="PUT")
    assert isinstance(found, Deny)


def test_an_announced_body_that_is_too_large_is_refused_before_anything_is_counted() -> None:
    found = decision("x", (b"Content-Length", b"1001"), aws=to(BEDROCK, key()), method="POST")
    assert isinstance(found, Deny)
    assert (found.code, found.answer.status) == ("too_large", 413)
    assert isinstance(
        decision("x", (b"Content-Length", b"1000"), aws=to(BEDROCK, key()), method="POST"), Forward
    )


# -- what nobody sees -----------------------------------------------------------------------------------


def test_the_secret_and_the_session_are_masked_and_the_id_of_the_key_is_not() -> None:
    mask = mask_for(key(token=TOKEN))
    said = f"{KEY_ID} {KEY} {TOKEN}".encode()
    assert mask.mask(said) == f"{KEY_ID} {'*' * len(KEY)} {'*' * len(TOKEN)}".encode()


def test_what_is_shown_has_a_placeholder_and_what_is_not_signed_is_never_sent() -> None:
    found = decision("x", aws=to(BEDROCK, key(token=TOKEN)))
    assert isinstance(found, Forward)
    assert found.shown.fields[-1] == (b"Authorization", b"AWS4-HMAC-SHA256 presign:conn")
    assert KEY not in repr(found.shown) + repr(found) + repr(found.sent)
    assert not isinstance(found.sent, Outgoing)


def test_keys_of_programs_are_filled_and_odd_ones_never_sent() -> None:
    late = [LateSecret((name,), 60) for name in ("id", "secret", "token")]
    credential = SigV4Credential(*late, "bedrock", "eu-west-1", max_body=10)
    values = {"id": KEY_ID, "secret": KEY, "token": TOKEN}
    filled = credential.filled(lambda one: Secret(values[one.argv[0]]))  # type: ignore[attr-defined]
    assert verify(leaves("x", credential=filled), {KEY_ID: KEY}, NOW)
    for odd in ("a\r\nX-Injected: 1", "", "ü", "a b"):
        bad = credential.filled(lambda one, odd=odd: Secret({**values, "token": odd}[one.argv[0]]))  # type: ignore[misc]
        found = decision("x", aws=to(BEDROCK, bad))
        assert isinstance(found, Forward)
        with pytest.raises(Exception, match="upstream"):
            found.leaving(NOW, EMPTY)
