"""Which request may be sent once more, because its upstream has closed a kept connection before answering."""

from __future__ import annotations

from typing import Final

from ...core.decision import Forward
from .request_head import RequestHead
from .upstream import UpstreamConnection

_SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
"""Methods that change nothing, however often they come (RFC 9110, 9.2.1)."""


def may_be_sent_again(head: RequestHead, forward: Forward, upstream: UpstreamConnection) -> bool:
    """Return whether a request may be sent again after its upstream has closed the connection.

    A server may close what it keeps at any time, also as the next request comes (RFC 9112, 9.3.1). The client
    cannot know that there was such a connection; the gateway does. A new connection that is closed was closed
    because of its request, and so may be one on which an answer has begun. Where uses are counted, a request
    that was admitted once must arrive once.
    """
    counted = forward.terms.max_uses is not None or forward.connection.max_uses is not None
    was_idle = upstream.was_kept and not upstream.has_answered
    return was_idle and head.method in _SAFE and head.length == 0 and not counted
