"""The ceiling of a connection."""

from __future__ import annotations

from dataclasses import dataclass

from .grammar import ANY
from .paths import Pattern, pattern


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What a signature can only narrow."""

    methods: tuple[str, ...] = ANY
    paths: tuple[Pattern, ...] = (pattern("*"),)
    max_lifetime: int | None = None
    allow_no_expiry: bool = True
    head_as_get: bool = False
    allow_encoded_slash: bool = False
