"""Answers of the recording upstream in the shapes that boto3 insists on: DynamoDB, S3, Bedrock."""

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from support.answers import Answer
from support.llm import PAUSE, TEXT, WORDS
from support.seen import Seen

ITEM = {"id": {"S": "1"}, "name": {"S": "hero"}}


def dynamodb(request: Seen) -> Answer:
    """POST /, whose operation is in X-Amz-Target."""
    operation = (request.header("x-amz-target") or "").partition(".")[2]
    body = {"GetItem": {"Item": ITEM}, "PutItem": {}}.get(operation)
    kind = (("Content-Type", "application/x-amz-json-1.0"),)
    return Answer(400, kind) if body is None else Answer(200, kind, json.dumps(body).encode())


def bucket(request: Seen) -> Answer:
    """GET /bucket?list-type=2"""
    contents = "<Contents><Key>sse</Key><Size>1</Size></Contents>"
    text = f'<?xml version="1.0"?><ListBucketResult><Name>bucket</Name>{contents}</ListBucketResult>'
    return Answer(headers=(("Content-Type", "application/xml"),), body=text.encode())


def stored(request: Seen) -> Answer:
    """PUT /bucket/upload"""
    return Answer(headers=(("ETag", '"1"'),), body=b"")


def converse(request: Seen) -> Answer:
    """POST /model/{model}/converse"""
    reply: dict[str, Any] = {"output": {"message": {"role": "assistant", "content": [{"text": TEXT}]}}}
    reply |= {"stopReason": "end_turn", "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}}
    return Answer(body=json.dumps(reply | {"metrics": {"latencyMs": 1}}).encode())


def converse_stream(request: Seen) -> Answer:
    """POST /model/{model}/converse-stream"""

    async def stream() -> AsyncIterator[bytes]:
        yield event("messageStart", {"role": "assistant"})
        for number, word in enumerate(WORDS):
            if number:
                await asyncio.sleep(PAUSE)
            yield event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}})
        yield event("messageStop", {"stopReason": "end_turn"})

    return Answer(headers=(("Content-Type", "application/vnd.amazon.eventstream"),), stream=stream)


def event(kind: str, payload: dict[str, Any]) -> bytes:
    """One message of an event stream: two lengths, their CRC, headers, payload, CRC of all before it."""
    named = {":message-type": "event", ":event-type": kind, ":content-type": "application/json"}
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in named.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))


AWS: dict[str, Callable[[Seen], Answer]] = {
    "": dynamodb,
    "bucket": bucket,
    "upload": stored,
    "converse": converse,
    "converse-stream": converse_stream,
}
"""By the last segment of the path, as `support.answers.BEHAVIOURS`."""
