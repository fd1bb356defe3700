"""`presign explain` and `verify` for the holder of a presign, who has no configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..config.secret_sources import resolve
from ..explain.explanation import Explanation
from ..explain.holder import explain_to_holder
from ..explain.input.urls import UnreadableUrl
from .output import Output, noted
from .paste import presented_by
from .place import Failure, Place
from .signing_key import doubts_about, secret_source_of


def judged(
    place: Place,
    output: Output,
    given: str,
    now: int,
    secret_env: str | None,
    secret_file: str | None,
    connection: str | None,
    *,
    wanted: dict[str, str | None],
) -> tuple[Explanation, dict[str, Any], list[str]]:
    """Return the explanation, more of it for JSON, and more lines for people. Raises Failure, UsageError."""
    source = secret_source_of(secret_env, secret_file)
    if source is None and connection is not None:
        raise click.UsageError("--connection needs the signing secret: --secret-env or --secret-file")
    secret = resolve(source, Path.cwd(), place.environ) if source is not None else None
    if source is not None and secret is not None:
        output.note(*doubts_about(secret, source))
    presented = presented_by(given, **wanted)
    try:
        held = explain_to_holder(presented.request, now, secret, connection)
    except UnreadableUrl as error:
        raise Failure(str(error)) from None
    assumed, unknown = list(presented.assumed), list(held.unknown)
    lines = [*noted("Assumed:", assumed), *noted("Only the gateway can say:", unknown)]
    return held.explanation, {"presign": held.says, "unknown": unknown, "assumed": assumed}, lines
