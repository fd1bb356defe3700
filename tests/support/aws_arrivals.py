"""What an upstream of AWS may get for a granted request: signed by us, for our scope, as it was asked."""

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from support.passed_fields import check_passed
from support.seen import Seen
from support.sigv4 import Sent, Unverifiable, verify
from support.verifier import TOKEN, Asked, Granted, folded, folded_name

CREDENTIAL_FIELDS = frozenset(
    f"x-amz-{rest}"
    for rest in (
        *(
            "date",
            "content-sha256",
            "security-token",
            "signature",
            "credential",
            "algorithm",
            "signedheaders",
        ),
        *("expires", "region-set", "s3session-token"),
    )
)
"""A client's signature, its scope, its token: as fields, and as parameters of a presigned URL."""
_SCOPE = re.compile(
    rb"[^/\s]+/[0-9]{8}/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)/aws4_request(?![a-z0-9_/%-])"
)


def arrived(seen: Seen) -> Sent:
    """A request by its bytes; of a head that can be read in two ways there is none."""
    start, *lines = seen.raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
    words = re.fullmatch(rb"([A-Z][A-Z0-9_-]*) (/[!-~]*) HTTP/1\.1", start)
    pairs = [re.fullmatch(rb"(%s): ?([^\x00-\x08\x0a-\x1f\x7f]*)" % TOKEN, line) for line in lines]
    assert words, start
    fields = []
    for pair, line in zip(pairs, lines, strict=True):
        assert pair, line
        fields.append((pair[1].decode("latin-1"), pair[2].strip(b" \t").decode("latin-1")))
    return Sent(words[1].decode(), words[2].decode(), fields, seen.body or b"")


def scopes(auth: Mapping[str, Any], asked: Asked) -> set[tuple[str, str]]:
    """Services and regions that may be signed for."""
    found = {(auth["service"], auth["region"])}
    if auth.get("client_scope"):
        text = b"\n".join([unquote_to_bytes(asked.target), *[value for _, value in asked.fields]])
        found |= {(one["service"].decode(), one["region"].decode()) for one in _SCOPE.finditer(text)}
    return found


def check_signed(sent: Sent, auth: Mapping[str, Any], allowed: set[tuple[str, str]], *, https: bool) -> None:
    """One good signature, with the connection's key, for a scope that is allowed."""
    try:
        found = verify(sent, {auth["access_key_id"]: auth["secret_access_key"]}, time.time(), https=https)
    except KeyError as error:
        raise Unverifiable(f"the key of somebody else: {error}") from None
    assert found[:2] in allowed, found
    names = [(name.lower(), re.sub("[^a-z0-9]+", "-", name.lower())) for name, _ in sent.fields]
    for name, key in names:
        is_signed = key.startswith("x-amz-") or key in ("content-type", "content-md5")
        assert not is_signed or name in found.signed, f"{name} is not signed"
    once = {"authorization": 1, "host": 1, "x-amz-date": 1, "x-amz-content-sha256": 1}
    once["x-amz-security-token"] = int("session_token" in auth)
    for key in CREDENTIAL_FIELDS | once.keys():
        assert [one for _, one in names].count(key) == once.get(key, 0), key
    tokens = {value for name, value in sent.fields if name.lower() == "x-amz-security-token"}
    assert tokens <= {auth.get("session_token")}, tokens


def check_asked(sent: Sent, auth: Mapping[str, Any], grant: Granted) -> None:
    """Everything else is what the client was granted, and nothing of what the gateway removes is left."""
    fields = [(name.lower().replace("_", "-"), value) for name, value in sent.fields]
    ours = [field for field in fields if field[0] in CREDENTIAL_FIELDS or field[0] == "authorization"]
    check_passed(fields, grant, sent.body, ours)
    assert ("accept-encoding", "identity") in fields
    assert not any("x-amz-copy-source" in one for one in (folded(sent.target.encode()), *dict(fields))), sent
    whole = "\n".join([sent.target, *[f"{name}: {value}" for name, value in sent.fields]])
    assert auth["secret_access_key"] not in whole
    assert not re.search(r"(?i)x[-_]presign|ps1_[\w-]+\.[0-9a-f]{64}", whole), whole


def is_it(sent: Sent, grant: Granted) -> bool:
    """Whether this is the request that was granted, before it was signed."""
    hosts = [value for name, value in sent.fields if name.lower() == "host"]
    return (
        (sent.method.encode(), hosts, sent.body) == (grant.method, [grant.host], grant.body)
        and _segments(sent.target.encode()) == _segments(grant.target)
        and _are_parameters_of(sent.target.encode(), grant.target)
    )


def _segments(target: bytes) -> list[bytes]:
    return [unquote_to_bytes(part) for part in target.partition(b"?")[0].split(b"/")]


def _are_parameters_of(sent: bytes, granted: bytes) -> bool:
    """In order; of those that were granted, only such as could be a signature may be missing."""
    left = [piece for piece in sent.partition(b"?")[2].split(b"&") if piece]
    for piece in filter(None, granted.partition(b"?")[2].split(b"&")):
        if left and _plain(left[0]) == _plain(piece) and folded_name(piece) not in CREDENTIAL_FIELDS:
            left.pop(0)
        elif "x-amz-" not in folded(piece):
            return False
    return not left


def _plain(piece: bytes) -> tuple[bytes, ...]:
    return tuple(unquote_to_bytes(part.replace(b"+", b" ")) for part in piece.partition(b"="))
