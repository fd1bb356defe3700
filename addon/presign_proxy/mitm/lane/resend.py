"""Which request may be sent once more, because its upstream has closed a kept connection before answering."""

from __future__ import annotations

from typing import Final

from ...core.decision import Forward
from .request_head import RequestHead
from .upstream import UpstreamConnection

_SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
"""Methods that change nothing, however often they come (RFC 9110, 9.2.1)."""


def may_be_sent_again(head: RequestHead, forward: Forward, upstream: UpstreamConnection) -> bool:
    """RFC 9112, 9.3.1: a server may close what it keeps at any time, also as the next request comes. The
    client cannot know that there was such a connection; the gateway does.

    A new connection that is closed was closed for its request; so may one be on which an answer has begun.
    Where uses are counted, what was admitted once arrives once.
    """
    counted = forward.terms.max_uses is not None or forward.connection.max_uses is not None
    return (
        upstream.was_kept and not upstream.heard and head.method in _SAFE and head.length == 0 and not counted
    )
