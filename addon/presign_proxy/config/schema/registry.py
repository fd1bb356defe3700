"""The schema of the registry's file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...signing import grammar
from .connections import ConnectionEntry
from .values import (
    ConnectionId,
    Instant,
    Strict,
)

_SignatureId = Annotated[str, Field(pattern=f"^{grammar.SIGNATURE_ID}$")]


_KeyName = Annotated[str, Field(pattern=rf"^{grammar.CONNECTION_ID}/{grammar.KEY_ID}$")]


_PresignName = Annotated[str, Field(pattern=rf"^{grammar.CONNECTION_ID}/{grammar.PRESIGN_ID}$")]


_OneOrAll = Annotated[str, Field(pattern=rf"^(\*|{grammar.CONNECTION_ID})$")]


class RevokedUrl(Strict):
    """One revoked URL. At `expires` (Unix time) it stops by itself, so the entry may then be deleted."""

    at: Instant
    expires: int | None = None


class RevokedNow(Strict):
    """What `--now` was said of: requests that are under way are ended, too. The values are as in `revoked`.

    What stands here revokes nothing by itself. A connection that is disabled so stands here, too.
    """

    urls: dict[_SignatureId, Instant] = Field(default_factory=dict)
    keys: dict[_KeyName, Instant] = Field(default_factory=dict)
    ids: dict[_PresignName, Instant] = Field(default_factory=dict)
    connections: dict[ConnectionId, Instant] = Field(default_factory=dict)
    added_before: dict[_OneOrAll, Instant] = Field(default_factory=dict)


class Revoked(Strict):
    """Everything that is revoked, and since when. It applies to the connections of both files."""

    urls: dict[_SignatureId, RevokedUrl] = Field(default_factory=dict)
    keys: dict[_KeyName, Instant] = Field(default_factory=dict)
    ids: dict[_PresignName, Instant] = Field(default_factory=dict)
    connections: dict[ConnectionId, Instant] = Field(default_factory=dict)
    added_before: dict[_OneOrAll, Instant] = Field(default_factory=dict)
    now: RevokedNow = RevokedNow()


class RegistryFile(Strict):
    """A registry: connections in a file of their own, and revocations."""

    connections: dict[ConnectionId, ConnectionEntry] = Field(default_factory=dict)
    revoked: Revoked = Revoked()
