"""Refusals as gRPC has them, and which requests are calls."""

from urllib.parse import unquote

import pytest

from presign_proxy.core.answers import Answer, refusal
from presign_proxy.core.grpc_answer import GRPC_STATUS, end_of_call, is_grpc, trailers_only
from presign_proxy.errors import MESSAGE, STATUS


def kind(*values: bytes) -> bool:
    return is_grpc(tuple((b"content-type", value) for value in values))


@pytest.mark.parametrize(
    "value",
    [
        b"application/grpc",
        b"application/grpc+proto",
        b"application/grpc+json",
        b"application/grpc;x=y",
        b" Application/GRPC ",
    ],
)
def test_a_call_is_known_by_its_content_type(value: bytes) -> None:
    assert kind(value)
    assert is_grpc(((b"X", b"y"), (b"Content-Type", value)))


@pytest.mark.parametrize(
    "values",
    [
        (),
        (b"",),
        (b"application/grpc-web",),
        (b"application/grpc-web+proto",),
        (b"application/grpcx",),
        (b"application/json",),
        (b"x/application/grpc",),
        (b"application/grpc", b"application/grpc"),
        (b"application/json", b"application/grpc"),
    ],
)
def test_nothing_else_is_one(values: tuple[bytes, ...]) -> None:
    assert kind(*values) is False


OTHERS = {
    "malformed": 3,
    "unsigned": 16,
    "not_found": 16,
    "timeout": 4,
    "upgrade_required": 12,
    "too_large": 8,
    "limited": 8,
    "internal": 13,
    "upstream": 14,
    "unavailable": 14,
}
"""Statuses of google.rpc.Code, where it is not PERMISSION_DENIED."""


def test_each_code_has_its_status() -> None:
    assert dict.fromkeys(STATUS, 7) | OTHERS == GRPC_STATUS


@pytest.mark.parametrize("code", STATUS)
def test_a_refusal_becomes_one_head(code: str) -> None:
    answer = trailers_only(refusal(code, "req_1", more=((b"Retry-After", b"5"),)))
    fields = dict(answer.fields)
    assert (answer.status, answer.reason, answer.body) == (200, b"OK", b"")
    assert fields[b"content-type"] == b"application/grpc"
    assert int(fields[b"grpc-status"]) == GRPC_STATUS[code]
    assert fields[b"X-Presign-Error"] == code.encode()
    assert fields[b"X-Presign-Request-Id"] == b"req_1"
    assert fields[b"Retry-After"] == b"5"
    assert not {b"Content-Length", b"Content-Type", b"Vary"} & fields.keys()
    if code != "not_found":
        assert unquote(fields[b"grpc-message"].decode()) == MESSAGE[code]


def test_a_call_without_a_key_is_told_how_to_bring_one() -> None:
    fields = dict(trailers_only(refusal("not_found", "req_1")).fields)
    assert fields[b"grpc-message"].endswith(b" Send one as metadata: authorization: Bearer ps1_...")


def test_a_sentence_is_sent_as_grpc_quotes_it() -> None:
    fields = dict(trailers_only(refusal("expired", "req_1", sentence="a 5%\nü~\x1f\x7f b")).fields)
    assert fields[b"grpc-message"] == b"a 5%25%0A%C3%BC~%1F%7F b"


def test_an_answer_without_a_reason_stays_as_it_is() -> None:
    bare = refusal("expired", "req_1", "bare")
    assert trailers_only(bare) is bare
    other = Answer(407, b"Proxy Authentication Required", ((b"x", b"y"),), b"no")
    assert trailers_only(other) is other


@pytest.mark.parametrize("code", ["ended", "upstream"])
def test_a_call_that_is_broken_off_ends_with_a_status(code: str) -> None:
    fields = dict(end_of_call(code))
    assert int(fields[b"grpc-status"]) == GRPC_STATUS[code]
    assert unquote(fields[b"grpc-message"].decode()) == MESSAGE[code]
    assert fields[b"x-presign-error"] == code.encode()
