"""boto3, unchanged, through a real gateway: it signs each request for itself, and none of that may arrive."""

import io
import os
import time
from collections.abc import Mapping
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from support.apis import BEARER, Credential, check_sent, trust_only, with_password
from support.asking import Grant
from support.aws import ITEM
from support.lab import REAL_SECRET
from support.llm import TEXT, WORDS
from support.proxy import Mitm
from support.recorder import Recorder
from support.seen import Seen

HEADER: Credential = ("x-api-key", REAL_SECRET)
OWN = {
    "AWS_ACCESS_KEY_ID": "sk-client-id",
    "AWS_SECRET_ACCESS_KEY": "sk-client-secret",
    "AWS_SESSION_TOKEN": "sk-client-session",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
DATA = b"data" * 100
MODEL: Any = {"modelId": "anthropic.claude-v1:0", "messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
MODEL_TARGET = "/model/anthropic.claude-v1%3A0/converse"
BEDROCK = Grant("conn_bedrock", "POST", "model/anthropic.*")


@pytest.fixture(autouse=True)
def account(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own keys, with which it signs."""
    prepare(monkeypatch, OWN)
    trust_only("REQUESTS_CA_BUNDLE", monkeypatch)


def prepare(monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str]) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)


def client(service: str, **options: Any) -> Any:
    return boto3.session.Session().client(service, **options)


def path_token(origin: str, service: str) -> str:
    """An endpoint. Without the last slash, boto3 would ask DynamoDB for no path at all."""
    return f"{origin}/p/{Grant(f'conn_{service}').token}/"


def endpoint(way: str, proxy: Mitm, service: str) -> dict[str, str]:
    """Where the service is, in the environment of a program that nobody changed."""
    variable = f"AWS_ENDPOINT_URL_{service.upper()}"
    if way == "direct":
        return {variable: path_token(proxy.url, service)}
    return {variable: path_token("https://presign.local", service), "HTTPS_PROXY": with_password(proxy)}


both_ways = pytest.mark.parametrize("way", ["direct", "through the proxy"])


def check_unsigned(request: Seen, credential: Credential = BEARER) -> None:
    """The credential arrived, and nothing of the client's own signature."""
    check_sent(request, credential)
    assert b"AWS4-HMAC" not in request.everything


# -- DynamoDB -------------------------------------------------------------------------------------------


@both_ways
def test_dynamodb_keeps_its_target_and_loses_its_signature(
    way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch, endpoint(way, proxy, "dynamodb"))
    assert client("dynamodb").get_item(TableName="t", Key={"id": {"S": "1"}})["Item"] == ITEM
    (request,) = api.wait_for(1)
    assert (request.method, request.target) == ("POST", "/")
    assert request.all("x-amz-target") == ["DynamoDB_20120810.GetItem"]
    check_unsigned(request, HEADER)


def test_dynamodb_by_an_argument(proxy: Mitm, api: Recorder) -> None:
    dynamodb = client("dynamodb", endpoint_url=path_token(proxy.url, "dynamodb"))
    dynamodb.put_item(TableName="t", Item=ITEM)
    (request,) = api.wait_for(1)
    assert request.all("x-amz-target") == ["DynamoDB_20120810.PutItem"]
    check_unsigned(request, HEADER)


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"])
def test_token_as_a_key_that_only_signs_is_refused(
    variable: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch, {"HTTPS_PROXY": with_password(proxy), variable: Grant("conn_dynamodb").token})
    with pytest.raises(ClientError) as info:
        client("dynamodb").get_item(TableName="t", Key={"id": {"S": "1"}})
    headers = info.value.response["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-presign-error"] == "malformed"
    assert not api.touched


# -- S3 -------------------------------------------------------------------------------------------------


@both_ways
def test_s3_lists_a_bucket(way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, endpoint(way, proxy, "s3"))
    listed = client("s3").list_objects_v2(Bucket="bucket", Prefix="a b/ü")
    assert [found["Key"] for found in listed["Contents"]] == ["sse"]
    (request,) = api.wait_for(1)
    assert request.target == "/bucket?list-type=2&prefix=a%20b%2F%C3%BC&encoding-type=url"
    check_unsigned(request)


@both_ways
def test_s3_streams_an_object(way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, endpoint(way, proxy, "s3"))
    body = client("s3").get_object(Bucket="bucket", Key="sse")["Body"]
    lines = [(line, time.monotonic()) for line in body.iter_lines(chunk_size=16) if line.startswith(b"data:")]
    assert len(lines) == 5
    assert lines[-1][1] - lines[0][1] > 0.5  # the upstream takes 0.8 s
    check_unsigned(*api.wait_for(1))


@pytest.mark.parametrize("kind", [bytes, io.BytesIO])
def test_s3_uploads_with_a_checksum(
    kind: Any, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch, endpoint("direct", proxy, "s3"))
    s3 = client("s3")
    began = time.monotonic()
    s3.put_object(Bucket="bucket", Key="upload", Body=kind(DATA))
    assert time.monotonic() - began < 0.9  # botocore waits a second for 100 Continue, then sends anyway
    (request,) = api.wait_for(1)
    assert (request.method, request.target, request.body) == ("PUT", "/bucket/upload", DATA)
    assert request.header("x-amz-checksum-crc32") and not request.all("expect")
    check_unsigned(request)


class Pipe(io.RawIOBase):
    """A source of unknown length, which cannot go back."""

    def __init__(self) -> None:
        self._left = io.BytesIO(DATA)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._left.read(size)


@pytest.mark.parametrize("kind", [lambda: DATA, Pipe], ids=["bytes", "pipe"])
def test_s3_uploads_in_chunks_with_a_trailer(
    kind: Any, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch, endpoint("through the proxy", proxy, "s3"))
    client("s3").put_object(Bucket="bucket", Key="upload", Body=kind())
    (request,) = api.wait_for(1)
    # S3's own coding of the body, which only S3 undoes: it arrives as it was sent, trailer and all.
    sent = request.body or b""
    assert sent.startswith(b"190\r\n" + DATA + b"\r\n0\r\nx-amz-checksum-crc32:")
    assert request.all("content-encoding") == ["aws-chunked"]
    assert request.all("x-amz-trailer") == ["x-amz-checksum-crc32"]
    check_unsigned(request)


# -- Bedrock --------------------------------------------------------------------------------------------


# It is the one service that takes a key as it is, so the one for which boto3 takes a token as its key.
BEDROCK_WAYS = {
    "a key and a proxy": lambda proxy: {
        "HTTPS_PROXY": with_password(proxy),
        "AWS_BEARER_TOKEN_BEDROCK": BEDROCK.token,
    },
    # With a key like that, boto3 insists on https.
    "a token in the endpoint": lambda proxy: {
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": f"https://127.0.0.1:{proxy.port}/p/{BEDROCK.token}/",
        "AWS_BEARER_TOKEN_BEDROCK": "sk-client-bearer",
    },
}


@pytest.mark.parametrize("way", BEDROCK_WAYS)
def test_bedrock_answers(way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, BEDROCK_WAYS[way](proxy))
    reply = client("bedrock-runtime").converse(**MODEL)
    assert reply["output"]["message"]["content"] == [{"text": TEXT}]
    (request,) = api.wait_for(1)
    assert request.target == MODEL_TARGET
    check_unsigned(request)


@pytest.mark.parametrize("way", BEDROCK_WAYS)
def test_bedrock_streams_word_by_word(
    way: str, proxy: Mitm, api: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch, BEDROCK_WAYS[way](proxy))
    words = [
        (event["contentBlockDelta"]["delta"]["text"], time.monotonic())
        for event in client("bedrock-runtime").converse_stream(**MODEL)["stream"]
        if "contentBlockDelta" in event
    ]
    assert [word for word, _ in words] == list(WORDS)
    assert words[-1][1] - words[0][1] > 0.1  # the upstream pauses for 0.5 s
    check_unsigned(*api.wait_for(1))
