"""The exact bytes that are signed."""

from __future__ import annotations

from typing import Final

from .signed_policy import PolicyText

PRESIGN_LABEL: Final = "PRESIGN-HMAC-SHA256"
POLICY_LABEL: Final = "PRESIGN-HMAC-SHA256-2"


def presign(connection_id: str, expires: str, methods: str, paths: str) -> bytes:
    """Canonical string of scheme presign (presign.click, Signing Algorithm): five lines, no last newline.

    The caller has refused control characters in every value: with a newline in one, two different
    grants would have one canonical string.
    """
    return "\n".join((PRESIGN_LABEL, connection_id, expires, methods, paths)).encode("utf-8")


def policy(connection_id: str, expires: str, methods: str, paths: str, written: PolicyText) -> bytes:
    """Canonical string of version 2: eleven lines, the six of the policy empty where absent, no last newline.

    Its first line differs from that of version 1, so no signature is good for both.
    """
    return "\n".join((POLICY_LABEL, connection_id, expires, methods, paths, *written)).encode("utf-8")


def source(project_key: str, src_url: str, exp: str) -> bytes:
    """Signed string of scheme source (Motioness, URL shape): `{projectKey}:{srcUrl}:{exp}`.

    Unambiguous: a project key holds no colon, and `exp` is all digits, so the first and the last colon
    are the separators whatever the URL holds.
    """
    return f"{project_key}:{src_url}:{exp}".encode()
