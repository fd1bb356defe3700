"""The secrets of one file: where each is had, and the credentials that are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, assert_never

from ..config_problems import Location, Problem
from ..core.credentials import (
    BasicCredential,
    HeaderCredential,
    Injector,
    QueryCredential,
    bearer,
)
from ..signing.keys import KeyRing
from ..signing.secret import LateSecret, Secret
from .outside_secrets import Lent
from .permissions import readable_by_others
from .schema.connections import Auth, BasicAuth, BearerAuth, HeaderAuth, QueryAuth
from .secret_programs import Missing
from .secret_sources import SecretError, name_of, resolve
from .strict_yaml import Document
from .values import SecretSource

_UNSET: Final = Secret("")


class FileSecrets:
    """The secrets that one file asks for; the problems and warnings of all of it are collected here."""

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
            lent: has secrets from outside. Where a program of one is missing, the secret is empty, and that
                is no problem. None where nobody reads the file again: each is had where it is needed.
            offline: leave credentials where they are: for looking at requests, not for forwarding them.
        """
        self._lent = lent
        self._lacks: list[str] | None = None
        self._offline = offline
        self.document = document
        self._base = base
        self._environ = environ
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.contained = True
        """Whether nothing outside of the file was read for its connections."""
        self.holds_secrets = False
        """Whether some secret stands in the file itself."""

    def begin(self) -> None:
        """What follows is of one connection: it alone suffers where a secret from outside cannot be had."""
        self._lacks = [] if self._lent is not None and not self._lent.strict else None

    def lacking(self) -> str:
        """What the connection lacks that was begun; empty where it has everything."""
        lacks, self._lacks = self._lacks, None
        return lacks[0] if lacks else ""

    def wrong(self, at: Location, message: str) -> None:
        self.problems.append(self.document.problem(at, message))

    def wrong_secret(self, at: Location, source: SecretSource, message: str) -> None:
        """Only its connection suffers, unless the secret stands in the file itself, which is to be mended."""
        if self._lent is None or self._lacks is None or source.literal is not None:  # or not of a connection
            self.wrong(at, message)
        else:
            self._lacks.append(f"{name_of(source)}: {message}" if message.startswith("is ") else message)
            self._lent.lacking.append(self.document.problem(at, message))

    def secret(self, at: Location, source: SecretSource, *, lend: bool = False) -> Secret:
        """What a secret value of the file is; an empty one, and a problem, where it cannot be had.

        Args:
            lend: take that of the last time where it cannot be had now.
        """
        self.contained = self.contained and source.literal is not None
        self.holds_secrets = self.holds_secrets or source.literal is not None
        if source.file is not None:
            self._warn_of_file(at, self._base / source.file)
        try:
            if self._lent is not None:
                return self._lent.secret(source, self._base, self._environ)
            return resolve(source, self._base, self._environ)
        except Missing:
            return _UNSET  # and all is read again, once it has run
        except SecretError as error:
            self.wrong_secret(at, source, str(error))
            return self._lent.of_the_last_time(source) if lend and self._lent is not None else _UNSET

    def _warn_of_file(self, at: Location, path: Path) -> None:
        self.warnings += [self.document.problem(at, one.message) for one in readable_by_others(path)]

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
                self.wrong_secret(at, source, "holds characters that no header can carry")
        return secret

    def injector(self, at: Location, auth: Auth) -> Injector:
        """What puts the credential on a request."""
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
            case other:
                assert_never(other)

    def _basic(self, at: Location, auth: BasicAuth) -> BasicCredential:
        if auth.username is None and auth.password is None:
            self.wrong(at, "needs a username or a password")
        name = self._credential((*at, "username"), auth.username) if auth.username else _UNSET
        password = self._credential((*at, "password"), auth.password) if auth.password else _UNSET
        if not isinstance(name, LateSecret) and ":" in name.reveal():
            source = auth.username or SecretSource()
            self.wrong_secret((*at, "username"), source, "holds a colon, which Basic cannot carry")
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
        """Whoever signs with the credential itself holds it, and needs no gateway."""
        known = {one.reveal() for one in injector.secrets() if not isinstance(one, LateSecret)}
        for index, key in enumerate(keys.keys):
            if key.secret.reveal() in known - {""}:
                self.wrong((*at, "signing_keys", index, "secret"), "is the credential itself: make another")
