"""The secrets of one file, read from their sources, and the credentials that are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, assert_never

from ..config_problems import Location, Problem
from ..core.connection import Upstream
from ..core.credentials import BasicCredential, HeaderCredential, Injector, QueryCredential, bearer
from ..core.jwt_assertion import read_client_key, read_key
from ..core.oauth2 import MintedSecret, TokenRequest, mark_of
from ..core.path_credential import NO_PATH, PathCredential, fits_a_path, path_credential
from ..signing.keys import KeyRing
from ..signing.secret import LateSecret, Secret
from ..signing.source_url import parse_url
from . import build_registry_token, build_sigv4
from .file_versions import state_of
from .outside_secrets import Lent
from .permissions import readable_by_others, writable_by_others
from .schema.connections import (
    Auth,
    BasicAuth,
    BearerAuth,
    HeaderAuth,
    OAuth2Auth,
    PathAuth,
    QueryAuth,
    RegistryTokenAuth,
    SigV4Auth,
)
from .secret_programs import Missing
from .secret_sources import SecretError, name_of, resolve
from .strict_yaml import Document
from .values import SecretSource

_UNSET: Final = Secret("")


class FileSecrets:
    """Reads the secrets that one file names. It also collects the problems and warnings of the whole file."""

    def __init__(
        self,
        document: Document,
        base: Path,
        environ: Mapping[str, str],
        lent: Lent | None = None,
        *,
        offline: bool = False,
    ) -> None:
        """
        Args:
            lent: the secrets from outside. If a program has to run first, its secret is empty, and that is no
                problem. None if the file is not built again: then each secret is read from its source.
            offline: do not read credentials: requests are examined, not forwarded.
        """
        self._lent = lent
        self._lacks: list[str] | None = None
        self.offline = offline
        self._direct = False
        self.document = document
        self._base = base
        self._environ = environ
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.contained = True
        """True if nothing outside of the file was read for its connections."""
        self.holds_secrets = False
        """True if the file itself contains a secret."""

    def begin(self, *, direct: bool = False) -> None:
        """Begin a connection. If an outside secret is not available, only this connection is affected.

        Args:
            direct: its token endpoint is reached without the gateway's proxy, as its upstream is.
        """
        self._lacks = [] if self._lent is not None and not self._lent.strict else None
        self._direct = direct

    def lacking(self) -> str:
        """Return what the connection that was begun lacks; empty if it has everything."""
        lacks, self._lacks = self._lacks, None
        return lacks[0] if lacks else ""

    def wrong(self, at: Location, message: str) -> None:
        self.problems.append(self.document.problem(at, message))

    def wrong_secret(self, at: Location, source: SecretSource, message: str) -> None:
        """Report a bad secret. It affects only its connection, unless the file itself contains the secret."""
        if self._lent is None or self._lacks is None or source.literal is not None:  # or none was begun
            self.wrong(at, message)
        else:
            self._lacks.append(f"{name_of(source)}: {message}" if message.startswith("is ") else message)
            self._lent.lacking.append(self.document.problem(at, message))

    def outside(self, name: str) -> Path:
        """Return the path of a file that belongs to a connection. It is watched and judged."""
        self.contained = False
        path = self._base / name
        if self._lent is not None:
            self._lent.files[path] = state_of(path)  # before reading it, so that a later change is noticed
        self.problems += writable_by_others(path)
        return path

    def wrong_file(self, at: Location, path: Path, message: str) -> None:
        """Report a file that cannot be used. As a secret from outside, it affects only its connection."""
        self.wrong_secret(at, SecretSource(file=str(path)), message)

    def secret(
        self, at: Location, source: SecretSource, *, lend: bool = False, lines: bool = False
    ) -> Secret:
        """Return a secret of the file. If it is not available, report a problem and return an empty one.

        Args:
            lend: return the secret of the last load instead of an empty one.
            lines: permit line breaks.
        """
        self.contained = self.contained and source.literal is not None
        self.holds_secrets = self.holds_secrets or source.literal is not None
        if source.file is not None:
            self._warn_of_file(at, self._base / source.file)
        try:
            if self._lent is not None:
                return self._lent.secret(source, self._base, self._environ, lines=lines)
            return resolve(source, self._base, self._environ, lines=lines)
        except Missing:
            return _UNSET  # everything is built again after the program has run
        except SecretError as error:
            self.wrong_secret(at, source, str(error))
            return self._lent.previous(source) if lend and self._lent is not None else _UNSET

    def _warn_of_file(self, at: Location, path: Path) -> None:
        self.warnings += [self.document.problem(at, one.message) for one in readable_by_others(path)]

    def _credential(self, at: Location, source: SecretSource) -> Secret:
        """Return a secret that is needed only after a request was granted, and so may be fetched then."""
        if self.offline or source.exec is not None:
            return LateSecret(source.exec or (), source.ttl)
        return self.secret(at, source)

    def _header_credential(self, at: Location, source: SecretSource) -> Secret:
        secret = self._credential(at, source)
        if not isinstance(secret, LateSecret):
            try:
                secret.reveal().encode("latin-1")
            except UnicodeEncodeError:
                self.wrong_secret(at, source, "holds characters that no header can carry")
        return secret

    def injector(self, at: Location, auth: Auth, upstream: Upstream | None = None) -> Injector:
        """Return the object that puts the credential on a request.

        Args:
            upstream: None for a project that fetches sources.
        """
        match auth:
            case BearerAuth():
                return bearer(self._header_credential((*at, "token"), auth.token))
            case BasicAuth():
                return self._basic(at, auth)
            case HeaderAuth():
                return self._headers(at, auth)
            case QueryAuth():
                return QueryCredential(
                    tuple(
                        (name, self._credential((*at, "params", name), v)) for name, v in auth.params.items()
                    )
                )
            case PathAuth():
                return self._path(at, auth, upstream.base if upstream is not None else None)
            case OAuth2Auth():
                return bearer(self._oauth2(at, auth))
            case RegistryTokenAuth():
                return build_registry_token.build(
                    at, auth, upstream, pair=self._basic(at, auth), wrong=self.wrong, direct=self._direct
                )
            case SigV4Auth():
                return build_sigv4.build(
                    at,
                    auth,
                    upstream.origin if upstream is not None else None,
                    credential=self._credential,
                    wrong=self.wrong,
                    wrong_secret=self.wrong_secret,
                    offline=self.offline,
                )
            case other:
                assert_never(other)

    def _path(self, at: Location, auth: PathAuth, base: bytes | None) -> PathCredential:
        if base is None:
            self.wrong((*at, "type"), "path needs an upstream: the paths of sources are signed as they are")
        secret = self._credential((*at, "token"), auth.token)
        known = secret is not _UNSET and not isinstance(secret, LateSecret)
        if known and not fits_a_path(secret.reveal()):
            self.wrong_secret((*at, "token"), auth.token, NO_PATH)
        return path_credential(base or b"", auth.template, secret)

    def _oauth2(self, at: Location, auth: OAuth2Auth) -> MintedSecret:
        url = parse_url(auth.token_url)
        found: dict[str, Secret | None] = {"client_id": None, "client_secret": None, "refresh_token": None}
        file = auth.refresh_token.file if auth.refresh_token is not None else None
        for member in found:
            source: SecretSource | None = getattr(auth, member)
            if source is not None:
                kept = member == "refresh_token" and file is not None and not self.offline
                found[member] = (self._kept_file if kept else self._credential)((*at, member), source)
        scope = (("scope", auth.scope),) if auth.scope else ()
        request = TokenRequest(
            url.origin,
            url.target,
            auth.grant,
            found["client_id"],
            found["client_secret"],
            found["refresh_token"],
            str(self._base.absolute() / file) if file is not None else None,
            (*scope, *auth.extra.items()),
            auth.client_auth,
            *self._private_key(at, auth),
            tuple([(name, text) for name, text in (("aud", auth.audience), ("sub", auth.subject)) if text]),
            self._direct,
        )
        return MintedSecret(request, mark_of(request))

    def _private_key(self, at: Location, auth: OAuth2Auth) -> tuple[Secret | None, Secret | None]:
        """Return the texts of private key and certificate. They are parsed here, to report bad ones."""
        place = (*at, "private_key")
        key = self._pem(place, auth.private_key)
        certificate = self._pem((*at, "certificate"), auth.certificate)
        late = [one is _UNSET or isinstance(one, LateSecret) for one in (key, certificate)]
        if key is None or any(late):
            return key, certificate
        try:
            if auth.client_auth == "assertion":
                issuer = read_client_key(key.reveal(), certificate.reveal() if certificate else None).issuer
            else:
                issuer = read_key(key.reveal(), only_rsa=auth.grant == "github_app").issuer
        except ValueError as error:
            self.wrong_secret(place, auth.private_key or SecretSource(), str(error))
        else:
            if issuer is None and auth.client_id is None:
                self.wrong(place, "needs a client_id, the issuer of its assertions")
        return key, certificate

    def _pem(self, at: Location, source: SecretSource | None) -> Secret | None:
        if source is None:
            return None
        if self.offline or source.exec is not None:
            return LateSecret(source.exec or (), source.ttl, lines=True)
        return self.secret(at, source, lines=True)

    def _kept_file(self, at: Location, source: SecretSource) -> Secret:
        """Check the file of a refresh token, which the gateway replaces itself: it is read when it is used.

        It is not watched. A reload at each change would drop the tokens that were just issued with it.
        """
        self.contained = False
        self._warn_of_file(at, self._base / (source.file or ""))
        try:
            resolve(source, self._base, self._environ)
        except SecretError as error:
            self.wrong_secret(at, source, str(error))
        return _UNSET

    def _basic(self, at: Location, auth: BasicAuth | RegistryTokenAuth) -> BasicCredential:
        if auth.username is None and auth.password is None:
            self.wrong(at, "needs a username or a password")
        name = self._credential((*at, "username"), auth.username) if auth.username else _UNSET
        password = self._credential((*at, "password"), auth.password) if auth.password else _UNSET
        if not isinstance(name, LateSecret) and ":" in name.reveal():
            source = auth.username or SecretSource()
            self.wrong_secret((*at, "username"), source, "contains a colon, which Basic cannot carry")
        return BasicCredential(name, password)

    def _headers(self, at: Location, auth: HeaderAuth) -> HeaderCredential:
        pairs = auth.headers.items()
        if len({name.lower() for name, _ in pairs}) < len(pairs):
            self.wrong((*at, "headers"), "names a header twice")
        for stray in auth.prefix.keys() - auth.headers.keys():
            self.wrong((*at, "prefix", stray), "is not one of the headers")
        found = []
        for name, value in pairs:
            secret = self._header_credential((*at, "headers", name), value)
            found.append((name.encode(), auth.prefix.get(name, "").encode(), secret))
        return HeaderCredential(tuple(found))

    def check_different(self, at: Location, keys: KeyRing, injector: Injector) -> None:
        """Check that no signing secret is the credential itself: then its signer would need no gateway."""
        secrets = [*injector.secrets()]
        secrets += [part for one in secrets if isinstance(one, MintedSecret) for part in one.request.secrets]
        known = {one.reveal() for one in secrets if not isinstance(one, LateSecret)}
        for index, key in enumerate(keys.keys):
            if key.secret.reveal() in known - {""}:
                self.wrong((*at, "signing_keys", index, "secret"), "is the credential itself: make another")
