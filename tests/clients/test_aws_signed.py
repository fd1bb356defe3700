"""boto3, unchanged, with keys of nobody's: the gateway signs again with the real ones, over what arrives."""

from __future__ import annotations

import io
import os
import time
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from support.asking import SECRET, Grant
from support.aws import ITEM
from support.gateways import MakeGateway
from support.llm import TEXT, WORDS
from support.proxy import Mitm
from support.recorder import Recorder
from support.seen import Seen
from support.sigv4 import PIECES, UNSIGNED, Sent, Verified, verify

KEY_ID, KEY = "AKIAREALREALREALREAL", "R3AL/wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLE"
HOSTS = (
    "bedrock-runtime.us-east-1.amazonaws.com",
    "dynamodb.us-east-1.amazonaws.com",
    "s3.us-east-1.amazonaws.com",
)
OWN = {
    "AWS_ACCESS_KEY_ID": "sk-client-id",
    "AWS_SECRET_ACCESS_KEY": "sk-client-secret",
    "AWS_REGION": "us-west-2",
    "AWS_DEFAULT_REGION": "us-west-2",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
DATA = b"data" * 5000
MODEL: Any = {"modelId": "anthropic.claude-v1:0", "messages": [{"role": "user", "content": [{"text": "Hi"}]}]}


@pytest.fixture(scope="module")
def signing(module_gateway: MakeGateway, api: Recorder) -> Mitm:
    keys = {"access_key_id": KEY_ID, "secret_access_key": KEY}
    found = {}
    for host in HOSTS:
        name = {"bedrock-runtime": "bedrock"}.get(host.partition(".")[0], host.partition(".")[0])
        entry = {"upstream": f"https://{host}", "auth": {"type": "aws_sigv4", **keys}}
        found[f"conn_{name}"] = entry | {"signing_keys": [{"secret": SECRET}]}
    dns = {host: [f"127.0.0.1#{api.tls_port}"] for host in HOSTS}
    return module_gateway({"connections": found}, dns=dns)


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch, signing: Mitm) -> None:
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in OWN.items():
        monkeypatch.setenv(name, value)
    for name in ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
        monkeypatch.setenv(name, str(signing.ca))


def client(service: str, proxy: Mitm, *, secure: bool = False, **options: Any) -> Any:
    """As somebody has it who was given a key token: a session token, at an endpoint of the gateway."""
    token = Grant(f"conn_{service.partition('-')[0]}").token
    url = f"https://127.0.0.1:{proxy.port}" if secure else proxy.url
    verifies = {"verify": False} if secure else {}
    return boto3.session.Session().client(
        service, endpoint_url=url, aws_session_token=token,
        aws_access_key_id="sk-client-id", aws_secret_access_key="sk-client-secret", **verifies, **options,
    )  # fmt: skip


def checked(seen: Seen) -> Verified:
    fields = [(name, value.strip()) for name, value in seen.headers]
    assert b"sk-client" not in seen.everything and b"ps1_" not in seen.everything
    return verify(Sent(seen.method, seen.target, fields, seen.body or b""), {KEY_ID: KEY}, time.time())


def test_dynamodb_is_signed_with_its_target(signing: Mitm, api: Recorder) -> None:
    assert client("dynamodb", signing).get_item(TableName="t", Key={"id": {"S": "1"}})["Item"] == ITEM
    (seen,) = api.wait_for(1)
    found = checked(seen)
    assert found[:2] == ("dynamodb", "us-east-1")
    assert {"x-amz-target", "content-type"} <= found.signed


def test_bedrock_answers_and_streams(signing: Mitm, api: Recorder) -> None:
    bedrock = client("bedrock-runtime", signing)
    assert bedrock.converse(**MODEL)["output"]["message"]["content"] == [{"text": TEXT}]
    words = [
        event["contentBlockDelta"]["delta"]["text"]
        for event in bedrock.converse_stream(**MODEL)["stream"]
        if "contentBlockDelta" in event
    ]
    assert words == list(WORDS)
    for seen in api.wait_for(2):
        assert checked(seen)[:2] == ("bedrock", "us-east-1")
        assert seen.target.startswith("/model/anthropic.claude-v1%3A0/converse")


@pytest.mark.parametrize("name", ["a b/ü+&=@:,;(1)~'!*.txt", "plain", "päth/.x"])
def test_objects_of_any_name_are_signed(name: str, signing: Mitm, api: Recorder) -> None:
    s3 = client("s3", signing)
    s3.put_object(Bucket="bucket", Key=f"{name}/upload", Body=DATA, Metadata={"a": "1  2", "b": "x"})
    s3.list_objects_v2(Bucket="bucket", Prefix=name)
    for seen in api.wait_for(2):
        assert checked(seen)[:2] == ("s3", "us-east-1")
    assert api.requests[0].body == DATA
    assert api.requests[0].all("x-amz-meta-a") == ["1  2"]


class Pipe(io.RawIOBase):
    def __init__(self) -> None:
        self._left = io.BytesIO(DATA)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._left.read(size)


@pytest.mark.parametrize("kind", [lambda: DATA, Pipe], ids=["bytes", "pipe"])
def test_uploads_over_tls_keep_their_chunks_and_checksum(kind: Any, signing: Mitm, api: Recorder) -> None:
    client("s3", signing, secure=True).put_object(Bucket="bucket", Key="upload", Body=kind())
    (seen,) = api.wait_for(1)
    assert checked(seen).payload == PIECES
    assert (seen.body or b"").rstrip().rpartition(b"\r\n")[2].startswith(b"x-amz-checksum-crc32:")


def test_downloads_and_heads_are_signed_over_tls(signing: Mitm, api: Recorder) -> None:
    s3 = client("s3", signing, secure=True)
    s3.get_object(Bucket="bucket", Key="sse")["Body"].read()
    s3.head_object(Bucket="bucket", Key="x")
    assert {checked(seen).payload for seen in api.wait_for(2)} == {UNSIGNED}


def test_a_copy_names_another_object_and_is_refused(signing: Mitm, api: Recorder) -> None:
    with pytest.raises(ClientError) as info:
        client("s3", signing).copy_object(Bucket="bucket", Key="x", CopySource="other/secret")
    assert info.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert not api.touched
