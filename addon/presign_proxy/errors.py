"""Error codes, their statuses, the sentences that clients read, and the exceptions that carry them.

The code is public (SPEC: answers). The detail is for the operator's audit log only. An answer is made from
the code, and after a good signature from what was signed, so that no other value of a request, no secret and
no exception text can reach a client.
"""

from __future__ import annotations

from typing import Final

STATUS: Final[dict[str, int]] = {
    "malformed": 400,
    "invalid": 403,
    "unsigned": 403,
    "expired": 403,
    "not_yet_valid": 403,
    "revoked": 403,
    "ended": 403,
    "method_not_allowed": 403,
    "path_not_allowed": 403,
    "host_mismatch": 403,
    "redirect_not_allowed": 403,
    "client_not_allowed": 403,
    "lifetime_too_long": 403,
    "no_expiry_not_allowed": 403,
    "not_found": 404,
    "timeout": 408,
    "not_confirmed": 428,
    "upgrade_required": 426,
    "too_large": 431,
    "limited": 429,
    "internal": 500,
    "upstream": 502,
    "unavailable": 503,
}
"""The HTTP status of each code."""

MESSAGE: Final[dict[str, str]] = {
    "malformed": "The presign of this request is incomplete, repeated, mixed or not well-formed.",
    "invalid": "The signature is not valid for this request.",
    "unsigned": "This gateway forwards presigned requests only.",
    "expired": "This presigned request has expired.",
    "not_yet_valid": "This presigned request is not valid yet.",
    "revoked": "This presigned request has been revoked.",
    "ended": "This presigned request was revoked while it was under way.",
    "method_not_allowed": "The method of this request is not among those that were signed and allowed.",
    "path_not_allowed": "The path of this request is not among those that were signed and allowed.",
    "host_mismatch": "The request is not addressed to the upstream of its connection.",
    "redirect_not_allowed": "The upstream redirects to another origin, to which the client would send this "
    "presign.",
    "client_not_allowed": "This presigned request may not be made from this address.",
    "lifetime_too_long": "The connection allows no presign that is valid for so long.",
    "no_expiry_not_allowed": "The connection allows no presign that never expires.",
    "not_found": "There is nothing here. Presigned URLs have the form /api/proxy/{connectionId}/{path}.",
    "timeout": "The rest of this request did not come in time.",
    "not_confirmed": "A browser is asked to continue before a use of this link is counted.",
    "upgrade_required": "This connection does not allow WebSocket: use HTTP without an upgrade.",
    "too_large": "The head or the body of this request is too large.",
    "limited": "A limit of this presigned request has been reached.",
    "internal": "The gateway failed to handle this request; it was not forwarded.",
    "upstream": "The upstream could not be reached or gave no usable answer.",
    "unavailable": "The gateway is not able to verify requests at the moment.",
}
"""The sentence that a client reads for each code. It is a constant: it repeats nothing of the request."""

UNCOUNTED: Final = "The gateway is not able to count this request against its limits at the moment."
"""The sentence of `unavailable` for a client with a good signature, if the store of the limits fails."""


class Denied(Exception):
    """A refusal: the request is addressed to us, and we do not forward it.

    Args:
        code: a key of `STATUS`.
        detail: the exact reason, for the audit log; never a secret, a signature or a query value.
        status: replaces the status of the code.
        sentence: a text for the client, which may hold what was signed; replaces that of `MESSAGE`.
        fields: extra header fields of the answer.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        status: int | None = None,
        *,
        sentence: str | None = None,
        fields: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.status = status
        self.sentence = sentence
        self.fields = fields
        self.bare = False
        """True if the answer must give no reason, because the request is of scheme source."""


class Malformed(Denied):
    """A presigned request whose grammar is wrong. Nothing in it was looked up or verified.

    Args:
        sentence: a constant text for the client, if that of `MESSAGE` would not help a holder.
    """

    def __init__(self, detail: str, sentence: str | None = None) -> None:
        super().__init__("malformed", detail, sentence=sentence)


class Limited(Denied):
    """A request that exceeds a limit.

    The answer names the limit and says when to try again. It may, because the client holds a good signature.

    Args:
        limit: the name of the limit.
        fields: extra header fields of the answer.
        sentence: how much is used, and when to come again.
    """

    def __init__(self, limit: str, fields: tuple[tuple[bytes, bytes], ...], sentence: str) -> None:
        super().__init__("limited", limit, sentence=sentence, fields=fields)
        self.limit = limit
