"""The ceiling of a connection."""

from __future__ import annotations

from typing import NamedTuple

from ..http.paths import Pattern, pattern
from ..signing.grammar import ANY


class Ceiling(NamedTuple):
    """What a signature can only narrow."""

    methods: tuple[str, ...] = ANY
    paths: tuple[Pattern, ...] = (pattern("*"),)
    max_lifetime: int | None = None
    allow_no_expiry: bool = True
    head_as_get: bool = False
    allow_encoded_slash: bool = False
