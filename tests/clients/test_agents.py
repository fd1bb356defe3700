"""Coding agents of npm that `presign run` starts: unchanged, with nothing set by hand."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from clients.test_run import ANTHROPIC, GEMINI
from support.answers import BEHAVIOURS, Answer
from support.apis import BEARER, Credential, check_sent
from support.llm import TEXT
from support.proxy import Mitm
from support.recorder import Recorder
from support.seen import Seen
from support.shell import ADDON, MODULE


def _events(events: list[dict[str, Any]]) -> Answer:
    text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    return Answer(headers=(("Content-Type", "text/event-stream"),), body=text.encode())


def response(_: Seen) -> Answer:
    """POST /v1/responses, as a stream."""
    message = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": TEXT, "annotations": []}],
    }
    whole = {"id": "resp_1", "object": "response", "status": "completed", "output": [message]}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    return _events(
        [
            {"type": "response.created", "response": whole | {"status": "in_progress", "output": []}},
            {"type": "response.output_item.done", "output_index": 0, "item": message},
            {"type": "response.completed", "response": whole | {"usage": usage}},
        ]
    )


def whole_content(_: Seen) -> Answer:
    """POST /v1beta/models/gemini:streamGenerateContent?alt=sse, with the end that the agent waits for."""
    candidate = {"index": 0, "content": {"role": "model", "parts": [{"text": TEXT}]}, "finishReason": "STOP"}
    text = f"data: {json.dumps({'candidates': [candidate]})}\n\n"
    return Answer(headers=(("Content-Type", "text/event-stream"),), body=text.encode())


def agent(proxy: Mitm, home: Path, connection: str, *program: str, via: str = "auto") -> str:
    """What an agent prints that finds nothing of its user, and no network but the gateway."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ADDON),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
    }
    argv = [
        *MODULE,
        "run",
        connection,
        "--config",
        str(proxy.config),
        "--base",
        proxy.url,
        "--ca",
        str(proxy.ca),
    ]
    done = subprocess.run(
        [*argv, "--via", via, "--", *program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=home,
        text=True,
        timeout=180,
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(api: Recorder, segment: str, credential: Credential) -> None:
    asked = [one for one in api.requests if one.target.partition("?")[0].endswith(segment)]
    assert asked
    for request in asked:
        check_sent(request, credential)


@pytest.mark.needs("claude")
@pytest.mark.parametrize("via", ["auto", "proxy"])
def test_claude_code_answers(via: str, proxy: Mitm, api: Recorder, tmp_path: Path) -> None:
    printed = agent(proxy, tmp_path, "conn_anthropic", "claude", "-p", "hello", via=via)
    assert printed.strip() == TEXT
    check(api, "/v1/messages", ANTHROPIC)


@pytest.mark.needs("codex")
def test_codex_answers(proxy: Mitm, api: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BEHAVIOURS, "responses", response)
    printed = agent(proxy, tmp_path, "conn_openai", "codex", "exec", "--skip-git-repo-check", "hello")
    assert printed.strip() == TEXT
    check(api, "/v1/responses", BEARER)


@pytest.mark.needs("gemini")
def test_gemini_cli_answers(
    proxy: Mitm, api: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BEHAVIOURS, "gemini:streamGenerateContent", whole_content)
    printed = agent(proxy, tmp_path, "conn_gemini", "gemini", "-m", "gemini", "-p", "hello")
    assert printed.strip() == TEXT
    check(api, "streamGenerateContent", GEMINI)
