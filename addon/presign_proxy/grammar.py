"""The grammar of what is signed, in one place: what signs, what verifies and what configures must agree."""

from __future__ import annotations

from typing import Final

CONNECTION_ID: Final = r"[A-Za-z0-9_-]{1,64}"
"""Of a connection or a project."""
KEY_ID: Final = r"[A-Za-z0-9_.-]{1,64}"
"""Of a signing key, within its connection."""
PRESIGN_ID: Final = r"[A-Za-z0-9_-]{1,64}"
"""The name that a signer gives a presign, within its connection."""
METHOD: Final = r"[A-Z][A-Z0-9_-]{0,31}"
UNIX_TIME: Final = r"(?:0|[1-9][0-9]{0,11})"
"""Seconds; one spelling for each."""
NUMBER: Final = r"[1-9][0-9]{0,11}"
"""From 1 on; every parser of JSON and every shell can hold it."""
SIGNATURE: Final = r"[0-9a-f]{64}"
EXTENSION: Final = r"[A-Za-z0-9]{1,16}"
"""The format of a source URL."""
CONTROL: Final = r"[\x00-\x1f\x7f-\x9f]"
"""C0, DEL and C1."""
