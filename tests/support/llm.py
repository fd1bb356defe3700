"""Answers of the recording upstream in the shape that the SDKs of OpenAI, Anthropic and Google insist on."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from support.answers import Answer
from support.seen import Seen

WORDS = ("Hel", "lo")
TEXT = "".join(WORDS)
PAUSE = 0.5
"""Seconds between two events of a stream."""


def chat_completion(request: Seen) -> Answer:
    """POST /v1/chat/completions"""
    common = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4"}
    if not _wants_stream(request):
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}
        return _json(common | {"object": "chat.completion", "choices": [choice]})
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": word} for word in WORDS]
    chunks = [
        common | {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}
        for delta in deltas
    ]
    return _events([f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"])


def message(request: Seen) -> Answer:
    """POST /v1/messages"""
    usage = {"input_tokens": 1, "output_tokens": 1}
    whole: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude"}
    whole |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    if not _wants_stream(request):
        return _json(whole | {"content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn"})
    deltas = [{"type": "text_delta", "text": word} for word in WORDS]
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": whole},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": usage},
        {"type": "message_stop"},
    ]
    return _events([f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events])


def content(request: Seen) -> Answer:
    """POST /v1/models/{model}:generateContent"""
    return _json(_candidate(TEXT))


def content_stream(request: Seen) -> Answer:
    """POST /v1/models/{model}:streamGenerateContent?alt=sse"""
    return _events([f"data: {json.dumps(_candidate(word))}\n\n" for word in WORDS])


LLM: dict[str, Callable[[Seen], Answer]] = {
    "completions": chat_completion,
    "messages": message,
    "gemini:generateContent": content,
    "gemini:streamGenerateContent": content_stream,
}
"""By the last segment of the path, as `support.answers.BEHAVIOURS`."""


def _wants_stream(request: Seen) -> bool:
    return bool(json.loads(request.body or b"{}").get("stream"))


def _candidate(text: str) -> dict[str, Any]:
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}]}


def _json(value: dict[str, Any]) -> Answer:
    return Answer(body=json.dumps(value).encode())


def _events(events: list[str]) -> Answer:
    async def stream() -> AsyncIterator[bytes]:
        for number, event in enumerate(events):
            if number:
                await asyncio.sleep(PAUSE)
            yield event.encode()

    return Answer(headers=(("Content-Type", "text/event-stream"),), stream=stream)
