"""AWS Signature Version 4: a request is signed as it leaves, by botocore, over exactly what is sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from ..errors import Denied, Malformed
from ..http.field_names import header_key, param_key
from ..http.message import Origin, Request
from ..http.percent import decode
from ..http.query import target
from ..signing.secret import Secret
from .credentials import CredentialSlots, Fill, Leaving, Outgoing, Unsigned
from .policy import body_too_large_to_hold

UNSIGNED: Final = b"UNSIGNED-PAYLOAD"
_STREAMED: Final = b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"
"""A body in S3's own chunks, none of which is signed."""
_UNSIGNED_BODIES: Final = frozenset(("s3", "s3-outposts", "s3-object-lambda"))
"""Services that take a signature over the head alone; also those that sign a path as it is."""
_UNRESERVED: Final = "-_.~"
IN_HEADER: Final = re.compile("[!-~]{1,8192}")
"""The form of a key's id and of a session token."""
_VALUE: Final = re.compile(rb"[!-~](?:[ -~]*[!-~])?|")
"""What every server reads, trims and joins alike."""
_SCOPE: Final = re.compile(
    rb"[^/]{1,128}/[0-9]{8}/(?P<region>[a-z0-9-]{1,64})/(?P<service>[a-z0-9-]{1,64})/aws4_request"
)
_ALGORITHM: Final = b"AWS4-HMAC-SHA256 "
_CREDENTIAL: Final = re.compile(rb"\bCredential=([^, ]{1,300})")
_SIGNED_BESIDE: Final = frozenset((b"content-type", b"content-md5"))
"""Signed headers besides Host and X-Amz-…: what a proxy on the way may change is left out."""
_OURS: Final = frozenset((b"x-amz-date", b"x-amz-content-sha256", b"x-amz-security-token"))
_PARAMS: Final = frozenset(
    b"x-amz-algorithm x-amz-credential x-amz-date x-amz-expires x-amz-signedheaders x-amz-signature "
    b"x-amz-security-token x-amz-content-sha256 x-amz-region-set x-amz-s3session-token".split()
)
"""The parameters of a request that is signed in its query."""
_SLOTS: Final = CredentialSlots(frozenset((b"authorization", *_OURS)), _PARAMS)
NOT_IN_PIECES: Final = (
    "A body that the client signs piece by piece cannot be signed again: send it with an unsigned payload."
)
NO_PLAIN_VALUE: Final = "Headers that are signed for AWS have printable ASCII characters only."


class _Keys(NamedTuple):
    """What botocore's signers ask of credentials."""

    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return "_Keys(…)"


@dataclass(frozen=True, slots=True)
class SigV4Credential:
    """An access key that signs. The key's id is no secret: it is in each signed request in the clear."""

    access_key_id: Secret
    secret_access_key: Secret
    session_token: Secret | None
    service: str
    region: str
    client_scope: bool = False
    """True if service and region are those that the client has signed for, if it has."""
    max_body: int = 0
    """Most bytes of a body that is signed too, and so read before anything is sent."""

    @property
    def slots(self) -> CredentialSlots:
        return _SLOTS

    def inject(self, outgoing: Outgoing) -> Unsigned:
        return Unsigned(outgoing, self)

    def placeholder(self, outgoing: Outgoing, label: str) -> Outgoing:
        signed = b"AWS4-HMAC-SHA256 " + label.encode()
        return outgoing._replace(fields=(*outgoing.fields, (b"Authorization", signed)))

    def rendered(self) -> tuple[bytes, ...]:
        return tuple(
            [one.reveal().encode() for one in (self.secret_access_key, self.session_token) if one is not None]
        )

    def secrets(self) -> tuple[Secret, ...]:
        token = () if self.session_token is None else (self.session_token,)
        return (self.access_key_id, self.secret_access_key, *token)

    def filled(self, fill: Fill) -> SigV4Credential:
        token = fill(self.session_token) if self.session_token is not None else None
        return SigV4Credential(
            fill(self.access_key_id),
            fill(self.secret_access_key),
            token,
            self.service,
            self.region,
            self.client_scope,
            self.max_body,
        )

    def held(self, request: Request, plain: Outgoing, origin: Origin) -> int | None:
        """Return how large a body may be that has to be read first; None if it may stream.

        Raises Denied for what no signature can cover, before anything is counted.
        """
        for name, value in plain.fields:
            if _is_signed(name) and not _VALUE.fullmatch(value.strip(b" \t")):
                raise Malformed(
                    f"{header_key(name).decode()} holds more than printable ASCII", NO_PLAIN_VALUE
                )
        _check_parameters(plain.query)
        service, _ = self._scope(request)
        streams = service in _UNSIGNED_BODIES and origin.scheme == "https"
        if _is_in_pieces(request) and not (streams and _claimed(request) == _STREAMED):
            raise Malformed("the body is in chunks that the client has signed", NOT_IN_PIECES)
        if streams:
            return None
        announced = [int(value) for name, value in request.fields if name.lower() == b"content-length"]
        if max(announced, default=0) > self.max_body:
            raise body_too_large_to_hold(self.max_body)
        return self.max_body

    def sign(self, outgoing: Outgoing, leaving: Leaving) -> Outgoing:
        """Return the request with its signature, which is good for a few minutes."""
        service, region = self._scope(leaving.request)
        path, query = _escaped(outgoing.path), _escaped_query(outgoing.query)
        stamp = datetime.fromtimestamp(leaving.now, UTC).strftime("%Y%m%dT%H%M%SZ")
        added = [(b"X-Amz-Date", stamp.encode()), (b"X-Amz-Content-Sha256", self._payload(leaving, service))]
        if self.session_token is not None:
            added.append((b"X-Amz-Security-Token", _in_header(self.session_token)))
        fields = (*[field for field in outgoing.fields if not _is_look_alike(field[0])], *added)
        signer = _signer(service)(self._keys(), service, region)
        request = _botocore_request(
            leaving.method.decode("ascii"), f"{leaving.origin}{target(path, query).decode('ascii')}"
        )
        request.headers["host"] = leaving.origin.authority
        for name, value in fields:
            if _is_signed(name):
                request.headers[name.decode("ascii")] = value.decode("ascii")
        request.context["timestamp"] = stamp
        text = signer.string_to_sign(request, signer.canonical_request(request))
        signed = (
            f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, "
            f"SignedHeaders={signer.signed_headers(signer.headers_to_sign(request))}, "
            f"Signature={signer.signature(text, request)}"
        )
        return Outgoing(path, query, (*fields, (b"Authorization", signed.encode("ascii"))))

    def _payload(self, leaving: Leaving, service: str) -> bytes:
        if leaving.body_hash is not None:
            return leaving.body_hash
        if service not in _UNSIGNED_BODIES or leaving.origin.scheme != "https":
            raise LookupError("the body of this request was not read")
        return _STREAMED if _claimed(leaving.request) == _STREAMED else UNSIGNED

    def _scope(self, request: Request) -> tuple[str, str]:
        """Return the service and the region that are signed for."""
        if self.client_scope and (found := _scope_of_client(request)) is not None:
            return found
        return self.service, self.region

    def _keys(self) -> _Keys:
        return _Keys(_in_header(self.access_key_id).decode("ascii"), self.secret_access_key.reveal())


