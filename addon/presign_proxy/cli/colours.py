"""Colours by meaning, and whether to use them: on a terminal only, unless the environment says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

MEANINGS: Final[dict[str, dict[str, Any]]] = {
    "error": {"fg": "red", "bold": True},
    "warning": {"fg": "yellow", "bold": True},
    "granted": {"fg": "green"},
    "refused": {"fg": "red"},
    "secret": {"fg": "magenta", "bold": True},  # something to keep, which is shown only once
    "heading": {"bold": True},
}
"""All styles of the command. A colour never says what the text does not say too."""


def styled(text: str, meaning: str) -> str:
    """Return the text in the style of a meaning. click removes it in print where no colour is wanted."""
    return click.style(text, **MEANINGS[meaning])


def wanted(environ: Mapping[str, str]) -> bool | None:
    """Return whether to use colours; None to use them on terminals.

    NO_COLOR (https://no-color.org) wins. CLICOLOR_FORCE and FORCE_COLOR ask for colours also in a pipe.
    """
    if environ.get("NO_COLOR"):
        return False
    for name in ("CLICOLOR_FORCE", "FORCE_COLOR"):
        if (forced := environ.get(name)) is not None and forced != "":
            return forced.lower() not in ("0", "false")
    if environ.get("CLICOLOR") == "0" or environ.get("TERM") == "dumb":
        return False
    return None
