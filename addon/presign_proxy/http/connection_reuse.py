"""After which requests an upstream connection over HTTP/1.1 may carry another one.

Content in a GET has no meaning of its own (RFC 9110, 9.3.1), and some upstreams do not read it. What they
leave unread is the beginning of the next request to them: the next client's head, with its credential, would
become part of a request that somebody else wrote.
"""

from __future__ import annotations

from typing import Final

_BODY_IS_READ: Final = frozenset((b"POST", b"PUT", b"PATCH"))
"""Methods whose bodies servers expect (RFC 9110, 9.3.3 and 9.3.4; RFC 5789). Any other costs a connection."""


def reads_body(method: bytes) -> bool:
    """Whether an upstream can be trusted to read the body of a request with this method to its end."""
    return method in _BODY_IS_READ


def has_plain_answer(method: bytes) -> bool:
    """Whether an upstream can be trusted to end its answer to this method where HTTP says that it ends.

    Careless handlers answer HEAD as they answer GET. Such a body comes a moment after its head, and would be
    read as the answer to the next request: somebody else's, in the words of whoever wrote that body.
    """
    return method != b"HEAD"
