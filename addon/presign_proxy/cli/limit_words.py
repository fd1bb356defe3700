"""A limit as it is typed: `60/minute`, `60/minute burst 10 per url`, `quota 1000/day`, `concurrency 20`."""

from __future__ import annotations

import re
from typing import Any, Final

import click

_WORDS: Final = re.compile(r"(?:(rate|quota|concurrency) )?([0-9]{1,12}(?:/[a-z]+)?)((?: [a-z]+ [a-z0-9]+)*)")
_FORMS: Final = "60/minute, 60/minute burst 10 per url, quota 1000/day, 1000/month or concurrency 20"


def limit_of(text: str) -> dict[str, Any]:
    """Return a limit as an entry of `limits`. The schema judges its numbers and names. Raises UsageError.

    Without a word before it, `N/month` is a quota, because no rate has months; any other is a rate.
    """
    match = _WORDS.fullmatch(" ".join(text.split()).lower())
    if match is None:
        raise click.UsageError(f"a limit is {_FORMS}")
    kind, value, rest = match[1], match[2], match[3].split()
    if kind is None and "/" not in value:
        raise click.UsageError(f"a limit is {_FORMS}")
    kind = kind or ("quota" if value.endswith("/month") else "rate")
    found: dict[str, Any] = {kind: int(value) if kind == "concurrency" and value.isdigit() else value}
    for word, given in zip(rest[::2], rest[1::2], strict=True):
        if word not in ("burst", "per") or word in found:
            raise click.UsageError(f"a limit is {_FORMS}")
        found[word] = int(given) if given.isdigit() else given
    return found
