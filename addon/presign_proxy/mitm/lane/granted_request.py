"""A request with its grant: what an exchange is about."""

from __future__ import annotations

from typing import NamedTuple

from ...core.decision import Forward
from ...core.masking import Mask, mask_for
from ...http.message import Request
from . import request_head
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
        """Return the head that goes to the upstream; None where its credential was not fetched yet."""
        sent = self.forward.sent
        return None if sent is None else request_head.outgoing(self.head, self.forward.origin, sent)


def granted_request(head: RequestHead, request: Request, forward: Forward) -> GrantedRequest:
    """Return a request with its grant, and the mask for the credential."""
    mask = Mask(()) if forward.sent is None else mask_for(forward.connection.injector)
    return GrantedRequest(head, request, forward, mask)
