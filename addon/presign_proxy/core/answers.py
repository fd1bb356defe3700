"""The gateway's own answers. One function turns a refusal into bytes.

They repeat nothing of a request, except what was signed, after a good signature (`refusal_message`).
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final, Literal, NamedTuple

from ..errors import MESSAGE, STATUS
from ..http.message import Fields
from . import refusal_page
from .cors import READABLE

Style = Literal["json", "bare", "page"]
_KEPT: Final = frozenset((b"Retry-After", *READABLE))
"""Fields that an answer without a reason keeps. They tell nothing about the refusal."""


class Answer(NamedTuple):
    """A response of the gateway, with its body. For HEAD the adapter sends the header without the body.

    `code` and `message` are those of a refusal that gives its reason; else they are empty.
    """

    status: int
    reason: bytes
    fields: Fields
    body: bytes
    code: str = ""
    message: str = ""


def refusal(
    code: str,
    request_id: str,
    style: Style = "json",
    status: int | None = None,
    *,
    limit: str | None = None,
    more: Fields = (),
    sentence: str | None = None,
) -> Answer:
    """Return the answer to a refused request.

    Args:
        status: replaces the status of the code: 504 for `upstream`, 413 for `too_large`.
        style: "json", as SDKs print it, or "bare", as scheme source wants it (Motioness: "403 with no
            detail"): without a reason, all 4xx but 413 and 429 as 403 Forbidden. "page" is the same as
            "json", for a person in a browser.
        limit: the name of the limit that was reached.
        more: further fields. In the bare style only those in `_KEPT` are kept.
        sentence: replaces the sentence of the code.
    """
    status = status or STATUS[code]
    if style == "bare":
        return _bare(status, more)
    message = sentence or MESSAGE[code]
    if style == "page":
        kind, own = b"text/html; charset=utf-8", refusal_page.fields_of(code)
        body = refusal_page.page(status, code, message, request_id, limit)
    else:
        kind, own = b"application/json", ()
        body = _json(code, message, request_id, limit)
    fields = (
        *_fields(kind, len(body)),
        *own,
        (b"Vary", b"Accept, Sec-Fetch-Mode"),
        (b"X-Presign-Error", code.encode()),
        (b"X-Presign-Request-Id", request_id.encode()),
        *more,
    )
    return Answer(status, _reason(status), fields, body, code, message)


def permission(fields: Fields, request_id: str) -> Answer:
    """Return the answer to a preflight (Fetch Standard, 4.8)."""
    own = ((b"Cache-Control", b"no-store"), (b"X-Presign-Request-Id", request_id.encode()))
    return Answer(204, _reason(204), fields + own, b"")


def _bare(status: int, more: Fields) -> Answer:
    if 400 <= status < 500 and status not in (413, 429):
        status = 403
    reason = _reason(status)
    kept = tuple([field for field in more if field[0] in _KEPT])
    fields = _fields(b"text/plain; charset=utf-8", len(reason)) + kept
    return Answer(status, reason, fields, reason)


def _json(code: str, message: str, request_id: str, limit: str | None) -> bytes:
    error = {"code": code, "type": code, "message": message, "request_id": request_id}
    if limit is not None:
        error["limit"] = limit
    # Outside of `error`, gh, octokit and npm read `message`, and Anthropic's SDK reads `type`.
    return json.dumps({"error": error, "message": message, "type": "error"}).encode()


def _reason(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode()


def _fields(content_type: bytes, length: int) -> Fields:
    return (
        (b"Content-Type", content_type),
        (b"Content-Length", str(length).encode()),
        (b"Cache-Control", b"no-store"),
        (b"Referrer-Policy", b"no-referrer"),
        (b"X-Content-Type-Options", b"nosniff"),
    )
