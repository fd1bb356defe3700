"""Refusals as gRPC has them: its clients show `grpc-status` and `grpc-message`, and no body.

The answer is of the form Trailers-Only (gRPC over HTTP/2: Responses): one head with status 200 that ends the
stream. With any other status some clients show that status, and drop the message.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from ..errors import MESSAGE
from ..http.message import Fields
from .answers import Answer

INVALID_ARGUMENT, DEADLINE_EXCEEDED, PERMISSION_DENIED, RESOURCE_EXHAUSTED = 3, 4, 7, 8
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 12, 13, 14, 16

GRPC_STATUS: Final[dict[str, int]] = {
    "malformed": INVALID_ARGUMENT,
    "invalid": PERMISSION_DENIED,
    "unsigned": UNAUTHENTICATED,
    "expired": PERMISSION_DENIED,
    "not_yet_valid": PERMISSION_DENIED,
    "revoked": PERMISSION_DENIED,
    "ended": PERMISSION_DENIED,
    "method_not_allowed": PERMISSION_DENIED,
    "path_not_allowed": PERMISSION_DENIED,
    "host_mismatch": PERMISSION_DENIED,
    "redirect_not_allowed": PERMISSION_DENIED,
    "client_not_allowed": PERMISSION_DENIED,
    "lifetime_too_long": PERMISSION_DENIED,
    "no_expiry_not_allowed": PERMISSION_DENIED,
    "not_found": UNAUTHENTICATED,
    "timeout": DEADLINE_EXCEEDED,
    "not_confirmed": PERMISSION_DENIED,
    "upgrade_required": UNIMPLEMENTED,
    "too_large": RESOURCE_EXHAUSTED,
    "limited": RESOURCE_EXHAUSTED,
    "internal": INTERNAL,
    "upstream": UNAVAILABLE,
    "unavailable": UNAVAILABLE,
}
"""The status of a call for each code of `errors.STATUS`. Clients try again after UNAVAILABLE, if at all."""
_NO_KEY: Final = "This call has no presigned key. Send one as metadata: authorization: Bearer ps1_..."
"""For a call to the gateway itself, which no path makes a presigned one."""
_KIND: Final = b"application/grpc"
_OF_BODY: Final = frozenset((b"content-type", b"content-length", b"vary"))
_PRINTABLE: Final = bytes(octet for octet in range(0x20, 0x7F) if octet != 0x25).decode()


def is_grpc(fields: Fields) -> bool:
    """Return whether a request is a call of gRPC: `application/grpc`, also with `+proto` or a parameter.

    `application/grpc-web` is none: its clients read HTTP statuses and bodies.
    """
    kinds = [value.strip().lower() for name, value in fields if name.lower() == b"content-type"]
    if len(kinds) != 1 or not kinds[0].startswith(_KIND):
        return False
    return kinds[0][len(_KIND) : len(_KIND) + 1] in (b"", b"+", b";")


def trailers_only(answer: Answer) -> Answer:
    """Return a refusal in the form of gRPC. Another answer, such as another addon's, stays as it is."""
    status = GRPC_STATUS.get(answer.code)
    if status is None:
        return answer
    message = _NO_KEY if answer.code == "not_found" else answer.message
    kept = tuple([field for field in answer.fields if field[0].lower() not in _OF_BODY])
    fields = ((b"content-type", _KIND), *_status(status, message), *kept)
    return answer._replace(status=200, reason=b"OK", fields=fields, body=b"")


def end_of_call(code: str) -> Fields:
    """Return the trailers of a call whose answer has begun, and is broken off here."""
    return (*_status(GRPC_STATUS[code], MESSAGE[code]), (b"x-presign-error", code.encode()))


def _status(status: int, message: str) -> Fields:
    shown = quote(message, safe=_PRINTABLE).encode()
    return ((b"grpc-status", b"%d" % status), (b"grpc-message", shown))
