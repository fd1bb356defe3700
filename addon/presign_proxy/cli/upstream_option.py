"""The option `--upstream`: what is wrong with it is said before the user types the key."""

from __future__ import annotations

from typing import Any

import click

from ..config.build_connections import parse_upstream
from ..http.hosts import is_loopback


def check_upstream(given: str | None, data: dict[str, Any]) -> None:
    """Refuse an upstream that would not load, in the words of the command line. Raises UsageError.

    Args:
        given: the value of the option, if there is one.
        data: the entry of the connection, with its settings.
    """
    if not given:
        return
    upstream, problem = parse_upstream(given)
    if upstream is None:
        raise click.UsageError(f"--upstream {problem}")
    origin = upstream.origin
    if origin.scheme != "https" and not is_loopback(origin.host) and not data.get("insecure_upstream"):
        raise click.UsageError(
            "--upstream is not https: the network could read the credential (--insecure-upstream allows it)"
        )
