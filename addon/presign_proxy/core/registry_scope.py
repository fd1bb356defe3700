"""The scope of a token of a container registry: the one repository that a request is for.

https://distribution.github.io/distribution/spec/auth/scope/ describes scopes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from ..signing.grammar import ANY
from ..signing.secret import LateSecret, Secret
from .connection import Connection
from .oauth2 import MintedSecret
from .registry_token import RegistryTokenRequest

_API: Final = b"/v2/"
_SEGMENT: Final = re.compile(rb"[a-z0-9._-]+")
"""The characters of a segment of a name, which begins and ends with a letter or digit.

None of them has a meaning in a scope.
"""
_PLACES: Final = frozenset((b"manifests", b"blobs", b"tags", b"referrers"))
"""The segment behind the name of a repository."""
_UPLOADS: Final = frozenset((b"blobs",))
"""The same in the path of an upload, which is a segment longer."""
_MOST: Final = 255
"""Most characters of a name."""
_READS: Final = frozenset((b"GET", b"HEAD"))
_CATALOG: Final = b"/v2/_catalog"


def narrowed(connection: Connection, method: bytes, path: bytes, methods: tuple[str, ...]) -> Connection:
    """Return the connection with a token for this request alone, if its tokens have scopes; else itself.

    Args:
        path: canonical, the base of the upstream included.
        methods: the signed ones.
    """
    for late in connection.injector.secrets():  # another upstream of the connection may get no token
        if isinstance(late, MintedSecret) and isinstance(late.request, RegistryTokenRequest):
            base = connection.upstream.base if connection.upstream is not None else b""
            writes = all(some == ANY or "PUT" in some for some in (methods, connection.ceiling.methods))
            token = late.at(scope_of(method, path.removeprefix(base), writes=writes))
            return _with(token, late.key, connection)
    return connection


def _with(token: MintedSecret, unscoped: tuple[str, ...], connection: Connection) -> Connection:
    """Return the connection with this token at all of its upstreams, in the place that each has for it."""

    def fill(secret: Secret) -> Secret:
        return token if isinstance(secret, LateSecret) and secret.key == unscoped else secret

    injector, others = connection.injector.filled(fill), [one.filled(fill) for one in connection.others]
    return replace(connection, injector=injector, late=(token,), others=tuple(others))


def scope_of(method: bytes, path: bytes, *, writes: bool) -> str:
    """Return the scope that a request needs; empty if it needs none, or is none of the registry's API.

    The scope names one repository, that of the path. So a blob cannot be mounted from another repository
    (`?from=`), whose path nobody has signed; the registry then asks the client to upload it.

    Args:
        path: canonical, below the base of the upstream.
        writes: whether a push is granted too. A push begins with reading, and a repository that does not
            exist yet is known only to a token that may push to it.
    """
    if path == _CATALOG:
        return "registry:catalog:*"
    name = _repository(path)
    if not name:
        return ""
    if method == b"DELETE":
        return f"repository:{name}:delete"
    return f"repository:{name}:pull,push" if writes or method not in _READS else f"repository:{name}:pull"


def _repository(path: bytes) -> str:
    """Return the repository of a path; empty if it names none. Linear: each segment is looked at once."""
    if not path.startswith(_API):
        return ""
    segments = path[len(_API) :].split(b"/")
    # A name may have such a segment too. What stands behind the name has two segments, an upload has three.
    for behind, places in ((2, _PLACES), (3, _UPLOADS)):
        place = len(segments) - behind
        if place > 0 and segments[place] in places:
            name = segments[:place]
            is_name = len(b"/".join(name)) <= _MOST and all(map(_is_segment, name))
            return b"/".join(name).decode("ascii") if is_name else ""
    return ""


def _is_segment(part: bytes) -> bool:
    return _SEGMENT.fullmatch(part) is not None and part[:1].isalnum() and part[-1:].isalnum()
