"""The certificate that belongs to a private key, as an assertion names it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from ..signing.base64url import encode_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

BAD_CERTIFICATE: Final = "has to be a certificate in PEM form"
NOT_OF_KEY: Final = "is not the certificate of the private key"


def thumbprint(pem: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """Return the member `x5t#S256` (RFC 7515, 4.1.8) of the first certificate in a text.

    Raises ValueError if there is none, or if it is of another key.
    """
    # Imported here, because most configurations have no certificate.
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        found = x509.load_pem_x509_certificate(pem.encode())
        named = found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(BAD_CERTIFICATE) from None
    if named != key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise ValueError(NOT_OF_KEY)
    return encode_bytes(hashlib.sha256(found.public_bytes(Encoding.DER)).digest())
