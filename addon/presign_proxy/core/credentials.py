"""Injectors: they put a credential on a request, on the copy that is sent and never on the flow."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

from ..http.field_names import header_key, param_key
from ..http.message import Fields, Origin, Request
from ..signing.secret import LateSecret, Secret

_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")
REAL_PASSWORD: Final = 8
"""Length from which a Basic password counts as the secret, so that the user name need not be masked."""


class Outgoing(NamedTuple):
    """The path, query and header fields of an outgoing request, without the fields for framing."""

    path: bytes
    query: bytes | None
    fields: Fields


class Leaving(NamedTuple):
    """What a signature covers besides the outgoing request, and when it is made."""

    method: bytes
    origin: Origin
    request: Request
    """As it came, with the client's own signature."""
    now: int
    """Unix time, whole seconds."""
    body_hash: bytes | None = None
    """SHA-256 of the body, in hexadecimal digits; None if the body streams."""


class LeavingSigner(Protocol):
    """A credential that signs requests."""

    def sign(self, outgoing: Outgoing, leaving: Leaving) -> Outgoing:
        """Return the request with its signature. Raises Denied("upstream")."""
        ...


class Unsigned(NamedTuple):
    """An outgoing request that is signed as it leaves, and never sent as it is."""

    outgoing: Outgoing
    signer: LeavingSigner


class CredentialSlots(NamedTuple):
    """The headers (folded names) and parameters (folded names) that an injector sets.

    Those of the client are removed.
    """

    headers: frozenset[bytes] = frozenset()
    params: frozenset[bytes] = frozenset()


Fill = Callable[[Secret], Secret]


def filling(found: Mapping[tuple[str, ...], Secret]) -> Fill:
    """Return what replaces each late secret by the one that was fetched for it. Args: found: by key."""
    return lambda secret: found[secret.key] if isinstance(secret, LateSecret) else secret


class Injector(Protocol):
    """An object that puts a credential on an outgoing request from which its slots were stripped."""

    @property
    def slots(self) -> CredentialSlots: ...

    def inject(self, outgoing: Outgoing) -> Outgoing | Unsigned:
        """Return the request with the credential on it, or what signs it as it leaves."""
        ...

    def placeholder(self, outgoing: Outgoing, label: str) -> Outgoing:
        """Return the request with `label` in place of the credential, to show to people."""
        ...

    def __hash__(self) -> int: ...

    def rendered(self) -> tuple[bytes, ...]:
        """Return each secret value as it is sent, to mask it in answers."""
        ...

    def secrets(self) -> tuple[Secret, ...]:
        """Return all of its secrets, fetched already or not."""
        ...

    def filled(self, fill: Fill) -> Injector:
        """Return the same injector, with each secret replaced by the result of `fill`."""
        ...


@dataclass(frozen=True, slots=True)
class NoCredential:
    """An injector that adds nothing, for sources that are fetched without a credential."""

    slots: CredentialSlots = CredentialSlots()

    def inject(self, outgoing: Outgoing) -> Outgoing:
        return outgoing

    def placeholder(self, outgoing: Outgoing, label: str) -> Outgoing:  # noqa: ARG002 - the protocol's
        return outgoing

    def rendered(self) -> tuple[bytes, ...]:
        return ()

    def secrets(self) -> tuple[Secret, ...]:
        return ()

    def filled(self, fill: Fill) -> NoCredential:  # noqa: ARG002 - the protocol's
        return self


@dataclass(frozen=True, slots=True)
class HeaderCredential:
    """A credential in one or more headers: (name as sent, text before the secret, the secret)."""

    headers: tuple[tuple[bytes, bytes, Secret], ...]
    slots: CredentialSlots = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", _slots_of(tuple([name for name, _, _ in self.headers])))

    def inject(self, outgoing: Outgoing) -> Outgoing:
        added = [(name, prefix + secret.reveal().encode()) for name, prefix, secret in self.headers]
        return Outgoing(outgoing.path, outgoing.query, (*outgoing.fields, *added))

    def placeholder(self, outgoing: Outgoing, label: str) -> Outgoing:
        added = [(name, prefix + label.encode()) for name, prefix, _ in self.headers]
        return Outgoing(outgoing.path, outgoing.query, (*outgoing.fields, *added))

    def rendered(self) -> tuple[bytes, ...]:
        return tuple(secret.reveal().encode() for secret in self.secrets())

    def secrets(self) -> tuple[Secret, ...]:
        return tuple(secret for _, _, secret in self.headers)

    def filled(self, fill: Fill) -> HeaderCredential:
        return replace(
            self, headers=tuple((name, words, fill(secret)) for name, words, secret in self.headers)
        )


