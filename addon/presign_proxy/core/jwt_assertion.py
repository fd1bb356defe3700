"""Signed assertions for token endpoints (RFC 7523), and the private keys that sign them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..signing.base64url import encode, encode_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

LIFETIME: Final = 600
"""Seconds for which an assertion is valid. The endpoints allow at most an hour, GitHub ten minutes."""
SKEW: Final = 30
"""Seconds by which the clock of the endpoint may be late."""
_CURVES: Final = {"secp256r1": ("ES256", 32, "SHA256"), "secp384r1": ("ES384", 48, "SHA384")}
_MIN_RSA: Final = 2048
BAD_KEY: Final = "has to be a private key in PEM form (RSA or EC), or the JSON of a Google service account"


class AssertionKey(NamedTuple):
    """A private key, and what the file of a Google service account says besides."""

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    issuer: str | None = None
    key_id: str | None = None


def read_key(text: str) -> AssertionKey:
    """Parse a key. Raises ValueError, with nothing of the key in it."""
    if not text.lstrip().startswith("{"):
        return AssertionKey(_private_key(text))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(BAD_KEY) from None
    members = [found.get(name) for name in ("client_email", "private_key", "private_key_id")]
    issuer, key, key_id = members
    if found.get("type") != "service_account" or not isinstance(issuer, str) or not isinstance(key, str):
        raise ValueError("is JSON, but not that of a Google service account")
    return AssertionKey(_private_key(key), issuer, key_id if isinstance(key_id, str) else None)


def _private_key(pem: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    # Imported here, because most configurations have no such key.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(BAD_KEY) from None
    if isinstance(found, rsa.RSAPrivateKey) and found.key_size >= _MIN_RSA:
        return found
    if isinstance(found, ec.EllipticCurvePrivateKey) and found.curve.name in _CURVES:
        return found
    raise ValueError("has to be an RSA key of 2048 bits or more, or an EC key on P-256 or P-384")


def assertion(key: AssertionKey, claims: dict[str, str], now: int) -> str:
    """Return a signed JWT (RFC 7515, compact) with these claims.

    Args:
        now: Unix time, whole seconds.
    """
    name, sign = _signer(key.key)
    head = {"alg": name, "typ": "JWT"} | ({"kid": key.key_id} if key.key_id else {})
    body = claims | {"iat": now - SKEW, "exp": now + LIFETIME}
    text = f"{_encoded(head)}.{_encoded(body)}"
    return f"{text}.{encode_bytes(sign(text.encode('ascii')))}"


def _signer(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> Any:
    """Return the name of the algorithm (RFC 7518, 3.1), and the function that signs."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    if isinstance(key, rsa.RSAPrivateKey):
        return "RS256", lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    name, size, digest = _CURVES[key.curve.name]

    def sign(data: bytes) -> bytes:
        # JOSE has the two numbers side by side, without DER (RFC 7518, 3.4).
        numbers = decode_dss_signature(key.sign(data, ec.ECDSA(getattr(hashes, digest)())))
        return b"".join([number.to_bytes(size, "big") for number in numbers])

    return name, sign


def _encoded(members: dict[str, Any]) -> str:
    return encode(json.dumps(members, separators=(",", ":")))
