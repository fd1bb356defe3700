"""Connections built from validated entries: secrets resolved, URLs parsed, patterns compiled."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Final

from ..config_problems import Location
from ..core.ceiling import Ceiling
from ..core.connection import Conduct, Connection, Reached, SourceRules, Upstream
from ..core.cors import Cors
from ..core.credentials import (
    Injector,
    NoCredential,
)
from ..core.strip_list import is_credential
from ..core.way_out import UpstreamTls
from ..errors import Denied
from ..http.field_names import header_key
from ..http.hosts import is_loopback, parse_authority
from ..http.message import Origin
from ..http.networks import Network
from ..http.paths import canonical_path
from ..limits.rules import Limit
from ..signing.keys import KeyRing
from ..signing.secret import LateSecret
from ..signing.source_url import SourceUrl, parse_url
from .build_cors import cors_of
from .build_credentials import FileSecrets
from .build_key_forms import key_forms, key_slots
from .build_registry_token import token_url_of
from .build_upstreams import check_paths, reached_of, slots_of, with_upstreams
from .schema.connections import (
    Auth,
    CommonConnection,
    ConnectionEntry,
    PresignConnection,
    SourceConnection,
)
from .signing_parts import ceiling, key_ring
from .upstream_tls import read_upstream_tls

# Stands for an upstream whose problem was reported. Such a configuration is never used.
_NOWHERE: Final = Upstream(Origin("https", "s3.us-east-1.amazonaws.com", 443))
_NO_URL: Final = "is not an http(s) URL without user name, query and fragment"


class Registrar:
    """Builds the connections of one file from its entries."""

    def __init__(self, secrets: FileSecrets) -> None:
        """Args: secrets: of the same file; it also collects the mistakes in the connections."""
        self._secrets = secrets
        self._wrong = secrets.wrong

    def connections(self, entries: Mapping[str, ConnectionEntry]) -> dict[str, Connection]:
        """Return all connections by id. Use them only if no problem was found."""
        return {name: self._connection(name, entry) for name, entry in entries.items()}

    def _connection(self, name: str, entry: ConnectionEntry) -> Connection:
        self._secrets.begin(direct=entry.upstream_proxy == "none")
        found = (
            self._presign(name, entry) if isinstance(entry, PresignConnection) else self._source(name, entry)
        )
        if entry.upstream_proxy is not None or entry.tls is not None:
            found = replace(found, direct=entry.upstream_proxy == "none", tls=self._tls(name, entry, found))
        lacks = self._secrets.lacking()
        return replace(found, lacks=lacks) if lacks else found

    def _tls(self, name: str, entry: CommonConnection, found: Connection) -> UpstreamTls | None:
        if entry.tls is None:
            return None
        at: Location = ("connections", name, "tls")
        origins = found.source.origins if found.source else [one.origin for one in found.destinations]
        if origins and not any(origin.scheme == "https" for origin in origins):
            self._wrong(at, "has no effect: there is no https upstream")
        return read_upstream_tls(self._secrets, at, entry.tls)

    def _presign(self, name: str, entry: PresignConnection) -> Connection:
        at: Location = ("connections", name)
        upstream = self._upstream((*at, "upstream"), entry.upstream, entry)
        self._check_token_url(at, entry, entry.auth, upstream)
        injector = self._secrets.injector((*at, "auth"), entry.auth, upstream or _NOWHERE)
        default = Reached(upstream or _NOWHERE, injector)
        upstreams = reached_of(
            (*at, "upstreams"),
            entry.upstreams,
            default,
            parse=lambda place, url: self._upstream(place, url, entry),
            wrong=self._wrong,
        )
        taken = slots_of(upstreams.values() or [default], key_slots(entry.key_slots))
        slots = taken.headers
        keys = self._keys((*at, "signing_keys"), entry)
        self._check_defaults((*at, "default_headers"), entry.default_headers, slots)
        self._secrets.check_different(at, keys, injector)
        if not entry.signing_keys:
            self._wrong((*at, "signing_keys"), "is required: nothing can be signed without a signing key")
        found = Connection(
            id=name,
            upstream=upstream,
            injector=injector,
            late=_late(injector),
            keys=keys,
            ceiling=self._ceiling(at, entry),
            conduct=self._conduct(entry, entry.default_headers, slots),
            enabled=entry.enabled,
            limits=self._limits((*at, "limits"), entry),
            max_uses=entry.max_uses,
            also=_second_hosts(tuple(entry.also)),
            networks=self._networks((*at, "allow_networks"), entry.allow_networks),
            taken=taken if taken != injector.slots else None,
            key_forms=key_forms(tuple(entry.key_shapes), tuple(entry.key_slots.passwords)),
        )
        return with_upstreams(found, upstreams)

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
        self._check_token_url(at, entry, entry.auth)
        injector = self._secrets.injector((*at, "auth"), entry.auth) if entry.auth else NoCredential()
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
            conduct=self._conduct(entry, {}, injector.slots.headers),
            enabled=entry.enabled,
            limits=self._limits((*at, "limits"), entry),
            max_uses=entry.max_uses,
        )

    def _check_defaults(self, at: Location, headers: Mapping[str, str], slots: frozenset[bytes]) -> None:
        seen: set[bytes] = set()
        for name in headers:
            key = header_key(name.encode())
            if key in slots or is_credential(key):
                self._wrong((*at, name), "is a header for credentials: use auth instead")
            elif key in seen:
                self._wrong((*at, name), "is given twice, in two spellings")
            seen.add(key)

    def _conduct(
        self, entry: CommonConnection, headers: Mapping[str, str], slots: frozenset[bytes]
    ) -> Conduct:
        return _conduct(
            entry.cookies == "pass",
            entry.redirects == "pass",
            entry.cache == "pass",
            entry.on_client_credentials == "reject",
            tuple([(name.encode(), value.encode()) for name, value in headers.items()]),
            entry.timeouts.connect,
            entry.timeouts.response,
            entry.timeouts.body,
            entry.pool in (True, "on"),
            isinstance(entry, PresignConnection) and entry.challenge != "none",
            frozenset([one.lower().encode() for one in getattr(entry, "url_headers", ())]),
            self._cors(entry, [*slots, *map(str.encode, headers)]),
            *((entry.websocket, entry.max_duration) if isinstance(entry, PresignConnection) else ()),
        )

    def _cors(self, entry: CommonConnection, sent: list[bytes]) -> Cors | None:
        return cors_of(entry.cors, sent, cookies=entry.cookies == "pass") if entry.cors is not None else None

    def _ceiling(self, at: Location, entry: PresignConnection) -> Ceiling:
        check_paths((*at, "allow", "paths"), entry.allow.paths, entry.upstreams, self._wrong)
        return ceiling(entry, lambda message: self._wrong((*at, "allow", "methods"), message))

    def _limits(self, at: Location, entry: CommonConnection) -> tuple[Limit, ...]:
        limits = tuple([one.limit() for one in entry.limits])
        names = [limit.name for limit in limits]
        for index, name in enumerate(names):
            if name in names[:index]:
                self._wrong((*at, index), f"another limit counts the same thing ({name})")
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

    def _upstream(self, at: Location, url: str, entry: PresignConnection) -> Upstream | None:
        upstream, problem = parse_upstream(url)
        if problem:
            self._wrong(at, problem)
        if upstream is not None:
            self._check_secure(at, upstream.origin, entry)
        return upstream

    def _check_secure(self, at: Location, origin: Origin, entry: CommonConnection) -> None:
        if origin.scheme != "https" and not is_loopback(origin.host) and not entry.insecure_upstream:
            self._wrong(
                at, "is not https: the network could read the credential (insecure_upstream: true allows it)"
            )

    def _check_token_url(
        self, at: Location, entry: CommonConnection, auth: Auth | None, upstream: Upstream | None = None
    ) -> None:
        if url := token_url_of(auth, upstream):
            self._check_secure((*at, "auth", "token_url"), parse_url(url).origin, entry)

    def _networks(self, at: Location, texts: list[str]) -> tuple[Network, ...]:
        found: list[Network] = []
        for index, text in enumerate(texts):
            try:
                found.append(ipaddress.ip_network(text))
            except ValueError:
                self._wrong((*at, index), "is not a network, as in 10.0.0.0/8")
        return tuple(found)

    def _keys(self, at: Location, entry: CommonConnection) -> KeyRing:
        return key_ring(
            entry.signing_keys,
            lambda index, source: self._secrets.secret((*at, index, "secret"), source, lend=True),
            lambda index, what, message: self._wrong_key((*at, index, what), entry, message),
            lambda index, message: self._secrets.warnings.append(
                self._secrets.document.problem((*at, index, "secret"), message)
            ),
        )

    def _wrong_key(self, at: Location, entry: CommonConnection, message: str) -> None:
        *_, index, what = at
        if what == "secret":
            self._secrets.wrong_secret(at, entry.signing_keys[int(index)].secret, message)
        else:
            self._wrong(at, message)


def _late(injector: Injector) -> tuple[LateSecret, ...]:
    return tuple(secret for secret in injector.secrets() if isinstance(secret, LateSecret))


# Equal values share one object: most connections of a large registry differ only in their secrets.
_conduct = lru_cache(maxsize=1024)(Conduct)


@lru_cache(maxsize=1024)
def _limits(limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
    return limits


@lru_cache(maxsize=1024)
def _second_hosts(texts: tuple[str, ...]) -> tuple[Origin, ...]:
    found = [parse_authority(text, "https") for text in texts]
    return tuple(dict.fromkeys([origin for origin in found if origin is not None]))


@lru_cache(maxsize=4096)
def parse_upstream(text: str) -> tuple[Upstream | None, str]:
    """Return the upstream that a URL names and "", or None and what is wrong with it."""
    try:
        url = parse_url(text)
    except Denied:
        url = None
    if url is None or b"?" in url.target:
        return None, _NO_URL
    try:
        return Upstream(url.origin, canonical_path(url.target).removesuffix(b"/")), ""
    except Denied:
        return None, "its path has segments or escapes that no request can match"
