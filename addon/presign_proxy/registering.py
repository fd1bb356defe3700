"""From validated entries to connections: secrets resolved, URLs parsed, patterns compiled."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from .ceiling import Ceiling
from .connections import Conduct, Connection, SourceRules, Upstream
from .document import Document
from .errors import Denied
from .hosts import is_loopback
from .injectors import (
    BasicCredential,
    HeaderCredential,
    Injector,
    NoCredential,
    QueryCredential,
    bearer,
)
from .keys import KeyRing
from .limits.rules import Limit
from .message import Origin
from .names import header_key
from .networks import Network
from .paths import canonical_path
from .problems import Location, Problem
from .rewrite import is_credential
from .schema import (
    Auth,
    BasicAuth,
    BearerAuth,
    CommonConnection,
    ConnectionEntry,
    HeaderAuth,
    PresignConnection,
    SourceConnection,
)
from .secret import LateSecret, Secret
from .secrets import SecretError, resolve
from .signing_parts import ceiling, key_ring
from .source_url import SourceUrl, parse_url
from .values import SecretSource

_NO_URL: Final = "is not an http(s) URL without user name, query and fragment"
_UNSET: Final = Secret("")


class Registrar:
    """Turns the entries of one file into connections, collecting every problem and warning on the way."""

    def __init__(
        self, document: Document, base: Path, environ: Mapping[str, str], *, offline: bool = False
    ) -> None:
        """
        Args:
            offline: leave credentials where they are: for looking at requests, not for forwarding them.
        """
        self._offline = offline
        self._document = document
        self._base = base
        self._environ = environ
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.contained = True
        """Whether nothing outside of the file was read for its connections."""

    def connections(self, entries: Mapping[str, ConnectionEntry]) -> dict[str, Connection]:
        """All connections by id; only to be used where no problem was found."""
        return {
            name: self._presign(name, entry)
            if isinstance(entry, PresignConnection)
            else self._source(name, entry)
            for name, entry in entries.items()
        }

    def _wrong(self, at: Location, message: str) -> None:
        self.problems.append(self._document.problem(at, message))

    def _presign(self, name: str, entry: PresignConnection) -> Connection:
        at: Location = ("connections", name)
        upstream = self._upstream((*at, "upstream"), entry)
        injector = self._injector((*at, "auth"), entry.auth)
        keys = self._keys((*at, "signing_keys"), entry)
        self._check_defaults((*at, "default_headers"), entry.default_headers, injector.slots.headers)
        self._check_different(at, keys, injector)
        if not entry.signing_keys:
            self._wrong((*at, "signing_keys"), "is required: without a signing key nothing can be signed")
        return Connection(
            id=name,
            upstream=upstream,
            injector=injector,
            late=_late(injector),
            keys=keys,
            ceiling=self._ceiling(at, entry),
            conduct=self._conduct(entry, entry.default_headers),
            enabled=entry.enabled,
            limits=self._limits((*at, "limits"), entry),
            max_uses=entry.max_uses,
        )

    def _source(self, name: str, entry: SourceConnection) -> Connection:
        at: Location = ("connections", name)
        signed = entry.mode == "signed"
        origins = tuple(
            url.origin
            for index, text in enumerate(entry.allowed_origins)
            if (url := self._origin((*at, "allowed_origins", index), text)) is not None
        )
        if signed and not entry.signing_keys:
            self._wrong((*at, "signing_keys"), "is required in signed mode")
        if not signed and (entry.auth or entry.any_public_origin or entry.intercept):
            self._wrong((*at, "mode"), "auth, any_public_origin and intercept need mode: signed")
        if not signed and not origins:
            self._wrong((*at, "allowed_origins"), "is required in allowlist mode")
        if entry.intercept and not origins:
            self._wrong((*at, "intercept"), "needs allowed_origins")
        if entry.auth:
            for index, origin in enumerate(origins):
                self._check_secure((*at, "allowed_origins", index), origin, entry)
        injector = self._injector((*at, "auth"), entry.auth) if entry.auth else NoCredential()
        return Connection(
            id=name,
            source=SourceRules(
                signed=signed,
                origins=origins,
                any_public=entry.any_public_origin,
                formats=frozenset(entry.formats),
                ports=frozenset(entry.ports),
                networks=self._networks((*at, "allow_networks"), entry.allow_networks),
                intercept=entry.intercept,
            ),
            injector=injector,
            late=_late(injector),
            keys=self._keys((*at, "signing_keys"), entry),
            conduct=self._conduct(entry, {}),
            enabled=entry.enabled,
            limits=self._limits((*at, "limits"), entry),
            max_uses=entry.max_uses,
        )

    def _check_defaults(self, at: Location, headers: Mapping[str, str], slots: frozenset[bytes]) -> None:
        seen: set[bytes] = set()
        for name in headers:
            key = header_key(name.encode())
            if key in slots or is_credential(key):
                self._wrong((*at, name), "carries a credential: that is what auth is for")
            elif key in seen:
                self._wrong((*at, name), "is given twice, in two spellings")
            seen.add(key)

    def _conduct(self, entry: CommonConnection, headers: Mapping[str, str]) -> Conduct:
        return _conduct(
            entry.cookies == "pass",
            entry.redirects == "pass",
            entry.cache == "pass",
            entry.on_client_credentials == "reject",
            tuple([(name.encode(), value.encode()) for name, value in headers.items()]),
            entry.timeouts.connect,
            entry.timeouts.response,
            entry.pool in (True, "on"),
        )

    def _ceiling(self, at: Location, entry: PresignConnection) -> Ceiling:
        return ceiling(entry, lambda message: self._wrong((*at, "allow", "methods"), message))

    def _limits(self, at: Location, entry: CommonConnection) -> tuple[Limit, ...]:
        limits = tuple([one.limit() for one in entry.limits])
        names = [limit.name for limit in limits]
        for index, name in enumerate(names):
            if name in names[:index]:
                self._wrong((*at, index), f"another limit counts the same ({name})")
        return _limits(limits)

    def _url(self, at: Location, text: str) -> SourceUrl | None:
        try:
            url = parse_url(text)
        except Denied:
            url = None
        if url is None or b"?" in url.target:
            self._wrong(at, _NO_URL)
            return None
        return url

    def _origin(self, at: Location, text: str) -> SourceUrl | None:
        url = self._url(at, text)
        if url is not None and url.target != b"/":
            self._wrong(at, "is not an origin: leave the path out")
        return url

    def _upstream(self, at: Location, entry: PresignConnection) -> Upstream | None:
        upstream, problem = _parse_upstream(entry.upstream)
        if problem:
            self._wrong(at, problem)
        if upstream is not None:
            self._check_secure(at, upstream.origin, entry)
        return upstream

    def _check_different(self, at: Location, keys: KeyRing, injector: Injector) -> None:
        """Whoever signs with the credential itself holds it, and needs no gateway."""
        known = {one.reveal() for one in injector.secrets() if not isinstance(one, LateSecret)}
        for index, key in enumerate(keys.keys):
            if key.secret.reveal() in known - {""}:
                self._wrong((*at, "signing_keys", index, "secret"), "is the credential itself: make another")

    def _check_secure(self, at: Location, origin: Origin, entry: CommonConnection) -> None:
        if origin.scheme != "https" and not is_loopback(origin.host) and not entry.insecure_upstream:
            self._wrong(
                at, "is not https: the credential would be readable on the way (insecure_upstream: true)"
            )

    def _networks(self, at: Location, texts: list[str]) -> tuple[Network, ...]:
        found: list[Network] = []
        for index, text in enumerate(texts):
            try:
                found.append(ipaddress.ip_network(text))
            except ValueError:
                self._wrong((*at, index), "is not a network, as in 10.0.0.0/8")
        return tuple(found)

    def secret(self, at: Location, source: SecretSource) -> Secret:
        """What a secret value of the file is; an empty one, and a problem, where it cannot be had."""
        self.contained = self.contained and source.literal is not None
        try:
            return resolve(source, self._base, self._environ)
        except SecretError as error:
            self._wrong(at, str(error))
            return _UNSET

    def _credential(self, at: Location, source: SecretSource) -> Secret:
        """A secret that is only needed once a request was granted, and so may be fetched then."""
        if self._offline or source.exec is not None:
            return LateSecret(source.exec or (), source.ttl)
        return self.secret(at, source)

    def _header_credential(self, at: Location, source: SecretSource) -> Secret:
        secret = self._credential(at, source)
        if not isinstance(secret, LateSecret):
            try:
                secret.reveal().encode("latin-1")
            except UnicodeEncodeError:
                self._wrong(at, "holds characters that no header can carry")
        return secret

    def _injector(self, at: Location, auth: Auth) -> Injector:
        if isinstance(auth, BearerAuth):
            return bearer(self._header_credential((*at, "token"), auth.token))
        if isinstance(auth, BasicAuth):
            if auth.username is None and auth.password is None:
                self._wrong(at, "needs a username or a password")
            name = self._credential((*at, "username"), auth.username) if auth.username else _UNSET
            password = self._credential((*at, "password"), auth.password) if auth.password else _UNSET
            if not isinstance(name, LateSecret) and ":" in name.reveal():
                self._wrong((*at, "username"), "holds a colon, which Basic cannot carry")
            return BasicCredential(name, password)
        if isinstance(auth, HeaderAuth):
            pairs = auth.headers.items()
            if len({name.lower() for name, _ in pairs}) < len(pairs):
                self._wrong((*at, "headers"), "names a header twice")
            for stray in auth.prefix.keys() - auth.headers.keys():
                self._wrong((*at, "prefix", stray), "is not one of the headers")
            return HeaderCredential(
                tuple(
                    (
                        name.encode(),
                        auth.prefix.get(name, "").encode(),
                        self._header_credential((*at, "headers", name), value),
                    )
                    for name, value in pairs
                )
            )
        return QueryCredential(
            tuple((name, self._credential((*at, "params", name), v)) for name, v in auth.params.items())
        )

    def _keys(self, at: Location, entry: CommonConnection) -> KeyRing:
        return key_ring(
            entry.signing_keys,
            lambda index, source: self.secret((*at, index, "secret"), source),
            lambda index, what, message: self._wrong((*at, index, what), message),
            lambda index, message: self.warnings.append(
                self._document.problem((*at, index, "secret"), message)
            ),
        )


def _late(injector: Injector) -> tuple[LateSecret, ...]:
    return tuple(secret for secret in injector.secrets() if isinstance(secret, LateSecret))


# One object for all that are equal: most connections of a large registry differ in their secrets only.
_conduct = lru_cache(maxsize=1024)(Conduct)


@lru_cache(maxsize=1024)
def _limits(limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
    return limits


@lru_cache(maxsize=4096)
def _parse_upstream(text: str) -> tuple[Upstream | None, str]:
    """The upstream that a URL names, or what is wrong with it."""
    try:
        url = parse_url(text)
    except Denied:
        url = None
    if url is None or b"?" in url.target:
        return None, _NO_URL
    try:
        return Upstream(url.origin, canonical_path(url.target).removesuffix(b"/")), ""
    except Denied:
        return None, "its path has segments or escapes that no request could match"
