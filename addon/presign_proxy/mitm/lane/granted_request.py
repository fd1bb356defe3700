"""A request with its grant: what an exchange is about."""

from __future__ import annotations

import time
from typing import NamedTuple

from ...core.credentials import Outgoing
from ...core.decision import Forward
from ...core.masking import Mask, mask_for
from ...gateway.held_bodies import EMPTY
from ...http.message import Request, with_length
from . import request_head
from .held_body import HeldUpload
from .request_body import Body
from .request_head import RequestHead


class GrantedRequest(NamedTuple):
    """A request as it came and its grant. It never changes: another grant makes another one of it."""

    head: RequestHead
    request: Request
    """As the core decided on it."""
    forward: Forward
    mask: Mask
    """Hides the credential in the response. It is empty where that was not fetched yet."""

    def under(self, forward: Forward) -> GrantedRequest:
        """Return the same request under another grant."""
        return granted_request(self.head, self.request, forward)

    def outgoing(self) -> bytes | None:
        """Return the head that goes to the upstream; None where its credential was not fetched yet.

        None also where it is signed as it leaves.
        """
        sent = self.forward.sent
        if not isinstance(sent, Outgoing) or self.forward.hold is not None:
            return None
        return request_head.outgoing(self.head, self.forward.origin, sent)

    def leaving(self, held: Body) -> bytes:
        """Return the head that goes to the upstream now, and the body behind it if that was held.

        Raises Denied; LookupError where the credential was not fetched, or has left already.
        """
        forward, head = self.forward, self.head
        if isinstance(forward.sent, Outgoing):
            raise LookupError("the head of this grant was written once, and has left")
        if not isinstance(held, HeldUpload):
            sent = forward.leaving(int(time.time()), EMPTY if forward.hold is not None else None)
            return request_head.outgoing(head, forward.origin, sent)
        body = held.kept.whole()
        sent = forward.leaving(int(time.time()), held.kept.digest())
        sent = sent._replace(fields=with_length(sent.fields, len(body)))
        return request_head.outgoing(head._replace(length=len(body)), forward.origin, sent) + body


def granted_request(head: RequestHead, request: Request, forward: Forward) -> GrantedRequest:
    """Return a request with its grant, and the mask for the credential."""
    connection = forward.connection
    mask = Mask(()) if forward.sent is None else mask_for(connection.injector, connection.others)
    return GrantedRequest(head, request, forward, mask)
