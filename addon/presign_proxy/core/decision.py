"""The outcomes of a decision (pass through, deny, forward), and the facts for the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from ..errors import Denied, Limited
from ..http.client_address import client_of
from ..http.message import Fields, Origin, Request
from ..http.networks import Address, Network
from ..limits.counter import Counter
from ..signing.secret import LateSecret, Secret
from ..signing.signed_policy import NO_TERMS, Terms
from .answers import Answer, Style, permission, refusal
from .connection import Connection
from .credentials import Fill, Leaving, Outgoing, Unsigned, filling
from .upgrade import Handshake
from .way_out import DIRECT, WayOut


@dataclass(slots=True)
class Facts:
    """The known facts of a presigned request. Filled during the decision, never with an unverified path."""

    request_id: str
    method: str = ""
    client: str = ""
    """The client's address if it is known, else the peer's."""
    scheme: str | None = None
    carrier: str | None = None
    known: Connection | None = None
    """The connection, or a stand-in if there is no such connection."""
    key: str | None = None
    signature: str | None = None
    id: str | None = None
    """The name that the signer gave the presign."""
    path: str | None = None
    verified: bool = False
    expires: int | None = None
    """Unix time, as it was signed, 0 for never; None where nothing was."""
    step: str = ""
    """The check that refused the claim; empty if all were passed, or none was made."""
    readable: Fields = ()
    """The fields that let the page that made the request read the gateway's answer (CORS)."""
    _address: Address | None = None
    _is_read: bool = False

    def again(self, request_id: str) -> Facts:
        """Return the facts of a request that differs only in its id."""
        return Facts(
            request_id,
            self.method,
            self.client,
            self.scheme,
            self.carrier,
            self.known,
            self.key,
            self.signature,
            self.id,
            self.path,
            self.verified,
            self.expires,
            self.step,
            self.readable,
            self._address,
            self._is_read,
        )

    def address(self, request: Request, trusted: Sequence[Network]) -> Address | None:
        """Return the client's address, as `client_of` does: worked out when it is first needed."""
        if not self._is_read:
            self._address, self._is_read = client_of(request, trusted), True
        return self._address

    @property
    def connection(self) -> str | None:
        """The id of the connection; None if there is no such connection."""
        return self.known.id or None if self.known else None


@dataclass(frozen=True, slots=True)
class PassThrough:
    """The outcome for a request without a presign: it is forwarded unchanged, without any credential.

    `second` is True if it goes to a host that a connection lists in `also`, while other requests without a
    presign are denied. Its bodies are streamed.
    """

    second: bool = False


@dataclass(frozen=True, slots=True)
class Deny:
    """The outcome for a refused request: a bad presign, or none where one is required.

    `detail` is for the audit log only. The answer names the `limit` that was reached, and has the `fields`.
    """

    code: str
    detail: str
    style: Style
    facts: Facts
    limit: str | None = None
    fields: Fields = ()
    status: int | None = None
    """Replaces the status of the code."""
    sentence: str | None = None
    """The sentence that the client reads; replaces that of the code."""

    @property
    def request_id(self) -> str:
        return self.facts.request_id

    @property
    def answer(self) -> Answer:
        """The answer to the client."""
        return refusal(
            self.code,
            self.request_id,
            self.style,
            self.status,
            limit=self.limit,
            more=(*self.fields, *self.facts.readable),
            sentence=self.sentence,
        )


@dataclass(frozen=True, slots=True)
class Preflight:
    """The outcome for a browser's question whether a page may send a request. The gateway answers it itself.

    It grants nothing: the request itself is decided on when it comes. It is not counted in any limit, and
    nothing is forwarded.
    """

    facts: Facts
    fields: Fields
    style: Style = "json"

    @property
    def request_id(self) -> str:
        return self.facts.request_id

    @property
    def answer(self) -> Answer:
        """The answer to the browser."""
        return permission(self.fields, self.request_id)


def denial(denied: Denied, style: Style, facts: Facts, sentence: str | None = None) -> Deny:
    """Convert an exception to the decision that it means.

    Args:
        sentence: replaces the sentence of the exception.
    """
    style = "bare" if denied.bare else style
    limit = denied.limit if isinstance(denied, Limited) else None
    return Deny(
        denied.code,
        denied.detail,
        style,
        facts,
        limit,
        denied.fields,
        status=denied.status,
        sentence=sentence or denied.sentence,
    )


class Judged(NamedTuple):
    """The inputs of a decision besides the request. With another registry or second, it may be different.

    `registry` is the mark of the registry; it does not keep the registry alive. `second` is Unix time.
    """

    registry: object
    second: int