def _in_header(secret: Secret) -> bytes:
    """Return a secret as a header carries it. Raises Denied: a program may print anything."""
    text = secret.reveal()
    if not IN_HEADER.fullmatch(text):
        raise Denied("upstream", "the credential does not fit into a header")
    return text.encode("ascii")


def is_installed() -> bool:
    """Return whether botocore is there, and import it: the first request must not wait for that."""
    try:
        import botocore.auth
        import botocore.awsrequest  # noqa: F401
    except ImportError:
        return False
    return True


def _botocore_request(method: str, url: str) -> Any:
    from botocore.awsrequest import AWSRequest

    return AWSRequest(method, url)


@lru_cache(maxsize=64)
def _signer(service: str) -> Any:
    """Return the class that signs for a service: S3 signs paths as they are, others escape them again."""
    from botocore.auth import S3SigV4Auth, SigV4Auth

    return S3SigV4Auth if service in _UNSIGNED_BODIES else SigV4Auth


def _is_signed(name: bytes) -> bool:
    key = name.lower()
    return key.startswith(b"x-amz-") or key in _SIGNED_BESIDE


def _is_look_alike(name: bytes) -> bool:
    """Return whether some server may read a header as one of AWS's that was not signed."""
    return header_key(name).startswith(b"x-amz-") and not name.lower().startswith(b"x-amz-")


def _escaped(path: bytes) -> bytes:
    """Return a path with all but unreserved characters escaped, as AWS's own clients send it.

    Servers that escape what they were sent, and those that decode it first, then make the same of it.
    """
    return b"/".join([_escaped_once(part) for part in path.split(b"/")])


def _escaped_query(query: bytes | None) -> bytes | None:
    """Return a query in which no server can read a name or value in two ways: a + is a blank in a form."""
    if query is None:
        return None
    pairs = [piece.partition(b"=") for piece in query.split(b"&") if piece]
    blank = [(name.replace(b"+", b" "), equals, value.replace(b"+", b" ")) for name, equals, value in pairs]
    return b"&".join([_escaped_once(name) + equals + _escaped_once(value) for name, equals, value in blank])


def _escaped_once(text: bytes) -> bytes:
    return quote(decode(text), safe=_UNRESERVED).encode("ascii")


def _check_parameters(query: bytes | None) -> None:
    """Refuse a parameter that names a second object: S3 takes some headers as parameters, too."""
    for piece in (query or b"").split(b"&"):
        key = param_key(piece.partition(b"=")[0])
        if key.startswith(b"x-amz-copy-source"):
            raise Malformed(f"the parameter {key.decode('ascii', 'replace')} names a second path")


def _claimed(request: Request) -> bytes:
    """Return what the client says of its body, if it says so once."""
    said = [value.strip() for name, value in request.fields if header_key(name) == b"x-amz-content-sha256"]
    return said[0] if len(said) == 1 else b""


def _is_in_pieces(request: Request) -> bool:
    """Return whether a body is coded in S3's own chunks, which may have signatures."""
    codings = [value.lower() for name, value in request.fields if header_key(name) == b"content-encoding"]
    claims = [value.strip() for name, value in request.fields if header_key(name) == b"x-amz-content-sha256"]
    return any(b"aws-chunked" in value for value in codings) or any(
        value.upper().startswith(b"STREAMING-") for value in claims
    )


def _scope_of_client(request: Request) -> tuple[str, str] | None:
    """Return the service and the region that the client has signed for; None if it says none, or two."""
    found = {
        credential
        for name, value in request.fields
        if name.lower() == b"authorization"
        for credential in _CREDENTIAL.findall(value.partition(_ALGORITHM)[2])
    }
    for piece in (request.query or b"").split(b"&"):
        name, _, value = piece.partition(b"=")
        if param_key(name) == b"x-amz-credential":
            found.add(decode(value))
    if len(found) != 1:
        return None
    scope = _SCOPE.fullmatch(found.pop())
    return None if scope is None else (scope["service"].decode(), scope["region"].decode())
