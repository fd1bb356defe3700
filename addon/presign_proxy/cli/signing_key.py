"""The key that signs: one of a configured connection, or a secret alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..config.path import expanded
from ..config.secret_sources import name_of, resolve
from ..config.values import SecretSource
from ..signing.keys import WEAK_BYTES, SigningKey, copied_with, is_guessable, is_weak
from ..signing.secret import Secret
from .grant_forms import BASE, BASE_VARIABLE
from .hints import quoted
from .output import Output
from .place import Failure, Place

if TYPE_CHECKING:
    from ..config.signing_view import SigningView


class KnownKey(NamedTuple):
    """The signing key with its connection: a configured one, or only a name and a secret."""

    id: str
    secret: Secret
    key: str | None = None
    view: SigningView | None = None

    @property
    def preset(self) -> Mapping[str, Any]:
        return self.view.preset if self.view else {}

    def base(self, given: str | None) -> str:
        """Return the gateway's URL: of `--base` or the environment, else of the configuration."""
        return given or (self.view.gateway if self.view else None) or BASE


def guessed_base(place: Place, known: KnownKey, given: str | None) -> tuple[str, ...]:
    """Return a remark where nothing says which gateway is meant: no option, variable or configuration."""
    if given or known.view is not None or place.exists:
        return ()
    return (f"Nothing names the gateway, so it is {BASE}: name yours with --base URL or {BASE_VARIABLE}.",)


def _strong(output: Output, secret: Secret, source: SecretSource) -> Secret:
    """Return the secret; warn if it is weak. Raises Failure if it can be guessed.

    presign.click's own example has 14 bytes, so a weak secret must sign.
    """
    if is_guessable(secret):
        raise Failure(f"{name_of(source)} is too short: anyone with a URL could guess the secret")
    if is_weak(secret):
        output.note(
            f"{name_of(source)} has fewer than {WEAK_BYTES} bytes: a gateway requires weak: true for it"
        )
    output.note(*doubts_about(secret, source))
    return secret


def doubts_about(secret: Secret, source: SecretSource) -> tuple[str, ...]:
    """Return a remark if something was probably copied with a secret: then every signature is wrong."""
    if not (what := copied_with(secret)):
        return ()
    return (
        f"{name_of(source)} has {what} in it, which counts as a part of the signing secret. One that presign"
        " makes is sk_ and 43 letters, digits, - or _: if the gateway answers invalid, copy only that.",
    )


def secret_source_of(env: str | None, file: str | None) -> SecretSource | None:
    """Return the source that --secret-env or --secret-file names, or None. Raises UsageError."""
    if env and file:
        raise click.UsageError("--secret-env and --secret-file exclude each other")
    if env:
        return SecretSource(env=env)
    return SecretSource(file=str(expanded(file))) if file else None


def lone_key(place: Place, output: Output, name: str, source: SecretSource) -> KnownKey:
    """Return the key that a secret alone makes. Raises Failure, SecretError."""
    return KnownKey(name, _strong(output, resolve(source, Path.cwd(), place.environ), source))


def signer_of(
    place: Place, output: Output, name: str, source: SecretSource | None, key_id: str | None
) -> KnownKey:
    """Return the key that signs for a connection. Raises Failure.

    Args:
        source: of the secret, to sign without a configuration; None to use the configuration.
    """
    if source is not None:
        return lone_key(place, output, name, source)
    from .configured import view_of  # it reads YAML and decrypts; a secret alone needs neither

    return key_of(view_of(place, name), key_id)


def key_of(view: SigningView, key_id: str | None) -> KnownKey:
    """Return the key of a configured connection that signs: the first, or the named one. Raises Failure."""
    key = _signing_key(view, key_id, int(time.time()))
    return KnownKey(view.id, key.secret, key.id, view)


def _signing_key(view: SigningView, key_id: str | None, now: int) -> SigningKey:
    if not view.signed:
        return SigningKey("", Secret("-"))
    for key in view.keys.keys:
        if key_id not in (None, key.id):
            continue
        if key.is_live(now) and not key.revoked:
            return key
        if key_id is not None:
            raise Failure(f"the key {key.id} of {view.id} is revoked, or past its not_after")
    if key_id is not None:
        from ..similar_names import did_you_mean

        known = [key.id for key in view.keys.keys]
        hint = did_you_mean(key_id, known) or f"it has {', '.join(known)}"
        raise Failure(f"{view.id} has no key {key_id[:64]!r}: {hint}")
    raise Failure(f"{view.id} has no valid key: {quoted('connections', 'rotate', view.id)}")
