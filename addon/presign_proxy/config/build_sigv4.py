"""The credential of `auth: {type: aws_sigv4}`, from its secrets and the host that it is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..config_problems import Location
from ..core.aws_hosts import scope_of
from ..core.aws_sigv4 import IN_HEADER, SigV4Credential, is_installed
from ..http.message import Origin
from ..signing.secret import LateSecret, Secret
from .schema.connections import SigV4Auth
from .values import SecretSource

NO_BOTOCORE: Final = (
    "aws_sigv4 needs botocore, which is not installed: pip install 'presign-proxy[aws]', "
    "then start the gateway again"
)
NO_SCOPE: Final = (
    "cannot be told from the host of the upstream: give it here, as AWS names it in its Signature Version 4"
)
NOT_FOR_SOURCES: Final = "aws_sigv4 needs an upstream: the paths of sources are signed as they are"

Credential = Callable[[Location, SecretSource], Secret]
Wrong = Callable[[Location, str], None]
WrongSecret = Callable[[Location, SecretSource, str], None]


def build(
    at: Location,
    auth: SigV4Auth,
    origin: Origin | None,
    *,
    credential: Credential,
    wrong: Wrong,
    wrong_secret: WrongSecret,
    offline: bool,
) -> SigV4Credential:
    """Return the credential.

    Args:
        origin: of the upstream; None for a project that fetches sources.
        offline: do not look for botocore: nothing is signed.
    """
    if origin is None:
        wrong((*at, "type"), NOT_FOR_SOURCES)
    if not offline and not is_installed():
        wrong((*at, "type"), NO_BOTOCORE)
    found = scope_of(origin.host) if origin is not None else None
    service, region = found or ("", "")
    for name, said in (("service", auth.service or service), ("region", auth.region or region)):
        if not said and origin is not None:
            wrong((*at, name), NO_SCOPE)
    found_keys = [
        _key((*at, member), getattr(auth, member), credential, wrong_secret)
        for member in ("access_key_id", "secret_access_key", "session_token")
    ]
    return SigV4Credential(
        found_keys[0] or Secret(""),
        found_keys[1] or Secret(""),
        found_keys[2],
        auth.service or service,
        auth.region or region,
        auth.client_scope,
        auth.max_body,
    )


def _key(
    at: Location, source: SecretSource | None, credential: Credential, wrong_secret: WrongSecret
) -> Secret | None:
    """Return a part of a key, if it is given."""
    if source is None:
        return None
    found = credential(at, source)
    known = not isinstance(found, LateSecret) and found.reveal()
    if known and not IN_HEADER.fullmatch(known):
        wrong_secret(at, source, "holds characters that no key of AWS has")
    return found
