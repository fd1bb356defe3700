"""The head of a response as its client gets it."""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from ...core.response_body import Body
from ...core.rewrite_response import Reply, rewrite
from ...errors import Denied
from ...http.response_head import UNFRAMED
from ...limits.slots import LimitHold
from . import request_head
from .granted_request import GrantedRequest

logger = logging.getLogger(__name__)

SUSPECT: Final = frozenset((400, 408, 411, 413, 414, 431, 501, 505))
"""After these a server and we may not agree where the request ended."""


class ClientHead(NamedTuple):
    """A head that was rewritten, and how its body goes on."""

    wire: bytes
    body: Body
    """What decodes and masks the body."""
    has_body: bool
    chunked: bool
    """True if the body is sent in chunks."""
    last: bool
    """True if the client's connection ends with the response."""


def client_head(granted: GrantedRequest, reply: Reply, limits: LimitHold, *, last: bool) -> ClientHead:
    """Rewrite the head of an upstream's response. Raises Denied, and then nothing of it may be passed on.

    Args:
        limits: what is left of them is told in the head.
        last: whether the client's connection ends with the response, however that is framed.
    """
    try:
        found = rewrite(reply, granted.forward, granted.mask, limits.fields)
        has_body = granted.head.method != b"HEAD" and reply.status not in UNFRAMED
        # Also if the upstream's answer ends with its connection: in chunks, the client sees a missing end.
        chunked = has_body and not found.sized
        wire = request_head.response(found.sent, chunked=chunked, close=last)
        return ClientHead(wire, Body(granted.mask, encoded=found.encoded), has_body, chunked, last)
    except Denied:
        raise
    except Exception as error:
        logger.error("presign: failed at a response (%s); it is refused", type(error).__name__)
        raise Denied("internal", "the gateway failed at the response") from None
