"""The listening sockets, bound here or passed by systemd, and shared by all workers.

They are bound once and inherited, not one per worker: connections in the queue of a worker's own socket are
lost with that worker, while another worker accepts those in a shared queue.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from collections.abc import Mapping
from typing import Any, Final

BACKLOG: Final = 1024
"""The maximum number of connections that wait to be accepted."""
_FIRST: Final = 3
_ADDRESS: Final = re.compile(r"(?P<host>[A-Za-z0-9._-]*|\*|\[[0-9A-Fa-f:.%a-z]+\]):(?P<port>[0-9]{1,5})")


class ListenError(Exception):
    """A socket cannot listen. The text says why and what to do. `is_taken`: another program listens there."""

    is_taken = False


def parse_address(text: str) -> tuple[str, int]:
    """Return the host (empty: every address) and the port of `HOST:PORT`. Raises ValueError."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8080, [::1]:8080 or *:8080")
    return found["host"].strip("[]*"), int(found["port"])


def bind(host: str, port: int) -> list[socket.socket]:
    """Bind a socket for each address of a host, not yet listening. Raises ListenError."""
    try:
        places = _places(host, port)
    except (OSError, UnicodeError):
        raise ListenError(f"cannot listen on {host}: no such host") from None
    found: list[socket.socket] = []
    try:
        for family, address in places:
            # With port 0, all addresses get the same port.
            at = (address[0], found[0].getsockname()[1], *address[2:]) if found and not port else address
            if (one := _bound(family, at)) is not None:
                found.append(one)
    except OSError as error:
        for one in found:
            one.close()
        failure = ListenError(reason((host, port), error))
        failure.is_taken = error.errno == errno.EADDRINUSE
        raise failure from None
    if not found:
        raise ListenError(f"cannot listen on {host or '*'}: no such address here")
    return found


def _places(host: str, port: int) -> list[tuple[int, tuple[str | int, ...]]]:
    flags = socket.AI_PASSIVE
    answers = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    found: dict[Any, None] = dict.fromkeys((answer[0], answer[4]) for answer in answers)
    return list(found)


def _bound(family: int, address: tuple[str | int, ...]) -> socket.socket | None:
    """Bind one socket. Return None if this machine does not support the address family."""
    try:
        one = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return None
        raise
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 clients get a separate socket, so that each address has one spelling.
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError:
        one.close()
        raise
    one.setblocking(False)
    return one


def reason(address: tuple[Any, ...], error: OSError) -> str:
    """Return why no socket can listen on an address, and what to do, as a sentence."""
    host, port = address[:2]
    where = f"{host or '*'}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {where}: something else does; choose another with --listen"
    if error.errno == errno.EACCES:
        return (
            f"cannot listen on {where}: ports below 1024 are privileged; have systemd open the socket "
            "(deploy/presign.socket), or choose another with --listen"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot listen on {where}: this machine does not have that address"
    return f"cannot listen on {where}: {(error.strerror or 'it failed').lower()}"


def handed_over(environ: Mapping[str, str]) -> list[socket.socket]:
    """Return the sockets that systemd has opened (sd_listen_fds(3)), or none. Raises ListenError."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = environ.get("LISTEN_FDS", "")
    if not count.isascii() or not count.isdecimal() or not 1 <= int(count) <= 64:
        raise ListenError("$LISTEN_FDS is not a number of sockets")
    return [_checked(descriptor) for descriptor in range(_FIRST, _FIRST + int(count))]


def _checked(descriptor: int) -> socket.socket:
    try:
        one = socket.socket(fileno=descriptor)
    except OSError:
        raise ListenError(f"descriptor {descriptor}, passed by systemd, is not a socket") from None
    if one.type != socket.SOCK_STREAM or one.family not in (socket.AF_INET, socket.AF_INET6):
        raise ListenError(f"descriptor {descriptor} is not a TCP socket: use ListenStream= with a port")
    one.setblocking(False)
    return one


def addresses_of(sockets: list[socket.socket]) -> list[str]:
    """Return the addresses of sockets as `HOST:PORT`."""
    found = []
    for one in sockets:
        host, port, *_ = one.getsockname()
        found.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return found


def close(sockets: list[socket.socket]) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.close()
