"""Rules for reusing an upstream connection over HTTP/1.1: after which requests it may carry another one.

Content in a GET has no defined meaning (RFC 9110, 9.3.1), and some upstreams do not read it. An upstream then
takes the unread content for the beginning of the next request. The head of the next client, with its
credential, would become part of a request that an attacker wrote.
"""

from __future__ import annotations

from typing import Final

_BODY_IS_READ: Final = frozenset((b"POST", b"PUT", b"PATCH"))
"""Methods whose bodies servers expect (RFC 9110, 9.3.3 and 9.3.4; RFC 5789).

After a body with any other method the connection is closed.
"""


def reads_body(method: bytes) -> bool:
    """Return whether upstreams reliably read the whole body of a request with this method."""
    return method in _BODY_IS_READ


def has_plain_answer(method: bytes) -> bool:
    """Return whether upstreams reliably end the answer to this method where HTTP says that it ends.

    Careless handlers answer HEAD with a body, as they answer GET. The body arrives after its head and would
    be read as the answer to the next request, which another client sent. The author of the body would then
    choose that answer.
    """
    return method != b"HEAD"
