"""Private keys for tests: made once in a process, because RSA takes its time."""

import base64
import json
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ISSUER = "robot@project.iam.gserviceaccount.com"


@lru_cache(maxsize=8)
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@lru_cache(maxsize=8)
def ec_key(curve: str = "SECP256R1") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(getattr(ec, curve)())


def pem(key: Any) -> str:
    text: str = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return text


def service_account(**changes: Any) -> str:
    """The file as Google hands it out."""
    found = {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "0123456789abcdef",
        "private_key": pem(rsa_key()),
        "client_email": ISSUER,
        "client_id": "1234567890",
        "token_uri": "https://oauth2.googleapis.com/token",
    } | changes
    return json.dumps({key: value for key, value in found.items() if value is not None}, indent=2)


def verified(jwt: str, key: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Head and claims of a JWT whose signature is good. Raises InvalidSignature."""
    head, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in jwt.split("."))
    data, public = jwt.rpartition(".")[0].encode(), key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        public.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
    else:
        half = len(signature) // 2
        assert half == (public.curve.key_size + 7) // 8
        numbers = [int.from_bytes(part, "big") for part in (signature[:half], signature[half:])]
        digest = hashes.SHA256() if half == 32 else hashes.SHA384()
        public.verify(encode_dss_signature(*numbers), data, ec.ECDSA(digest))
    return json.loads(head), json.loads(claims)
