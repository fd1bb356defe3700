"""The ceiling of a connection: the most that its presigns may permit."""

from __future__ import annotations

from typing import NamedTuple

from ..http.patterns import Pattern, pattern
from ..signing.grammar import ANY


class Ceiling(NamedTuple):
    """The limits that the owner sets for all presigns of a connection. A signature can only narrow them."""

    methods: tuple[str, ...] = ANY
    paths: tuple[Pattern, ...] = (pattern("*"),)
    max_lifetime: int | None = None
    allow_no_expiry: bool = True
    head_as_get: bool = False
    allow_encoded_slash: bool = False
    upstreams: tuple[str, ...] = ()
    """The names of its upstreams besides the default one."""
