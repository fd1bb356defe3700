"""Which header fields of a client an upstream may get: none that is removed, and none that was not sent."""

import re
from collections.abc import Collection

from support.verifier import Granted, Pairs

Field = tuple[str, str]
"""A name in lower case with `-` for `_`, and a value."""

NEVER_UPSTREAM = re.compile(
    "proxy-authorization|api-key|x-goog-api-key|private-token|cookie|forwarded|x-forwarded-.*|x-real-ip|"
    ".*-connecting-ip|connection|keep-alive|proxy-connection|te|trailer|upgrade|http2-settings|expect|"
    "x-original-.*|x-rewrite-.*|x-http-method-override|x-method-override|x-presign.*"
)
"""SPEC §4, *removed*, `_` read as `-`."""


def named(fields: Pairs) -> list[Field]:
    return [
        (name.decode("latin-1").lower().replace("_", "-"), value.decode("latin-1")) for name, value in fields
    ]


def check_passed(
    fields: list[Field], grant: Granted, body: bytes, ours: Collection[Field], *, folded: bool = False
) -> None:
    """Every field that arrived frames the body, is one of `ours`, or was sent by the client and may pass.

    Args:
        folded: several lines of one name are joined, as CGI does.
    """
    sent = named(grant.sent)
    nominated = {
        token.strip().lower().replace("_", "-")
        for name, value in sent
        if name == "connection"
        for token in value.split(",")
    }
    for name, value in fields:
        if (name, value) in ours or name in ("host", "accept-encoding"):
            continue
        if name in ("content-length", "transfer-encoding"):
            assert value in (str(len(body)), "chunked") or int(value) == len(body)
            continue
        assert not NEVER_UPSTREAM.fullmatch(name), name
        assert name not in nominated, name
        if folded:
            # Joined from several lines, each of which may have been a list itself.
            sent_parts = {part.strip() for key, text in sent if key == name for part in text.split(",")}
            assert all(part.strip() in sent_parts for part in value.split(",")), (name, value)
        else:
            assert (name, value) in sent, (name, value)
