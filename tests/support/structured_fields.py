"""Structured fields, as RFC 9651 has them, read without the product."""

from __future__ import annotations

import re

_ITEM = re.compile(r'"([ !#-\[\]-~]*)"((?:;[a-z*][a-z0-9_.*-]*=(?:-?[0-9]{1,15}|"[ !#-\[\]-~]*"))*)')
_PARAMETER = re.compile(r';([a-z*][a-z0-9_.*-]*)=(-?[0-9]{1,15}|"[ !#-\[\]-~]*")')


def parsed(text: str) -> dict[str, dict[str, int | str]]:
    """RFC 9651: a list of strings with parameters that are integers or strings. Raises ValueError."""
    found: dict[str, dict[str, int | str]] = {}
    for member in text.split(", "):
        match = _ITEM.fullmatch(member)
        if match is None or match[1] in found:
            raise ValueError(member)
        found[match[1]] = {
            name: value[1:-1] if value.startswith('"') else int(value)
            for name, value in _PARAMETER.findall(match[2])
        }
    return found
