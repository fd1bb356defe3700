"""The checks whether a verified presign and its connection permit a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import Denied
from ..http.patterns import Pattern, compared, pattern
from ..regexes import late
from ..signing import grammar
from ..signing.grammar import ANY
from ..signing.signed_policy import Terms
from .ceiling import Ceiling

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..http.message import Fields
    from ..http.networks import Address

_METHOD = late(grammar.METHOD)
NEVER: Final = frozenset({"CONNECT", "TRACE", "TRACK"})
"""Methods that no wildcard grants: a tunnel, and two that echo the credential."""
_USUAL: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Common methods, which are well-formed and not in `NEVER`."""
_OF_CONNECTION: Final = "The connection itself does not allow the {} of this request, whatever was signed."


def check_expiry(expires: int, now: int) -> None:
    """Raise Denied after the expiry. 0 is never.

    `now == expires` is still valid (Motioness: rejects once the clock passes this).
    """
    if expires and now > expires:
        raise Denied("expired", f"expired {now - expires} s ago")


def check_begun(terms: Terms, now: int) -> None:
    """Raise Denied before `not_before`. `now == not_before` is valid."""
    if terms.not_before is not None and now < terms.not_before:
        raise Denied("not_yet_valid", f"not valid for another {terms.not_before - now} s")


def check_client(terms: Terms, address: Address | None) -> None:
    """Raise Denied unless the address is in a signed network. An unknown address is in none.

    Only for terms that list networks.
    """
    if address is None:
        raise Denied("client_not_allowed", "the client's address is unknown")
    from ..http.networks import is_in  # slow to import, and a signer does not need it

    if not is_in(address, terms.clients):
        raise Denied("client_not_allowed", "it comes from an address outside of the signed networks")


def check_body(signed: int, fields: Fields) -> None:
    """Raise Denied if Content-Length exceeds the signed size. A body without it is counted as it arrives."""
    announced = [int(value) for name, value in fields if name.lower() == b"content-length"]
    if max(announced, default=0) > signed:
        raise body_too_large(signed)


def body_too_large(signed: int) -> Denied:
    sentence = f"The body of this request is larger than the {signed} bytes that were signed."
    return Denied("too_large", f"the body is larger than the signed {signed} bytes", 413, sentence=sentence)


def body_too_large_to_hold(most: int) -> Denied:
    """Return the refusal of a body that has to be read whole before anything is sent."""
    sentence = f"The body of this request is larger than the {most} bytes that the gateway signs."
    return Denied(
        "too_large", f"the body is larger than the {most} bytes that are held", 413, sentence=sentence
    )


def body_too_late(seconds: int) -> Denied:
    return Denied("timeout", f"nothing more of the body came for {seconds} seconds")


def check_lifetime(expires: int, now: int, ceiling: Ceiling) -> None:
    if expires == 0:
        if not ceiling.allow_no_expiry or ceiling.max_lifetime is not None:
            raise Denied("no_expiry_not_allowed", "the presign never expires, the connection forbids it")
    elif ceiling.max_lifetime is not None and expires - now > ceiling.max_lifetime:
        raise Denied("lifetime_too_long", f"{expires - now} s left, {ceiling.max_lifetime} s allowed")


def check_method(method: bytes, signed: tuple[str, ...], ceiling: Ceiling) -> None:
    """Raise Denied unless signature and connection allow the method.

    Methods are case-sensitive. GET does not imply HEAD, unless `head_as_get` is set.
    """
    name = method.decode("ascii", "replace")
    if name not in _USUAL and (name in NEVER or not _METHOD.fullmatch(name)):
        raise Denied("method_not_allowed", "this method is never forwarded")
    as_get = name == "HEAD" and ceiling.head_as_get
    for granted, whose in ((signed, "the signature"), (ceiling.methods, "the connection")):
        if not (granted == ANY or name in granted or (as_get and "GET" in granted)):
            sentence = None if granted is signed else _OF_CONNECTION.format("method")
            raise Denied("method_not_allowed", f"{whose} does not allow this method", sentence=sentence)


def check_path(path: bytes, signed: tuple[str, ...], ceiling: Ceiling) -> None:
    """Raise Denied unless a signed and a configured pattern match every reading of the path by an upstream.

    Args:
        path: canonical, relative to the connection, with its leading slash; see `Connection.seen`.
    """
    units = compared(path, several=bool(ceiling.upstreams))
    for text in signed:
        if pattern(text).matches(units):
            break
    else:
        raise Denied(
            "path_not_allowed", f"no signed pattern matches the path{_why(map(pattern, signed), units)}"
        )
    for allowed in ceiling.paths:
        if allowed.matches(units):
            break
    else:
        why = _why(ceiling.paths, units)
        detail = f"the connection's own patterns do not match the path{why}"
        raise Denied("path_not_allowed", detail, sentence=_OF_CONNECTION.format("path"))


def _why(patterns: Iterable[Pattern], path: str) -> str:
    """Return a reason, to append, why none of these patterns matches; empty if none is known."""
    if any(one.matches_as_sent(path) for one in patterns):
        return ", which an upstream may end earlier, at ; %3B %3F or %23"
    return ""
