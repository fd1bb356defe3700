"""Private keys for tests: made once in a process, because RSA takes its time."""

import base64
import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

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


def certificate(key: Any, name: str = "client") -> str:
    """A certificate of this key, signed with it."""
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def thumbprint(pem_text: str) -> str:
    der = x509.load_pem_x509_certificate(pem_text.encode()).fingerprint(hashes.SHA256())
    return base64.urlsafe_b64encode(der).rstrip(b"=").decode()


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
        named = json.loads(head)["alg"]
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        public.verify(signature, data, {"RS256": padding.PKCS1v15(), "PS256": pss}[named], hashes.SHA256())
    else:
        half = len(signature) // 2
        assert half == (public.curve.key_size + 7) // 8
        numbers = [int.from_bytes(part, "big") for part in (signature[:half], signature[half:])]
        digest = hashes.SHA256() if half == 32 else hashes.SHA384()
        public.verify(encode_dss_signature(*numbers), data, ec.ECDSA(digest))
    return json.loads(head), json.loads(claims)