_NEVER: Final = Judged(None, 0)


class Asked(NamedTuple):
    """The data for rewriting URLs in the answer: the request as received, and what was signed.

    `trusted` are the networks of proxies whose X-Forwarded-Proto is believed.
    """

    request: Request
    methods: tuple[str, ...]
    paths: tuple[str, ...]
    trusted: tuple[Network, ...]


class Forward(NamedTuple):
    """The outcome for a granted request: the whole outgoing request, computed.

    `shown` is for people and other addons, with a placeholder for the credential. `sent` goes to `origin` and
    nowhere else; it is None while its credential has not been fetched, and `Unsigned` if it is signed as it
    leaves. `plain` is the request without credential, from which both are made. `resolve` are the networks in
    which the origin's address may be, besides public ones; None if the origin comes from the registry and its
    address needs no check. `counters` are the counters that it must fit into before it is sent. `judged` says
    when it was granted, and under which registry.

    It is a tuple because every request makes one: a frozen dataclass takes ten times as long.
    """

    facts: Facts
    connection: Connection
    origin: Origin
    plain: Outgoing
    sent: Outgoing | Unsigned | None
    style: Style = "json"
    resolve: tuple[Network, ...] | None = None
    gateway_prefix: bytes | None = None
    counters: tuple[Counter, ...] = ()
    terms: Terms = NO_TERMS
    judged: Judged = _NEVER
    asked: Asked | None = None
    """None in scheme source."""
    proxied: str = ""
    """The scheme of the request if the gateway is the client's proxy; else empty."""
    hold: int | None = None
    """Most bytes of a body that is read whole before anything is sent; None if the body streams."""
    handshake: Handshake | None = None
    """What the client has asked for if it asks for a WebSocket."""
    way_out: WayOut = DIRECT
    """The proxies that upstreams are reached through."""

    def __repr__(self) -> str:
        """Name the grant only: the rest holds the credential, the presign, and what the client has sent."""
        return f"Forward({self.request_id!r}, connection={self.connection.id!r})"

    @property
    def request_id(self) -> str:
        return self.facts.request_id

    def again(self, request_id: str) -> Forward:
        """Return the same grant for a request that differs only in its id."""
        return Forward(self.facts.again(request_id), *self[1:])

    @property
    def waits(self) -> bool:
        """True if it must wait before it is sent: for an address, its limits or its credential."""
        return self.resolve is not None or bool(self.counters) or self.sent is None

    @property
    def shown(self) -> Outgoing:
        """The request with a placeholder for the credential. Made on demand: the lane never needs it."""
        return self.connection.injector.placeholder(self.plain, f"presign:{self.connection.id}")

    def leaving(self, now: int, body_hash: bytes | None) -> Outgoing:
        """Return what is sent, signed now if its credential signs. Raises Denied("upstream").

        Args:
            now: Unix time, whole seconds.
            body_hash: of a body that was held.
        """
        sent, asked = self.sent, self.asked
        if sent is None or (self.hold is not None and body_hash is None):
            raise LookupError("the credential of this grant was not fetched, or its body was not read")
        if isinstance(sent, Outgoing):
            return sent
        if asked is None:
            raise LookupError("nothing is known of the request that is signed")
        request = asked.request
        return sent.signer.sign(sent.outgoing, Leaving(request.method, self.origin, request, now, body_hash))

    def filled(self, fill: Fill) -> Forward:
        """Return the same grant, with each secret of its credential replaced by the result of `fill`."""
        injector = self.connection.injector.filled(fill)
        others = tuple([one.filled(fill) for one in self.connection.others])
        connection = replace(self.connection, injector=injector, others=others)
        return self._replace(connection=connection, sent=injector.inject(self.plain))

    def filled_as(self, other: Forward) -> Forward | None:
        """Return the same grant with the secrets that were fetched for another grant.

        None if the two grants do not get their secrets from the same programs and endpoints.
        """
        if self.sent is not None:
            return self
        mine, theirs = self.connection.secrets, other.connection.secrets
        asked = [late.key for late in self.connection.late]
        if asked != [late.key for late in other.connection.late] or len(mine) != len(theirs):
            return None
        found: dict[tuple[str, ...], Secret] = {
            late.key: secret
            for late, secret in zip(mine, theirs, strict=True)
            if isinstance(late, LateSecret)
        }
        return self.filled(filling(found))


Decision = PassThrough | Deny | Forward | Preflight

PASS: Final = PassThrough()
SECOND: Final = PassThrough(second=True)
