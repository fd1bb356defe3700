"""Signature Version 4 as a server checks it, written from AWS's documentation and from nothing of ours.

What a server may read in two ways is no request that it can check: then `Unverifiable` is raised.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from typing import NamedTuple

UNSIGNED = "UNSIGNED-PAYLOAD"
PIECES = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
FOR_S3 = frozenset(("s3", "s3-outposts", "s3-object-lambda"))
WINDOW = 300
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/, ]+)/(?P<day>\d{8})/(?P<region>[^/, ]+)/(?P<service>[^/, ]+)"
    r"/aws4_request, ?SignedHeaders=(?P<names>[^, ]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


class Unverifiable(AssertionError):
    """The signature is missing, wrong, or not over what was sent."""


class Verified(NamedTuple):
    service: str
    region: str
    signed: frozenset[str]
    payload: str


class Sent(NamedTuple):
    """A request as it came over the wire."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes = b""


def verify(
    request: Sent,
    keys: dict[str, str],
    now: float,
    *,
    strict: bool = True,
    https: bool = True,
    normalise: bool = True,
) -> Verified:
    """Check a request.

    Args:
        keys: secret access keys by their ids.
        strict: demand what S3 and we demand beyond the algorithm: each X-Amz-… signed, a payload hash.
        https: whether it came over TLS; S3 takes a body without hash only there.
        normalise: remove dot segments, as all services but S3 do.
    """
    authorization = values(request, "authorization")
    if len(authorization) != 1:
        raise Unverifiable(f"{len(authorization)} Authorization fields")
    found = _AUTHORIZATION.fullmatch(authorization[0])
    if found is None:
        raise Unverifiable("the Authorization field is no signature")
    stamps = values(request, "x-amz-date")
    if len(stamps) != 1 or not re.fullmatch(r"\d{8}T\d{6}Z", stamps[0]) or stamps[0][:8] != found["day"]:
        raise Unverifiable("there is not one X-Amz-Date, of the day of the scope")
    at = datetime.strptime(stamps[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    if abs(now - at) > WINDOW:
        raise Unverifiable(f"signed {now - at:.0f} s ago")
    names = found["names"].split(";")
    if names != sorted(set(names)) or "host" not in names:
        raise Unverifiable("SignedHeaders is not sorted, or is without host")
    hashes = values(request, "x-amz-content-sha256")
    payload = hashes[0] if len(hashes) == 1 else hashlib.sha256(request.body).hexdigest()
    if strict:
        _check_strictly(request, names, hashes, found["service"], https=https)
    path, _, query = request.target.partition("?")
    canonical = "\n".join(
        [
            request.method,
            _path(path, found["service"], normalise=normalise),
            _query(query, strict=strict),
            *[f"{name}:{_header(request, name)}" for name in names],
            "",
            ";".join(names),
            payload,
        ]
    )
    scope = f"{found['day']}/{found['region']}/{found['service']}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamps[0]}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{keys[found['id']]}".encode()
    for part in (found["day"], found["region"], found["service"], "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    if hmac.digest(key, text.encode(), "sha256").hex() != found["signature"]:
        raise Unverifiable(f"the signature is not that of:\n{canonical}")
    return Verified(found["service"], found["region"], frozenset(names), payload)


def values(request: Sent, name: str) -> list[str]:
    return [value for key, value in request.fields if key.lower() == name]


def _check_strictly(request: Sent, names: list[str], hashes: list[str], service: str, *, https: bool) -> None:
    if len(values(request, "host")) != 1:
        raise Unverifiable("there is not one Host")
    if len(hashes) != 1:
        raise Unverifiable("there is not one hash of the payload")
    for key, value in request.fields:
        if key.lower().replace("_", "-").startswith("x-amz-") and key.lower() not in names:
            raise Unverifiable(f"{key} is not signed")
        if key.lower() in names and not re.fullmatch("[ -~]*", value):
            raise Unverifiable(f"{key} holds what servers read differently")
    body = hashlib.sha256(request.body).hexdigest()
    free = (UNSIGNED, PIECES) if service in FOR_S3 and https else ()
    if hashes[0] != body and hashes[0] not in free:
        raise Unverifiable("the body is not the one that was hashed")


def encode(raw: bytes) -> str:
    return "".join(chr(octet) if octet in _UNRESERVED else f"%{octet:02X}" for octet in raw)


def decode(text: str) -> bytes:
    raw = text.encode("latin-1")
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes.fromhex(found[1].decode()), raw)


def _path(path: str, service: str, *, normalise: bool) -> str:
    """S3 decodes a path and encodes it once; other services encode what they were sent."""
    if service in FOR_S3:
        return "/".join(encode(decode(part)) for part in path.split("/"))
    if normalise:
        kept: list[str] = []
        for part in path.split("/"):
            if part == "..":
                kept = kept[:-1]
            elif part not in ("", "."):
                kept.append(part)
        end = "/" if path.endswith(("/", "/.", "/..")) and kept else ""
        path = "/" + "/".join(kept) + end
    return "/".join(encode(part.encode("latin-1")) for part in path.split("/"))


def _query(query: str, *, strict: bool) -> str:
    if strict and "+" in query:
        raise Unverifiable("a + in the query is a blank to some servers")
    pairs = [piece.partition("=")[::2] for piece in query.split("&") if piece]
    both = sorted((encode(decode(name)), encode(decode(value))) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in both)


def _header(request: Sent, name: str) -> str:
    found = [re.sub(" +", " ", value.strip()) for value in values(request, name)]
    if not found:
        raise Unverifiable(f"{name} is signed and was not sent")
    return ",".join(found)