@lru_cache(maxsize=256)
def _slots_of(names: tuple[bytes, ...]) -> CredentialSlots:
    return CredentialSlots(headers=frozenset(map(header_key, names)))


def bearer(token: Secret) -> HeaderCredential:
    """Return the credential `Authorization: Bearer {token}` (RFC 6750)."""
    return HeaderCredential(((b"Authorization", b"Bearer ", token),))


@dataclass(frozen=True, slots=True)
class BasicCredential:
    """The credential `Authorization: Basic …` (RFC 7617).

    Some providers take the key as user name, without a password.
    """

    username: Secret
    password: Secret

    @property
    def slots(self) -> CredentialSlots:
        return CredentialSlots(headers=frozenset({b"authorization"}))

    @property
    def key(self) -> Secret:
        """The password; the user name if there is no password, or only a dummy."""
        if isinstance(self.password, LateSecret):
            return self.password
        short = len(self.password.reveal()) < REAL_PASSWORD
        named = isinstance(self.username, LateSecret) or bool(self.username.reveal())
        return self.username if short and named else self.password

    def _encoded(self) -> bytes:
        return base64.b64encode(f"{self.username.reveal()}:{self.password.reveal()}".encode())

    def inject(self, outgoing: Outgoing) -> Outgoing:
        added = ((b"Authorization", b"Basic " + self._encoded()),)
        return outgoing._replace(fields=outgoing.fields + added)

    def placeholder(self, outgoing: Outgoing, label: str) -> Outgoing:
        added = ((b"Authorization", b"Basic " + label.encode()),)
        return outgoing._replace(fields=outgoing.fields + added)

    def rendered(self) -> tuple[bytes, ...]:
        # A user name beside a password is no secret, and often a common word. It is masked only if there is
        # no password, or only a dummy (Freshdesk takes any, as in `key:X`).
        password, username = self.password.reveal(), self.username.reveal()
        secrets = (password,) if len(password) >= REAL_PASSWORD else (username, password)
        return (self._encoded(), *(secret.encode() for secret in secrets if secret))

    def secrets(self) -> tuple[Secret, ...]:
        return (self.username, self.password)

    def filled(self, fill: Fill) -> BasicCredential:
        return BasicCredential(fill(self.username), fill(self.password))


@dataclass(frozen=True, slots=True)
class QueryCredential:
    """A credential in query parameters, appended after those of the client."""

    params: tuple[tuple[str, Secret], ...]

    @property
    def slots(self) -> CredentialSlots:
        return CredentialSlots(params=frozenset(param_key(name.encode()) for name, _ in self.params))

    def inject(self, outgoing: Outgoing) -> Outgoing:
        return self._with(outgoing, [(name, secret.reveal()) for name, secret in self.params])

    def placeholder(self, outgoing: Outgoing, label: str) -> Outgoing:
        return self._with(outgoing, [(name, label) for name, _ in self.params])

    def _with(self, outgoing: Outgoing, pairs: list[tuple[str, str]]) -> Outgoing:
        added = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs).encode()
        query = outgoing.query
        return outgoing._replace(query=added if query is None else query + b"&" + added)

    def rendered(self) -> tuple[bytes, ...]:
        return tuple(secret.reveal().encode() for secret in self.secrets())

    def secrets(self) -> tuple[Secret, ...]:
        return tuple(secret for _, secret in self.params)

    def filled(self, fill: Fill) -> QueryCredential:
        return QueryCredential(tuple((name, fill(secret)) for name, secret in self.params))


def slips(credential: Injector) -> Iterator[str]:
    """Yield likely mistakes in an API key: text that was copied with it or in its place.

    The sentences reveal nothing of the key.
    """
    held: list[tuple[str, str]] = []
    if isinstance(credential, HeaderCredential):
        held = [(words.decode(), secret.reveal()) for _, words, secret in credential.headers]
    elif isinstance(credential, QueryCredential):
        held = [("", secret.reveal()) for _, secret in credential.params]
    for words, key in held:
        if _VARIABLE.fullmatch(key):
            yield "its API key is a $variable, which nothing replaces: write {env: NAME}"
        if words.strip() and key.lower().startswith(words.lower()):
            yield f"its API key begins with {words.strip()}, which the gateway adds"
