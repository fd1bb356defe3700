"""Faster replacements for functions of mitmproxy, in a process in which nothing else uses it.

Each is compared with mitmproxy's own function first, and not installed where the results differ.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Final, get_args

from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.net.http import url
from mitmproxy.options import Options
from mitmproxy.optmanager import _Option, unset
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import NextLayer

from .flow.raw_message import twin

logger = logging.getLogger(__name__)

MAX_AUTHORITY: Final = 300
"""Characters of an authority that is remembered."""
_ATOMS: Final = frozenset((bool, int, float, str, NoneType))
_stock: Final = {
    name: getattr(owner, name)
    for owner, name in (
        (http.Headers, "get_all"),
        (http.Headers, "get"),
        (http.Headers, "__contains__"),
        (_Option, "current"),
        (url, "parse_authority"),
    )
}


def take() -> None:
    """Install the replacements whose results are those of mitmproxy's own functions."""
    for name, works, enter in _SHORTCUTS:
        try:
            if works():
                enter()
                continue
            why = "it has changed"
        except Exception as error:
            why = type(error).__name__
        logger.info("mitmproxy's own way is taken to its %s (%s)", name, why)


# -- what messages are made of ------------------------------------------------------------------------


def _check_messages() -> None:
    """Check messages faster: mitmproxy asks `typing` about each of a dozen fields."""
    for kind in (http.RequestData, http.ResponseData):
        if "__post_init__" not in vars(kind):
            kind.__post_init__ = _checked(kind, kind.__post_init__)  # type: ignore[method-assign]


def _checked(kind: Any, stock: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a check that passes exact types at once; mitmproxy's own decides on all else."""
    wanted = tuple((field.name, _types(field.type)) for field in fields(kind))

    def check(message: Any) -> None:
        values = vars(message)
        for name, types in wanted:
            if type(values[name]) not in types:
                stock(message)
                return

    return check


def _types(kind: Any) -> frozenset[type]:
    """Return the types that a kind surely allows; none for a kind that is not understood."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return frozenset(one for one in kinds if one is NoneType or isinstance(one, type))


def _messages_are_checked() -> bool:
    return callable(getattr(http.MessageData, "__post_init__", None))


# -- contexts -----------------------------------------------------------------------------------------


def _fork(context: Context) -> Context:
    """Copy a context: mitmproxy makes a server with a random id, only to replace it at once."""
    fork = twin(context)
    fork.layers = context.layers.copy()
    return fork


def _forks_are_alike() -> bool:
    context = Context(Client(peername=("", 0), sockname=("", 0)), Options())
    context.layers.append(NextLayer(context))
    stock, ours = vars(context.fork()), vars(_fork(context))
    lists = stock.pop("layers"), ours.pop("layers")
    return (
        lists[0] == lists[1]
        and all(one is not context.layers for one in lists)
        and stock.keys() == ours.keys()
        and all(stock[name] is ours[name] for name in stock)
    )


def _fork_so() -> None:
    kind: Any = Context
    kind.fork = _fork


# -- header fields ------------------------------------------------------------------------------------


def _get_all(headers: Any, name: Any) -> list[str]:
    """Look a field up: mitmproxy calls three functions for each, and raises inside for a missing one."""
    if isinstance(name, str):
        name = name.encode("utf-8", "surrogateescape")
    wanted, length = name.lower(), len(name)
    return [
        value.decode("utf-8", "surrogateescape")
        for key, value in headers.fields
        if len(key) == length and key.lower() == wanted
    ]


def _get(headers: Any, name: Any, default: Any = None) -> Any:
    values = _get_all(headers, name)
    return ", ".join(values) if values else default


def _contains(headers: Any, name: Any) -> bool:
    return bool(_get_all(headers, name))


def _sample() -> Iterator[tuple[http.Headers, str | bytes]]:
    pairs = (b"Host", b"a"), (b"x-\xff", b"\xfe"), (b"HOST", b" b,"), (b"\xc3\x84", b"\xc3\xa4"), (b"", b"")
    for count in range(len(pairs) + 1):
        for name in ("host", "Host", b"hOST", "x-\udcff", "Ä", "ä", b"\xc3\x84", "", "none", b"none"):
            yield http.Headers(pairs[:count]), name


def _headers_are_alike() -> bool:
    return all(
        _stock["get_all"](headers, name) == _get_all(headers, name)
        and _stock["get"](headers, name, 1) == _get(headers, name, 1)
        and _stock["__contains__"](headers, name) == _contains(headers, name)
        for headers, name in _sample()
    )


def _look_up_so() -> None:
    kind: Any = http.Headers
    kind.get_all, kind.get, kind.__contains__ = _get_all, _get, _contains


# -- options ------------------------------------------------------------------------------------------


def _current(option: Any) -> Any:
    """Read an option: mitmproxy makes a deep copy, twice, of values that cannot change."""
    value = option._default if option.value is unset else option.value
    return value if type(value) in _ATOMS else _stock["current"](option)


def _options_are_alike() -> bool:
    options: Any = Options()
    options.update(ssl_insecure=True, listen_host="a")
    return all(
        _stock["current"](option) == _current(option) and type(option.current()) is type(_current(option))
        for option in options._options.values()
    )


def _read_so() -> None:
    kind: Any = _Option
    kind.current = _current


# -- authorities --------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _parsed(authority: str | bytes, check: bool) -> tuple[str, int | None]:
    found: tuple[str, int | None] = _stock["parse_authority"](authority, check)
    return found


def _parse_authority(authority: Any, check: bool) -> tuple[str, int | None]:
    """Parse an authority: mitmproxy decodes the same few names for each request, label by label."""
    kept = type(authority) in (str, bytes) and len(authority) <= MAX_AUTHORITY
    return _parsed(authority, check) if kept else _stock["parse_authority"](authority, check)


def _authorities_are_alike() -> bool:
    return all(
        _parse_authority(one, check=False) == _stock["parse_authority"](one, check=False)
        for one in ("a.test:80", b"a.test:80", "[::1]:443", "Ä.test", "a b", b"\xff", "a:99999", "")
    )


def _parse_so() -> None:
    url.parse_authority = _parse_authority


_SHORTCUTS: Final[tuple[tuple[str, Callable[[], bool], Callable[[], None]], ...]] = (
    ("messages", _messages_are_checked, _check_messages),
    ("contexts", _forks_are_alike, _fork_so),
    ("header fields", _headers_are_alike, _look_up_so),
    ("options", _options_are_alike, _read_so),
    ("authorities", _authorities_are_alike, _parse_so),
)
