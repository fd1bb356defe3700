"""Signed assertions for token endpoints (RFC 7523), and the private keys that sign them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..signing.base64url import encode, encode_bytes
from .certificate import thumbprint

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

LIFETIME: Final = 540
"""Seconds for which an assertion is valid. Most endpoints allow an hour, GitHub ten minutes, by its clock."""
SKEW: Final = 30
"""Seconds by which the clock of the endpoint may be late."""
_CURVES: Final = {"secp256r1": ("ES256", 32, "SHA256"), "secp384r1": ("ES384", 48, "SHA384")}
_MIN_RSA: Final = 2048
_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"
BAD_KEY: Final = "has to be a private key in PEM form (RSA or EC), or the JSON of a Google service account"


class AssertionKey(NamedTuple):
    """A private key, and what the file of a Google service account says besides."""

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    issuer: str | None = None
    key_id: str | None = None
    thumbprint: str | None = None
    """Of the certificate by which the endpoint knows the key."""


def read_key(text: str, certificate: str | None = None, *, only_rsa: bool = False) -> AssertionKey:
    """Parse a key.

    Args:
        certificate: in PEM form; None where there is none.
        only_rsa: refuse EC keys, which GitHub takes for no app.

    Raises ValueError, with nothing of the key in it.
    """
    found = _read(text, certificate)
    if only_rsa and _signer(found)[0] != "RS256":
        raise ValueError("has to be an RSA key: GitHub takes no other")
    return found


def _read(text: str, certificate: str | None) -> AssertionKey:
    if certificate is not None:
        key = _private_key(text)
        try:
            return AssertionKey(key, thumbprint=thumbprint(certificate, key))
        except ValueError as error:
            raise ValueError(f"has a certificate that {error}") from None
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


def read_client_key(text: str, certificate: str | None) -> AssertionKey:
    """Parse the key of a client. Its certificate may stand beside it, in one text. Raises ValueError."""
    if certificate is None and _CERTIFICATE in text:
        certificate = text
    return read_key(text, certificate)


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
    name, sign = _signer(key)
    head = {"alg": name, "typ": "JWT"} | ({"kid": key.key_id} if key.key_id else {})
    head |= {"x5t#S256": key.thumbprint} if key.thumbprint else {}
    body = claims | {"iat": now - SKEW, "exp": now + LIFETIME}
    text = f"{_encoded(head)}.{_encoded(body)}"
    return f"{text}.{encode_bytes(sign(text.encode('ascii')))}"


def _signer(found: AssertionKey) -> Any:
    """Return the name of the algorithm (RFC 7518, 3.1), and the function that signs.

    Entra ID asks for PS256 where the key is known by its certificate.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    key = found.key
    if isinstance(key, rsa.RSAPrivateKey) and found.thumbprint:
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        return "PS256", lambda data: key.sign(data, pss, hashes.SHA256())
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
