"""What becomes of a request: passed through, denied or forwarded; and what the audit log says of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from ..errors import Denied, Limited
from ..http.message import Fields, Origin, Request
from ..http.networks import Network
from ..limits.counter import Counter
from ..signing.secret import LateSecret, Secret
from ..signing.signed_policy import NO_TERMS, Terms
from .answers import Answer, Style, refusal
from .connection import Connection
from .credentials import Fill, Outgoing


@dataclass(slots=True)
class Facts:
    """What is known of a request of ours; filled as the decision goes on, never with an unverified path."""

    request_id: str
    method: str = ""
    client: str = ""
    """The address it comes from, as far as that is known; else the peer's."""
    scheme: str | None = None
    carrier: str | None = None
    known: Connection | None = None
    """The connection, or what stands in for one that there is not."""
    key: str | None = None
    signature: str | None = None
    id: str | None = None
    """What its signer named the presign."""
    path: str | None = None
    verified: bool = False
    expires: int | None = None
    """Unix time, as it was signed, 0 for never; None where nothing was."""

    def again(self, request_id: str) -> Facts:
        """Of a request that is the same in all but its id."""
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
        )

    @property
    def connection(self) -> str | None:
        """Its id; None where there is none."""
        return self.known.id or None if self.known else None


@dataclass(frozen=True, slots=True)
class PassThrough:
    """Not ours: forwarded as it is, without any credential.

    `second`: to a host that a connection lists in `also`, where all else that is not ours is denied. Its
    bodies are passed on as they come.
    """

    second: bool = False


@dataclass(frozen=True, slots=True)
class Deny:
    """Ours and refused, or unsigned where that is denied.

    `detail` is for the audit log only. The client is told which `limit` was reached, and gets the `fields`.
    """

    code: str
    detail: str
    style: Style
    facts: Facts
    limit: str | None = None
    fields: Fields = ()
    status: int | None = None
    """Another than the code's own."""
    told: str | None = None
    """The sentence that the client reads instead of the code's own."""

    @property
    def request_id(self) -> str:
        return self.facts.request_id

    @property
    def answer(self) -> Answer:
        """What the client gets."""
        return refusal(
            self.code,
            self.request_id,
            self.style,
            self.status,
            limit=self.limit,
            more=self.fields,
            told=self.told,
        )


def denial(denied: Denied, style: Style, facts: Facts) -> Deny:
    """The decision that an exception stands for."""
    style = "bare" if denied.bare else style
    limit = denied.limit if isinstance(denied, Limited) else None
    return Deny(
        denied.code, denied.detail, style, facts, limit, denied.fields, status=denied.status, told=denied.told
    )


class Judged(NamedTuple):
    """What a decision was a function of, besides the request. It holds for no other registry and second.

    `registry` is the mark of the registry, which is not kept alive by it; `second` is Unix time.
    """

    registry: object
    second: int


_NEVER: Final = Judged(None, 0)


class Asked(NamedTuple):
    """What URLs that are handed out are made of: the request as it came, with what was signed.

    `trusted` are the networks of proxies that say how the client came to them.
    """

    request: Request
    methods: tuple[str, ...]
    paths: tuple[str, ...]
    trusted: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Forward:
    """Ours and granted: the whole outgoing request, computed.

    `shown` is what people and other addons may see, with a placeholder for the credential; `sent` is what
    goes to `origin` and nowhere else, None while its credential has not been fetched; `plain` is what both
    were made of. `resolve` says in which networks, besides public ones, the origin's
    address may lie; None where the origin comes from the registry and needs no judging. `counters` are the
    counters it must fit into before it is sent. `judged` says when it was granted, and under which registry.
    """

    connection: Connection
    origin: Origin
    plain: Outgoing = field(repr=False)
    sent: Outgoing | None = field(repr=False)
    facts: Facts = field(repr=False)
    style: Style = "json"
    resolve: tuple[Network, ...] | None = None
    gateway_prefix: bytes | None = None
    counters: tuple[Counter, ...] = ()
    terms: Terms = NO_TERMS
    judged: Judged = _NEVER
    asked: Asked | None = field(default=None, repr=False)
    """None in scheme source."""
    proxied: str = ""
    """The scheme of the request where the gateway is the client's proxy; else empty."""

    @property
    def request_id(self) -> str:
        return self.facts.request_id

    def again(self, request_id: str) -> Forward:
        """The same grant for a request that is the same in all but its id."""
        return Forward(
            self.connection,
            self.origin,
            self.plain,
            self.sent,
            self.facts.again(request_id),
            self.style,
            self.resolve,
            self.gateway_prefix,
            self.counters,
            self.terms,
            self.judged,
            self.asked,
            self.proxied,
        )

    @property
    def waits(self) -> bool:
        """Whether something is still to be waited for: its address, its limits, its credential."""
        return self.resolve is not None or bool(self.counters) or self.sent is None

    @property
    def shown(self) -> Outgoing:
        """Made when somebody looks: on the express lane nobody does."""
        return self.connection.injector.placeholder(self.plain, f"presign:{self.connection.id}")

    def filled(self, fill: Fill) -> Forward:
        """The same grant with what `fill` makes of each secret of its credential."""
        injector = self.connection.injector.filled(fill)
        connection = replace(self.connection, injector=injector)
        return replace(self, connection=connection, sent=injector.inject(self.plain))

    def filled_as(self, other: Forward) -> Forward | None:
        """The same grant with the secrets that were fetched for another one; None where they are not those of
        the same programs.
        """
        if self.sent is not None:
            return self
        mine, theirs = self.connection.injector.secrets(), other.connection.injector.secrets()
        asked = [late.argv for late in self.connection.late]
        if asked != [late.argv for late in other.connection.late] or len(mine) != len(theirs):
            return None
        found: dict[tuple[str, ...], Secret] = {
            late.argv: secret
            for late, secret in zip(mine, theirs, strict=True)
            if isinstance(late, LateSecret)
        }
        return self.filled(lambda secret: found[secret.argv] if isinstance(secret, LateSecret) else secret)


Decision = PassThrough | Deny | Forward

PASS: Final = PassThrough()
SECOND: Final = PassThrough(second=True)
