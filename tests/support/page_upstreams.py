"""What stands in for the APIs and sites that pages name: real TLS under their real names, on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme

from support.answers import BEHAVIOURS, Answer
from support.llm import chat_completion
from support.recorder import Recorder
from support.seen import Headers, Seen

NAMES = ("api.openai.com", "api.github.com", "cdn.acme.com", "files.intranet.example.com")
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)
"""One pixel."""


def _json(value: Any, status: int = 200, headers: Headers = ()) -> Callable[[Seen], Answer]:
    kind = (("Content-Type", "application/json"), *headers)
    return lambda request: Answer(status, headers=kind, body=json.dumps(value).encode())


def _image(request: Seen) -> Answer:
    return Answer(headers=(("Content-Type", "image/png"),), body=PNG)


ANSWERS: dict[str, Callable[[Seen], Answer]] = {
    "models": _json({"object": "list", "data": [{"id": "gpt-5-mini", "object": "model"}]}),
    "completions": chat_completion,
    "user": _json({"login": "octocat"}),
    "issues": _json([{"number": 1, "title": "It works"}], headers=(("Access-Control-Allow-Origin", "*"),)),
    "releases": _json({"id": 1, "tag_name": "v1.0"}, 201),
    "hero.png": _image,
}
"""By the last segment of the path, as `support.answers.BEHAVIOURS`."""


@contextmanager
def standing_in(ca: trustme.CA) -> Iterator[Recorder]:
    """A recorder that answers under all the names."""
    recorder = Recorder(ca.issue_cert(*NAMES)).start()
    with pytest.MonkeyPatch.context() as patch:
        for segment, behaviour in ANSWERS.items():
            patch.setitem(BEHAVIOURS, segment, behaviour)
        yield recorder
    recorder.stop()
