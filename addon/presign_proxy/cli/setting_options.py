"""The options of `connections add` for `connections set`: other words for the settings that change most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import click

_OPTIONS: Final = {
    "upstream": ("URL", "upstream", "upstream="),
    "methods": ("M,…", "allow.methods", "allow.methods="),
    "paths": ("P,…", "allow.paths", "allow.paths="),
    "max-lifetime": ("7d", "max_lifetime", "max_lifetime="),
    "limit": ("60/minute", "limits: all of them; may be repeated", "limits="),
    "max-uses": ("N", "max_uses", "max_uses="),
    "header": ("NAME=VALUE", "default_headers.NAME", "default_headers."),
    "origin": ("URL,…", "allowed_origins", "allowed_origins="),
    "format": ("EXT,…", "formats", "formats="),
}
"""The metavariable of each option, what its help says, and what the setting begins with."""


def setting_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options, which fill parameters of their names."""
    for name, (metavar, key, _) in reversed(_OPTIONS.items()):
        function = click.option(f"--{name}", metavar=metavar, multiple=True, help=f"The same as {key}.")(
            function
        )
    return function


def settings_of(given: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Yield KEY=VALUE for each option that was given."""
    for name, (_, _, start) in _OPTIONS.items():
        values = given[name.replace("-", "_")]
        if name == "header":
            yield from (start + value for value in values)
        elif values:
            yield start + ",".join(values)
