"""The trailers of an upstream's answer on their way to the client: fields are removed and masked.

Trailers are known once the body was sent, over HTTP/2 only. gRPC has its status in them.
"""

from __future__ import annotations

from typing import Final

from ..errors import Denied
from ..http.field_names import header_key
from ..http.message import Fields
from .links import LINKS
from .masked_fields import masked_fields
from .masking import Mask
from .rewrite_response import NOT_IN_TRAILERS, checked_head

MAX_TRAILERS: Final = 1000
"""Most fields, beside the bounds of HTTP/2 on their bytes."""
_OF_HEADS: Final = frozenset(
    b"age cache-control connection content-encoding content-length content-location content-range "
    b"content-security-policy content-type cross-origin-embedder-policy cross-origin-opener-policy "
    b"cross-origin-resource-policy date expires host http2-settings location permissions-policy pragma range "
    b"referrer-policy refresh retry-after sourcemap status transfer-encoding vary via warning "
    b"x-frame-options".split()
)
"""Fields that frame or control an answer, which nothing may add behind its body (RFC 9110, 6.5.1)."""
_GONE: Final = _OF_HEADS | NOT_IN_TRAILERS | LINKS
_FAMILIES: Final = (b"access-control-", b"x-presign", b"sec-", b"proxy-")


def cleaned(fields: Fields, named: frozenset[bytes], mask: Mask) -> Fields:
    """Return the trailers for the client. Raises Denied("upstream") if they cannot be read in one way.

    A name is compared as upstreams and clients may fold it. What is removed from a head, or rewritten in one,
    is removed here: a client that adds trailers to the head would see what was taken out of that.

    Args:
        named: the headers whose URLs are led through the gateway, of this connection.
    """
    if len(fields) > MAX_TRAILERS:
        raise Denied("upstream", "the upstream sends too many trailers")
    names, text = checked_head(b"", fields)
    if b"" in names:
        raise Denied("upstream", "the upstream sends a trailer without a name")
    gone = _GONE | named
    kept = [
        field
        for name, field in zip(names, fields, strict=True)
        if name not in gone
        and (key := header_key(name)) not in gone
        and not key.startswith(_FAMILIES)
        and not key.endswith(b"cdn-cache-control")
    ]
    return tuple(masked_fields(kept, text, mask))
