"""Canonical strings: the exact bytes that are signed."""

from __future__ import annotations

from typing import Final

from .signed_policy import PolicyText, lines_of

PRESIGN_LABEL: Final = "PRESIGN-HMAC-SHA256"
POLICY_LABEL: Final = "PRESIGN-HMAC-SHA256-2"


def presign(connection_id: str, expires: str, methods: str, paths: str) -> bytes:
    """Return the canonical string of scheme presign (presign.click, Signing Algorithm): five lines.

    There is no newline at the end. The caller has refused control characters in every value: with a newline
    in a value, two different grants could have the same canonical string.
    """
    return "\n".join((PRESIGN_LABEL, connection_id, expires, methods, paths)).encode("utf-8")


def policy(connection_id: str, expires: str, methods: str, paths: str, written: PolicyText) -> bytes:
    """Return the canonical string of version 2: five lines and one for each field of the policy.

    There is no newline at the end. The first line differs from that of version 1, so no signature is valid
    for both. No value contains a newline, so no value can look like the line of a field.
    """
    lines = (POLICY_LABEL, connection_id, expires, methods, paths, *lines_of(written))
    return "\n".join(lines).encode("utf-8")


def source(project_key: str, src_url: str, exp: str) -> bytes:
    """Return the signed string of scheme source (Motioness, URL shape): `{projectKey}:{srcUrl}:{exp}`.

    It is unambiguous. A project key contains no colon, and `exp` is all digits. So the first and the last
    colon are the separators, whatever the URL contains.
    """
    return f"{project_key}:{src_url}:{exp}".encode()
